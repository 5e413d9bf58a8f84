"""Makes the target of a link from a server's address.

The address comes from the URL or from a Sentinel. The rest comes from the settings and from the
certificates that are loaded at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidecar.policy.topology import Address
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.links.own_connections import OwnConnections
from sidecar.proxy.links.racing import Address as ResolvedAddress
from sidecar.proxy.links.target import Target
from sidecar.settings.addresses import is_number
from sidecar.settings.sections.upstream import Upstream
from sidecar.settings.urls import Endpoint
from sidecar.telemetry.handshakes import Handshakes


class Targets:
    """Makes the targets of one upstream. `handshakes` counts those that fail."""

    def __init__(
        self,
        settings: Upstream,
        upstream: Endpoint,
        certificates: Certificates,
        handshakes: Handshakes,
    ) -> None:
        self._settings = settings
        self._handshakes = handshakes
        self._upstream = upstream
        self._certificates = certificates
        self._own: dict[str, OwnConnections] = {}

    def use(self, settings: Upstream) -> None:
        """Make targets by these settings from now on."""
        self._settings = settings

    def of_url(self) -> Target:
        """The target of a plain URL."""
        return self.of(self._upstream)

    def of_address(self, address: Address) -> Target:
        """The target of a server that a Sentinel named."""
        host, port = address
        return self.of(replace(self._upstream, kind="tcp", host=host, port=port))

    def of_number(self, found: ResolvedAddress, named: tuple[str, int] | None = None) -> Target:
        """The target of one of the addresses of the URL's name, or of its path; or of the host and
        port that a server has named."""

        async def resolved(host: str, port: int) -> Sequence[ResolvedAddress]:
            return (found,)

        number = str(found[4][0])
        own = self._own_of(f"{self._upstream} {found[4]}")
        if named is None:
            return replace(self.of_url(), resolve=resolved, number=number, own=own)
        host, port = named
        target = self.of(replace(self._upstream, kind="tcp", host=host, port=port))
        if is_number(host):  # a certificate is for a name
            target = replace(target, server_name=self.of_url().server_name)
        return replace(target, resolve=resolved, number=number, own=own)

    def renewed(self, target: Target) -> Target:
        """A target of the same server, with the certificates of now."""
        return replace(
            self.of(target.endpoint), resolve=target.resolve, number=target.number, own=target.own
        )

    def of(self, endpoint: Endpoint) -> Target:
        """The target of this endpoint."""
        settings = self._settings
        return Target(
            endpoint,
            self._certificates.client,
            settings.tls.server_name or endpoint.host,
            settings.connect_timeout,
            int(settings.tcp_keepalive),
            handshakes=self._handshakes,
            own=self._own_of(str(endpoint)),
        )

    def _own_of(self, server: str) -> OwnConnections:
        """The connections to one server, whichever target they were made with."""
        return self._own.setdefault(server, OwnConnections())
