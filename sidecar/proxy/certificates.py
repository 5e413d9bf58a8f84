"""The TLS contexts of both sides, and when their certificates expire.

Reads the files at start and at each reload. Neither listens nor dials: others take the contexts
from here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from sidecar.settings.schema import Settings
from sidecar.tls import expiry, listener_context, upstream_context


class Certificates:
    """`server` is the context of the listeners, `client` that of links; None means no TLS there.

    Raises ssl.SSLError or OSError when a file is bad.
    """

    def __init__(self, settings: Settings, *, listen: bool, upstream: bool) -> None:
        self._settings = settings
        self._listen = listen
        self._upstream = upstream
        self.client: ssl.SSLContext | None = None
        self.server: ssl.SSLContext | None = None
        self.expiry: Mapping[str, float] = {}
        self.load()

    def load(self) -> None:
        """Read the files again, for new connections. Raises ssl.SSLError or OSError when a file is
        bad; the contexts in use then stay as they are."""
        settings = self._settings
        client = upstream_context(settings.upstream.tls) if self._upstream else None
        server = listener_context(settings.listen.tls) if self._listen else None
        used = {
            "listen": settings.listen.tls.cert_file if self._listen else "",
            "upstream": settings.upstream.tls.cert_file if self._upstream else "",
        }
        ends = {name: expiry(path) for name, path in used.items() if path}
        self.client, self.server, self.expiry = client, server, ends
