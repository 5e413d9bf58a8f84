"""Helpers for starting: the first master, error texts, the banner.

For the composition root only. Starts nothing by itself.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable

import structlog

from sidecar.credentials import Credentials
from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.policy.topology import Address, Event
from sidecar.settings.schema import Settings
from sidecar.settings.sections.upstream import Upstream
from sidecar.settings.urls import Endpoint
from sidecar.tls.contexts import sentinel_context

log = structlog.get_logger()


class StartError(Exception):
    """The sidecar cannot start or cannot go on; the message is one line."""


def watcher_of(
    settings: Settings,
    upstream: Endpoint,
    on_event: Callable[[Event], None],
    credentials: Credentials | None,
) -> SentinelWatcher:
    """Make the watcher of a `redis+sentinel://` upstream, without starting it."""
    tls = settings.upstream.tls
    context = sentinel_context(settings.sentinel, tls, upstream.tls)
    return SentinelWatcher(
        upstream,
        settings.sentinel,
        context,
        on_event,
        server_name=tls.server_name,
        credentials=credentials,
    )


async def find_master(
    watcher: SentinelWatcher, settings: Upstream, deadline: float
) -> Address | None:
    """Find the first master; None if there is none and `upstream.start` is "wait".

    Asked until `deadline`, on the monotonic clock. Raises DiscoveryError.
    """
    error = DiscoveryError(f"no Sentinel has answered within {settings.start_timeout:g} s")
    while True:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await watcher.find_master()
        except TimeoutError:
            pass
        except DiscoveryError as problem:
            error = problem
        if settings.start == "wait":
            log.warning("master unknown", error=str(error))
            return None
        if time.monotonic() >= deadline:
            raise error
        await asyncio.sleep(0.2)


def reason(error: OSError) -> str:
    """The system's error text, without the "[Errno 98] error while attempting to …"."""
    if isinstance(error, ssl.SSLError):
        # Those of our own making have no reason, but a text.
        return getattr(error, "reason", None) or str(error.args[-1] if error.args else error)
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


def advice(error: OSError, setting: str) -> str:
    """The system's error text, and what to do about an address that cannot be used."""
    said = reason(error)
    if isinstance(error, FileExistsError):
        return f"a file that is no socket is there; remove it, or choose another path ({setting})"
    if isinstance(error, PermissionError):
        return f"{said}; take a port above 1023 or a directory you may write to ({setting})"
    return f"{said}; end what holds it, or choose another address ({setting})"


def banner(urls: list[str], upstream: str, admin: str) -> str:
    """The text for a person at a terminal, once the sidecar serves."""
    first, *others = urls
    lines = [
        "",
        f"  redis-sidecar is ready: point your application at  {first}",
        *(f"{'':52}{other}" for other in others),
        f"  upstream  {upstream}",
        f"  admin     {admin}",
        "  stop      Ctrl-C (once to drain, twice to end at once)",
        "",
        "",
    ]
    return "\n".join(lines)
