"""Reading the certificates again, in every part that uses some."""

from __future__ import annotations

from sidecar.admin.server import AdminServer
from sidecar.proxy.server import Proxy
from sidecar.settings.schema import Settings


def read_certificates(
    settings: Settings, proxy: Proxy | None, admin: AdminServer | None
) -> list[str]:
    """Read them; returns the sections of the settings that they belong to.

    Raises OSError (ssl.SSLError) for a bad file: the part that uses it keeps its old certificates.
    """
    if proxy is None:
        return []
    proxy.reload_certificates()
    read = {
        "listen.tls": any(listener.tls for listener in settings.listeners),
        "upstream.tls": settings.upstream_endpoint.tls or settings.sentinel.tls == "on",
        "admin.tls": admin is not None and admin.reload(),
    }
    return [section for section, used in read.items() if used]
