"""Taking over other settings and certificates, in every part that uses some: in all, or in none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.discovery.sentinel import SentinelWatcher
from sidecar.file_version import file_version
from sidecar.proxy.server import Proxy
from sidecar.settings.schema import Settings
from sidecar.tls.contexts import sentinel_context

if TYPE_CHECKING:
    from sidecar.admin.server import AdminServer

# Seconds between two looks at the configuration file.
LOOK = 0.5


def take_over(
    settings: Settings,
    proxy: Proxy | None,
    watcher: SentinelWatcher | None,
    admin: AdminServer | None,
) -> list[str]:
    """Use these settings, and read the certificates again; returns the sections of the settings
    that those belong to. `proxy` is None until it serves: then nothing is done.

    Raises OSError (ssl.SSLError) for a bad file or address: every part then stays as it is.
    """
    if proxy is None:
        return []
    upstream = settings.upstream_endpoint.tls

    def others() -> None:
        sentinel = sentinel_context(settings.sentinel, settings.upstream.tls, upstream)
        if admin is not None:
            admin.reload(settings.admin)
        # What can fail is done.
        if watcher is not None:
            watcher.use_context(sentinel)

    proxy.reload(settings, others)
    read = {
        "listen.tls": any(listener.tls for listener in settings.listeners),
        "upstream.tls": upstream or settings.sentinel.tls == "on",
        "admin.tls": admin is not None and admin.uses_tls,
    }
    return [section for section, used in read.items() if used]


async def watch(path: str, seen: object, changed: Callable[[], None]) -> None:
    """Call `changed` whenever this file is another one than that of the version `seen`, or has been
    written. Never ends."""
    while True:
        await asyncio.sleep(LOOK)
        now = file_version(path)
        if now != seen:
            seen = now
            changed()
