"""The parts of a sidecar of several workers, as the admin endpoint sees them (admin/parts.py).

Figures are those that the workers last told, and are asked for anew before they are shown
(`refresh`); whoever does not answer within ANSWER seconds is shown as it was. Hot keys, traces and
the end of the audit stream are merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from sidecar.admin.answers import FailoverBegun, Flushed, Topology
from sidecar.admin.parts import Parts, Upstreams
from sidecar.admin.sources import NOWHERE, RefusedError, Sources
from sidecar.app.channel import CallError, SilentError
from sidecar.app.crew import Crew
from sidecar.app.orders import ASKED, Ask
from sidecar.settings.schema import Settings
from sidecar.telemetry import facts, snapshots
from sidecar.telemetry.audit import RECENT, Record

T = TypeVar("T")

# Seconds that a scrape waits for the workers.
ANSWER = 0.5
# Seconds within which workers notice the same interruption, or go over one after the other.
TOGETHER = 1.0
KEYS = 1000
TRACES = 500


class Whole(Parts):
    """As `Parts`, for all workers together."""

    def __init__(
        self,
        settings: Settings,
        stop: Callable[[], None],
        upstreams: Upstreams,
        process: Callable[[], snapshots.Process],
    ) -> None:
        super().__init__(settings, stop, upstreams, process)
        self._crew: Crew | None = None
        self._keys = facts.HotKeys(window_s=settings.hotkeys.window, keys=())
        self._traces: Sequence[facts.Trace] = ()
        self._records: Sequence[Record] = ()

    def serves_with(self, crew: Crew) -> None:
        """Clients are served from now on."""
        self._crew = crew

    def serves_no_more(self) -> None:
        self._crew = None

    def sources(self) -> Sources:
        return replace(
            super().sources(),
            refresh=self.refresh,
            each=lambda: self._crew.snapshots() if self._crew is not None else {},
            processes=self._processes,
        )

    async def refresh(self, what: str) -> None:
        """Ask the workers for what is about to be shown."""
        crew = self._crew
        if crew is None:
            return
        name, _, why = what.partition(":")
        if name == "figures":
            await crew.refresh(ANSWER)
        elif name == "hot keys":
            said = await crew.ask_all(name, Ask(most=KEYS), type=facts.HotKeys, within=ANSWER)
            self._keys = merged_keys(said) if said else self._keys
        elif name == "traces":
            ask = Ask(most=TRACES, why=why)
            found = await crew.ask_all(name, ask, type=list[facts.Trace], within=ANSWER)
            self._traces = sorted(_all(found), key=attrgetter("time"), reverse=True)
        elif name == "audit":
            ask = Ask(most=RECENT)
            self._records = _all(await crew.ask_all(name, ask, type=list[Record], within=ANSWER))

    def ready(self) -> Mapping[str, bool]:
        crew = self._crew
        checks = {"serving": crew is not None and bool(crew.up)}
        if crew is None:
            return checks
        checks["workers"] = all(each.state != "silent" for each in crew.workers)
        for worker in crew.up:
            for name, holds in (worker.last.ready if worker.last is not None else {}).items():
                checks[name] = holds and checks.get(name, True)
        return checks

    def snapshot(self) -> snapshots.Snapshot:
        admin = self.admin() if self.admin is not None else None
        own = snapshots.Snapshot(process=self._process(), admin=admin)
        return self._crew.snapshot(own) if self._crew is not None else own

    def hot_keys(self, most: int) -> facts.HotKeys:
        return facts.HotKeys(window_s=self._keys.window_s, keys=self._keys.keys[:most])

    def recent_traces(self, most: int, why: str = "") -> Sequence[facts.Trace]:
        return self._traces[:most]

    def recent_records(self, most: int) -> Sequence[Record]:
        own = self.audit.recent(most) if self.audit is not None else ()
        newest = sorted([*own, *self._records], key=attrgetter("time"), reverse=True)
        return newest[:most]

    async def server(self) -> facts.Server:
        try:
            said: facts.Server = await self._ask_one("server", facts.Server)
        except RefusedError as error:
            return facts.Server(error=str(error))
        return said

    async def topology(self) -> Topology:
        if self._crew is None:
            return NOWHERE
        said = await self._crew.ask_all("topology", type=Topology, within=ASKED)
        return merged_topology(said) if said else NOWHERE

    async def flush_cache(self) -> Flushed:
        if self._crew is None:
            raise RefusedError("the sidecar is not serving")
        if self.settings.cache.mode == "off":
            raise RefusedError('there is no near cache: cache.mode is "off"')
        dropped = await self._crew.ask_all("flush", type=int, within=ASKED)
        if len(dropped) < len(self._crew.workers):
            raise RefusedError("not every worker has answered: their values may still be served")
        return Flushed(dropped=sum(dropped))

    async def failover(self) -> FailoverBegun:
        if not self.settings.admin.failover:
            raise RefusedError("not allowed: set admin.failover = true")
        return FailoverBegun(asked=await self._ask_one("failover", str))

    async def _ask_one(self, name: str, type: Any) -> Any:
        if self._crew is None:
            raise RefusedError("the sidecar is not serving")
        try:
            return await self._crew.ask_one(name, type=type, within=ASKED)
        except (CallError, SilentError) as error:
            raise RefusedError(str(error)) from error

    def _processes(self) -> Mapping[str, int]:
        if self._crew is None:
            return {}
        return {str(each.number): each.pid for each in self._crew.workers if each.pid}


def merged_topology(said: Sequence[Topology]) -> Topology:
    """What all workers know. They have the same upstream, but each has its own links to it, and may
    have noticed what others have not yet."""
    first = next((each for each in said if each.phase not in (None, "serving")), said[0])
    return msgspec.structs.replace(
        first,
        up=all(each.up for each in said),
        switches=max(each.switches for each in said),
        history=merged_history([each.history for each in said]),
        shards=merged_shards([each.shards for each in said if each.shards is not None]),
    )


# The better first.
STATES: Sequence[facts.ShardState] = ("idle", "up", "connecting", "late", "overdue", "lost")


def merged_shards(said: Sequence[Sequence[facts.Shard]]) -> Sequence[facts.Shard] | None:
    """The shards as the first worker numbers them, with the links of all. Workers tell of the same
    shard if its primary and its slots are the same."""
    if not said:
        return None
    first, *others = said
    merged = {(each.primary, tuple(each.ranges)): each for each in first}
    for each in _all(others):
        place = each.primary, tuple(each.ranges)
        if place in merged:
            merged[place] = _both(merged[place], each)
    return list(merged.values())


def _both(one: facts.Shard, other: facts.Shard) -> facts.Shard:
    state = max(one.state, other.state, key=STATES.index)
    return msgspec.structs.replace(
        one,
        state=state,
        up=state in ("up", "late"),
        silent_s=max(one.silent_s, other.silent_s),
        replies_due=one.replies_due + other.replies_due,
        held_clients=one.held_clients + other.held_clients,
    )


def merged_history(
    histories: Sequence[Sequence[facts.Interruption]],
) -> Sequence[facts.Interruption]:
    """The interruptions of all workers, the newest first. What several have noticed at about the
    same time is one."""
    found = sorted(
        ((each, number) for number, history in enumerate(histories) for each in history),
        key=lambda pair: pair[0].at,
    )
    merged: list[tuple[facts.Interruption, set[int]]] = []
    latest: dict[str | None, int] = {}  # of each shard
    for each, number in found:
        place = latest.get(_where(each), -1)
        last, noticed_by = merged[place] if place >= 0 else (each, {number})
        if number in noticed_by or each.at > _end(last) + TOGETHER:
            latest[_where(each)] = len(merged)
            merged.append((each, {number}))
        else:
            merged[place] = _joined(last, each), {*noticed_by, number}
    return [each for each, _ in reversed(merged)]


def _where(of: facts.Interruption) -> str | None:
    """What distinguishes interruptions of several shards, which workers may number differently;
    None where there is one server."""
    return of.before if of.shard is not None else None


def _end(of: facts.Interruption) -> float:
    return math.inf if of.seconds is None else of.at + of.seconds


def _joined(one: facts.Interruption, later: facts.Interruption) -> facts.Interruption:
    end = max(_end(one), _end(later))
    return facts.Interruption(
        at=one.at,
        before=one.before,
        after=later.after if later.switched else one.after,
        switched=one.switched or later.switched,
        seconds=None if end == math.inf else round(end - one.at, 4),
        shard=one.shard,
    )


def _all(said: Sequence[Sequence[T]]) -> list[T]:
    return [each for some in said for each in some]


def merged_keys(said: Sequence[facts.HotKeys]) -> facts.HotKeys:
    """The hottest keys of all workers. What share of the traffic of one worker a key has, and how
    many commands a second that is, tells how much traffic that worker has."""
    found: dict[tuple[str, int, str], facts.HotKey] = {}
    traffic = 0.0
    for one in said:
        first = next((each for each in one.keys if each.share > 0), None)
        traffic += first.rate / first.share if first is not None else 0.0
        for key in one.keys:
            place = key.user, key.db, key.key
            found[place] = _added(found[place], key) if place in found else key
    keys = [
        msgspec.structs.replace(key, share=round(key.rate / traffic, 6) if traffic else 0.0)
        for key in found.values()
    ]
    keys.sort(key=lambda key: key.rate, reverse=True)
    return facts.HotKeys(window_s=said[0].window_s, keys=keys)


def _added(one: facts.HotKey, other: facts.HotKey) -> facts.HotKey:
    return facts.HotKey(
        key=one.key,
        db=one.db,
        user=one.user,
        share=0.0,
        rate=round(one.rate + other.rate, 1),
        reads=round(one.reads + other.reads, 1),
        writes=round(one.writes + other.writes, 1),
        hot=one.hot or other.hot,
        cached=one.cached or other.cached,
    )
