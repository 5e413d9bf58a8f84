"""The running parts of a sidecar, as the admin endpoint sees them.

The composition root sets the parts when they start; each is known here only by the narrow protocol
that it fulfils. `Parts` makes `Sources` and `Actions` of them: it joins what several parts know
(the topology), and shows nothing of a part that does not run. The parts raise no errors of their
own here: the composition root turns them into `RefusedError`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sidecar.admin.answers import (
    Draining,
    FailoverBegun,
    Flushed,
    Paused,
    Reloaded,
    Resumed,
    Switched,
    Topology,
)
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.certificates import Certificates
from sidecar.admin.redacted import shown
from sidecar.admin.sources import NOWHERE, Actions, AuditTail, RefusedError, Sources
from sidecar.settings.schema import Settings
from sidecar.telemetry import facts, snapshots
from sidecar.telemetry.audit import Record

# The Sentinels are asked for the replicas at most once in FRESH seconds, however many look, and
# have WITHIN seconds to answer.
FRESH = 1.0
WITHIN = 1.0
# Between the answer to POST /api/drain and the end of the address that it came from.
DRAIN_AFTER = 0.05


class DataPlane(Protocol):
    """The part that serves clients."""

    def ready(self) -> Mapping[str, bool]: ...
    def snapshot(self) -> snapshots.DataPlane: ...
    def hot_keys(self, most: int) -> facts.HotKeys: ...
    def recent_traces(self, most: int, why: str = "") -> Sequence[facts.Trace]: ...
    def topology(self) -> facts.Upstream: ...
    async def server(self) -> facts.Server: ...


class Sentinels(Protocol):
    """The part that watches Sentinels. `replicas` and `failover` raise RefusedError."""

    def counts(self) -> snapshots.SentinelCounts: ...
    def snapshot(self) -> facts.Sentinels: ...
    async def replicas(self) -> Sequence[facts.SentinelReplica]: ...
    async def failover(self) -> str: ...


class Upstreams(Protocol):
    """The part that takes other settings over, pauses the upstream and switches it. All raise
    RefusedError."""

    async def reload(self) -> Reloaded: ...
    async def pause(self) -> Paused: ...
    async def resume(self) -> Resumed: ...
    async def switch(self, to: SwitchTo) -> Switched: ...


class Parts:
    """`stop` ends the sidecar in order. `process` counts for the process."""

    def __init__(
        self,
        settings: Settings,
        stop: Callable[[], None],
        upstreams: Upstreams,
        process: Callable[[], snapshots.Process],
    ) -> None:
        self.settings = settings
        self.data_plane: DataPlane | None = None
        self.sentinels: Sentinels | None = None
        self.audit: AuditTail | None = None
        self.admin: Callable[[], snapshots.AdminPort] | None = None
        self._flush: Callable[[], int] = _nothing
        self._process = process
        self._stop = stop
        self._upstreams = upstreams
        self._replicas: Sequence[facts.Replica] = ()
        self._replicas_at = 0.0
        self._asking = asyncio.Lock()

    def serves(self, data_plane: DataPlane, flush: Callable[[], int]) -> None:
        """Clients are served from now on. `flush` empties the near cache and returns how many
        values it had."""
        self.data_plane, self._flush = data_plane, flush

    def serves_no_more(self) -> None:
        """The sidecar ends."""
        self.data_plane, self._flush = None, _nothing

    def sources(self) -> Sources:
        """What the endpoint shows."""
        return Sources(
            ready=self.ready,
            snapshot=self.snapshot,
            hot_keys=self.hot_keys,
            topology=self.topology,
            server=self.server,
            certificates=Certificates(lambda: self.settings, time.time),
            config=lambda: shown(self.settings),
            traces=_Traces(self),
            audit=_Audit(self),
        )

    def actions(self) -> Actions:
        """What the endpoint does."""
        upstreams = self._upstreams
        return Actions(
            drain=self.drain,
            flush_cache=self.flush_cache,
            reload=upstreams.reload,
            failover=self.failover,
            pause=upstreams.pause,
            resume=upstreams.resume,
            switch=upstreams.switch,
        )

    def ready(self) -> Mapping[str, bool]:
        serving = self.data_plane is not None
        return {"serving": serving, **(self.data_plane.ready() if self.data_plane else {})}

    def snapshot(self) -> snapshots.Snapshot:
        plane, sentinels = self.data_plane, self.sentinels
        return snapshots.Snapshot(
            process=self._process(),
            data_plane=plane.snapshot() if plane is not None else None,
            sentinels=sentinels.counts() if plane and sentinels else None,
            admin=self.admin() if self.admin is not None else None,
        )

    def hot_keys(self, most: int) -> facts.HotKeys:
        if self.data_plane is None:
            return facts.HotKeys(window_s=self.settings.hotkeys.window, keys=())
        return self.data_plane.hot_keys(most)

    async def server(self) -> facts.Server:
        return await self.data_plane.server() if self.data_plane is not None else facts.Server()

    def recent_traces(self, most: int, why: str = "") -> Sequence[facts.Trace]:
        return self.data_plane.recent_traces(most, why) if self.data_plane is not None else ()

    def recent_records(self, most: int) -> Sequence[Record]:
        return self.audit.recent(most) if self.audit is not None else ()

    async def topology(self) -> Topology:
        upstream = self.data_plane.topology() if self.data_plane is not None else NOWHERE
        known = {name: getattr(upstream, name) for name in facts.Upstream.__struct_fields__}
        if self.sentinels is None:
            return Topology(**known, replicas=(await self.server()).replicas, sentinels=())
        replicas, seen = await self._replicas_seen(self.sentinels), self.sentinels.snapshot()
        return Topology(
            **known,
            replicas=replicas,
            sentinels=seen.sentinels,
            service=seen.service,
            epoch=seen.epoch,
            quorum=seen.quorum,
        )

    async def _replicas_seen(self, sentinels: Sentinels) -> Sequence[facts.Replica]:
        """The replicas that the Sentinels see, with how far the master says each is behind."""
        async with self._asking:
            if time.monotonic() - self._replicas_at > FRESH:
                self._replicas_at = time.monotonic()
                found: Sequence[facts.SentinelReplica] = ()
                try:
                    async with asyncio.timeout(WITHIN):
                        found = await sentinels.replicas()
                except (RefusedError, TimeoutError):
                    pass
                lags = {each.address: each for each in (await self.server()).replicas}
                self._replicas = [_replica(each, lags.get(each.address)) for each in found]
        return self._replicas

    async def drain(self) -> Draining:
        asyncio.get_running_loop().call_later(DRAIN_AFTER, self._stop)
        return Draining(draining=True, timeout_s=self.settings.drain.timeout)

    async def flush_cache(self) -> Flushed:
        if self.data_plane is None:
            raise RefusedError("the sidecar is not serving")
        if self.settings.cache.mode == "off":
            raise RefusedError('there is no near cache: cache.mode is "off"')
        return Flushed(dropped=self._flush())

    async def failover(self) -> FailoverBegun:
        if self.sentinels is None:
            raise RefusedError("the upstream is not redis+sentinel://: there is no Sentinel to ask")
        if not self.settings.admin.failover:
            raise RefusedError("not allowed: set admin.failover = true")
        return FailoverBegun(asked=await self.sentinels.failover())


def _nothing() -> int:
    return 0


class _Traces:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def recent(self, most: int, why: str = "") -> Sequence[facts.Trace]:
        return self._parts.recent_traces(most, why)


class _Audit:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def recent(self, most: int) -> Sequence[Record]:
        return self._parts.recent_records(most)


def _replica(seen: facts.SentinelReplica, lag: facts.Replica | None) -> facts.Replica:
    return facts.Replica(
        address=seen.address,
        state=_state(seen.flags, seen.link),
        lag_bytes=lag.lag_bytes if lag is not None else None,
        lag_s=lag.lag_s if lag is not None else None,
    )


def _state(flags: Sequence[str], link: str) -> str:
    """One word for what a Sentinel thinks of a replica."""
    for flag in ("s_down", "o_down", "disconnected"):
        if flag in flags:
            return "down"
    return "online" if link == "ok" else "not in sync"
