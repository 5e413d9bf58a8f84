"""What the admin endpoint shows of the parts and asks of them: the joints between them.

The composition root owns the parts and makes a `View` of them; a part that is not there yet, or no
more, shows nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.admin.certificates import Certificates
from sidecar.admin.redacted import shown
from sidecar.admin.sources import Actions, Later, RefusedError, Sources
from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.proxy.server import Proxy
from sidecar.settings.addresses import join_host_port
from sidecar.settings.schema import Settings

Facts = Mapping[str, Any]

# Sentinels are asked for the replicas at most this often, however many look.
FRESH = 1.0
WITHIN = 1.0
# Between the answer to POST /api/drain and the end of the address it came from.
DRAIN_AFTER = 0.05


class View:
    """`stop` ends the sidecar in order; `reload` reads certificates again and says which; `counts`
    says what the process counts by itself."""

    def __init__(
        self,
        settings: Settings,
        stop: Callable[[], None],
        reload: Callable[[], list[str]],
        counts: Callable[[], Mapping[str, object]],
    ) -> None:
        self.settings = settings
        self.proxy: Proxy | None = None
        self.watcher: SentinelWatcher | None = None
        self.serving = False
        self.audit = Later()
        self._counts = counts
        self._stop = stop
        self._reload = reload
        self._replicas: list[Facts] = []
        self._replicas_at = 0.0
        self._asking = asyncio.Lock()

    def sources(self) -> Sources:
        """For the admin endpoint."""
        config = shown(self.settings)
        return Sources(
            ready=self.ready,
            snapshot=self.snapshot,
            hot_keys=self.hot_keys,
            topology=self.topology,
            server=self.server,
            certificates=Certificates(self.settings, time.time),
            config=lambda: config,
            traces=self,
            audit=self.audit,
        )

    def actions(self) -> Actions:
        """For the admin endpoint."""
        return Actions(self.drain, self.flush_cache, self.reload, self.failover)

    @property
    def _serving(self) -> Proxy | None:
        return self.proxy if self.serving else None

    def ready(self) -> Mapping[str, bool]:
        checks = {"serving": self.serving}
        if self._serving is not None:
            checks.update(self._serving.report.ready())
        return checks

    def snapshot(self) -> Mapping[str, object]:
        values = dict(self._counts())
        if self._serving is not None:
            values.update(self._serving.report.snapshot())
            if self.watcher is not None:
                values.update(self.watcher.counts())
        return values

    def recent(self, most: int, why: str = "") -> Sequence[Facts]:
        """The newest traces."""
        return self._serving.report.recent_traces(most, why) if self._serving is not None else ()

    def hot_keys(self, count: int) -> Facts:
        if self._serving is None:
            return {"window_s": self.settings.hotkeys.window, "keys": []}
        return self._serving.report.hot_keys(count)

    async def server(self) -> Facts:
        return await self._serving.facts.get() if self._serving is not None else {}

    async def topology(self) -> Facts:
        known = self._serving.report.topology() if self._serving is not None else _NOWHERE
        if self.watcher is not None:
            replicas, sentinels = await self._replicas_seen(self.watcher), self.watcher.snapshot()
            return {
                **known,
                "replicas": replicas,
                "service": sentinels["service"],
                "epoch": sentinels["epoch"],
                "quorum": sentinels["quorum"],
                "sentinels": sentinels["sentinels"],
            }
        server = await self.server()
        return {**known, "replicas": server.get("replicas", []), "sentinels": []}

    async def _replicas_seen(self, watcher: SentinelWatcher) -> list[Facts]:
        """As the Sentinels see them, with how far behind each is."""
        async with self._asking:
            if time.monotonic() - self._replicas_at > FRESH:
                self._replicas_at = time.monotonic()
                try:
                    async with asyncio.timeout(WITHIN):
                        found = await watcher.replicas()
                except (DiscoveryError, TimeoutError):
                    found = []
                lags = {each["address"]: each for each in (await self.server()).get("replicas", [])}
                self._replicas = [
                    {
                        "address": (address := join_host_port(*replica.address)),
                        "state": _state(replica.flags, replica.link),
                        "lag_bytes": lags.get(address, {}).get("lag_bytes"),
                        "lag_s": lags.get(address, {}).get("lag_s"),
                    }
                    for replica in found
                ]
        return self._replicas

    async def drain(self) -> Facts:
        asyncio.get_running_loop().call_later(DRAIN_AFTER, self._stop)
        return {"draining": True, "timeout_s": self.settings.drain.timeout}

    async def flush_cache(self) -> Facts:
        if self._serving is None:
            raise RefusedError("the sidecar is not serving")
        if self.settings.cache.mode == "off":
            raise RefusedError('there is no near cache: cache.mode is "off"')
        return {"dropped": self._serving.flush_cache()}

    async def reload(self) -> Facts:
        try:
            return {"reloaded": self._reload()}
        except (OSError, ssl.SSLError) as error:
            raise RefusedError(f"nothing was reloaded: {error}") from error

    async def failover(self) -> Facts:
        if self.watcher is None:
            raise RefusedError("the upstream is not redis+sentinel://: nobody can be asked")
        if not self.settings.admin.failover:
            raise RefusedError("not allowed: set admin.failover = true")
        try:
            return {"asked": await self.watcher.failover()}
        except DiscoveryError as error:
            raise RefusedError(str(error)) from error


_NOWHERE: Facts = {
    "upstream": "",
    "follows_sentinels": False,
    "phase": None,
    "master": None,
    "up": False,
    "switches": 0,
    "history": [],
}


def _state(flags: tuple[str, ...], link: str) -> str:
    """One word for what a Sentinel thinks of a replica."""
    for flag in ("s_down", "o_down", "disconnected"):
        if flag in flags:
            return "down"
    return "online" if link == "ok" else "not in sync"
