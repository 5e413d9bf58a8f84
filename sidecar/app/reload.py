"""Reading the certificates again, in every part that uses some: in all of them, or in none."""

from __future__ import annotations

from sidecar.admin.server import AdminServer
from sidecar.discovery.sentinel import SentinelWatcher
from sidecar.proxy.server import Proxy
from sidecar.settings.schema import Settings
from sidecar.tls import sentinel_context


def read_certificates(
    settings: Settings,
    proxy: Proxy | None,
    watcher: SentinelWatcher | None,
    admin: AdminServer | None,
) -> list[str]:
    """Read them; returns the sections of the settings that they belong to. `proxy` is None until it
    serves: then nothing is read.

    Raises OSError (ssl.SSLError) for a bad file: every part then keeps its old certificates.
    """
    if proxy is None:
        return []
    upstream = settings.upstream_endpoint.tls

    def others() -> None:
        sentinel = sentinel_context(settings.sentinel, settings.upstream.tls, upstream)
        if admin is not None:
            admin.reload()
        # What can fail is done.
        if watcher is not None:
            watcher.use_context(sentinel)

    proxy.reload_certificates(others)
    read = {
        "listen.tls": any(listener.tls for listener in settings.listeners),
        "upstream.tls": upstream or settings.sentinel.tls == "on",
        "admin.tls": admin is not None and admin.uses_tls,
    }
    return [section for section, used in read.items() if used]
