"""The TLS contexts of both sides, and when their certificates expire.

Reads the files at start and at each reload. Neither listens nor dials: others take the contexts
from here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.settings.schema import Settings
from sidecar.tls import expiry, listener_context, upstream_context


@dataclass(frozen=True)
class Contexts:
    """`server` is the context of the listeners, `client` that of links; None means no TLS there.
    `expiry` says when their certificates end (Unix time)."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    expiry: Mapping[str, float]


class Certificates:
    """The contexts in use. Raises ssl.SSLError or OSError when a file is bad."""

    def __init__(self, settings: Settings, *, upstream: bool) -> None:
        self._upstream = upstream
        self._used = self.read(settings)

    @property
    def server(self) -> ssl.SSLContext | None:
        """The context of the listeners."""
        return self._used.server

    @property
    def client(self) -> ssl.SSLContext | None:
        """The context of links."""
        return self._used.client

    @property
    def expiry(self) -> Mapping[str, float]:
        """When the certificates end (Unix time), by section of the settings."""
        return self._used.expiry

    def use(self, contexts: Contexts) -> None:
        """Use these for new connections."""
        self._used = contexts

    def read(self, settings: Settings) -> Contexts:
        """Read the files. Raises ssl.SSLError or OSError when one is bad. Changes nothing."""
        listens = any(endpoint.tls for endpoint in settings.listeners)
        client = upstream_context(settings.upstream.tls) if self._upstream else None
        server = listener_context(settings.listen.tls) if listens else None
        used = {
            "listen": settings.listen.tls.cert_file if listens else "",
            "upstream": settings.upstream.tls.cert_file if self._upstream else "",
        }
        ends = {name: expiry(path) for name, path in used.items() if path}
        return Contexts(server, client, ends)
