"""How the upstream's servers are connected to: a target for each address.

The addresses come from the URL or from Sentinels; everything else is as the settings say, with the
certificates of now.
"""

from __future__ import annotations

from dataclasses import replace

from sidecar.policy.topology import Address
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.links.target import Target
from sidecar.settings.sections.upstream import Upstream
from sidecar.settings.urls import Endpoint


class Targets:
    """Makes targets of one upstream's servers."""

    def __init__(self, settings: Upstream, upstream: Endpoint, certificates: Certificates) -> None:
        self._settings = settings
        self._upstream = upstream
        self._certificates = certificates

    def of_url(self) -> Target:
        """The server that the URL itself names."""
        return self.of(self._upstream)

    def of_address(self, address: Address) -> Target:
        """A server that Sentinels have named."""
        host, port = address
        return self.of(replace(self._upstream, kind="tcp", host=host, port=port))

    def of(self, endpoint: Endpoint) -> Target:
        """The server at this endpoint."""
        settings = self._settings
        return Target(
            endpoint,
            self._certificates.client,
            settings.tls.server_name or endpoint.host,
            settings.connect_timeout,
            int(settings.tcp_keepalive),
        )
