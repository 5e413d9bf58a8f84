"""Warm start: fills the near cache with what was in use before.

`policy.warmup` decides what to load next, `sources` finds the names, `snapshot` keeps them. The
reads go down the tracked links exactly as if clients had asked, so the promises of the cache hold
for them, too.

The reads of the sidecar's own user are loaded at the start. Those of another user are loaded when
the first client of that user logs in, because only then there is a password to read with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import structlog

from sidecar.policy.warm_set import Entry
from sidecar.policy.warm_set import Place as User
from sidecar.policy.warmup import Phase, Place, WarmUp
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.tracked_link import TrackedLink
from sidecar.proxy.nearcache.keeper import NearCacheKeeper
from sidecar.proxy.nearcache.snapshot import Memory, OwnUser
from sidecar.proxy.nearcache.sources import Sources
from sidecar.proxy.nearcache.space import Part, Space, SpaceKey
from sidecar.proxy.tasks import Tasks
from sidecar.settings.schema import Settings
from sidecar.telemetry import snapshots

log = structlog.get_logger()

# Seconds between two looks at the answers while loading.
PAUSE = 0.001
# Spaces that are warmed: each takes a connection.
PLACES = 64
# The share of the budget at which loading stops: more would push out what is used more.
FULL = 0.95
# Keys that are handled without yielding to the loop.
TURN = 200

Show = Callable[[int, int], None]
"""Shows the progress: (done, total)."""


RecordWork = Callable[[str, float, Mapping[str, str | int | bool]], None]
"""Makes a span of work of the sidecar itself: its name, when it began, attributes."""


class Warmup:
    """The warm start of one data plane. `hot` are the keys that are hot now. `show`, if given,
    shows the progress in place of the log. `others` are the snapshot files of the other workers."""

    def __init__(
        self,
        plane: Plane,
        near: NearCacheKeeper,
        own: OwnUser,
        tasks: Tasks,
        settings: Settings,
        *,
        hot: AbstractSet[bytes],
        record_work: RecordWork,
        show: Show | None = None,
        others: Sequence[str] = (),
    ) -> None:
        warm = settings.warm
        self._own = own
        self._tasks = tasks
        self._near = near
        self._hot = hot
        self._record_work = record_work
        self.settings = warm
        self.show = show
        self.memory = Memory(plane, near, warm, own, others)
        self._sources = Sources(self.memory, warm, settings.cache, plane.table, own)
        self._counts: dict[str, int] = {}
        self._machine: WarmUp | None = None
        self._later: dict[SpaceKey, list[Entry]] = {}
        self._told = 0

    @staticmethod
    def wanted(settings: Settings) -> bool:
        """Whether any source is configured."""
        warm = settings.warm
        return bool(warm.snapshot or warm.fleet or warm.key_file or warm.scan)

    def begin(self) -> None:
        """Warm up in the background, once the upstream is there."""
        self._near.watch_spaces(self._on_space)
        self._tasks.spawn(self._run())
        self._tasks.spawn(self.memory.keep())

    def ready(self) -> bool:
        """Whether the sidecar may report ready."""
        return self._machine is not None and self._machine.ready(time.monotonic())

    def snapshot(self) -> snapshots.WarmStart:
        """Counters and gauges."""
        machine = self._machine or self._new()
        return snapshots.WarmStart(
            state=machine.phase,
            total=machine.total,
            loaded=machine.loaded,
            failed=machine.failed,
            duration=machine.duration(time.monotonic()),
            sources=dict(self._counts),
        )

    def _new(self) -> WarmUp:
        settings = self.settings
        return WarmUp(
            time.monotonic(),
            settings.deadline,
            settings.concurrency,
            settings.rate,
            lambda entry: (*entry.place, self._own.shard_of(entry.key)),
        )

    async def _run(self) -> None:
        restored = await self.memory.restore()
        await self._until_up()
        machine = self._machine = self._new()
        try:
            entries, self._counts = await self._sources.gather(restored)
        except BaseException:
            machine.stop(time.monotonic())
            raise
        own = [entry for entry in entries if entry.user is None]
        for entry in entries:
            if entry.user is not None:
                self._later.setdefault(entry.place, []).append(entry)
        for key in [key for key in self._later if key in self._near.spaces]:
            self._on_space(key)
        log.info("warm start began", keys=len(own), **self._counts)
        await self._warm(machine, own, self._progress)

    async def _until_up(self) -> None:
        """Wait until the own link is up."""
        while True:
            if await self._own.bring_up() is None:
                return
            await asyncio.sleep(0.1)

    def _on_space(self, key: SpaceKey) -> None:
        """The first client of a user is here: load what its user read before."""
        if entries := self._later.pop(key, None):
            self._tasks.spawn(self._warm(self._new(), entries, lambda machine: None))

    async def _warm(
        self, machine: WarmUp, entries: Sequence[Entry], progress: Callable[[WarmUp], None]
    ) -> None:
        """Load these, and keep them in the cache for a while."""
        held: dict[User, Space] = {}
        try:
            machine.found(entries, time.monotonic())
            for place in machine.places:
                user, db, _ = place
                space = held.get((user, db))
                if space is None and len(held) < PLACES and (space := self._hold((user, db))):
                    held[user, db] = space
                if space is None:
                    machine.give_up(place, time.monotonic())
            try:
                async with asyncio.timeout(self.settings.deadline + self.settings.hold):
                    await self._load(machine, held, progress)
            except TimeoutError:
                pass
            machine.stop(time.monotonic())
            progress(machine)
            await asyncio.sleep(self.settings.hold)
        finally:
            machine.stop(time.monotonic())
            for space in held.values():
                self._near.let_go(space)
        await self._release(entries)

    def _hold(self, whose: User) -> Space | None:
        user, db = whose
        if user is None:
            return self._near.hold(replace(self._own.login(), db=db))
        return self._near.hold(self._near.spaces[whose].login)

    async def _load(
        self,
        machine: WarmUp,
        held: Mapping[User, Space],
        progress: Callable[[WarmUp], None],
    ) -> None:
        links: dict[Place, TrackedLink | None] = {}
        while machine.phase is Phase.LOADING:
            now = time.monotonic()
            for place in machine.places:
                user, db, shard = place
                self._look(machine, place, held[user, db].parts.get(shard), links, now)
            up = {place: link for place, link in links.items() if link is not None}
            for entry in machine.due(up, now):
                if up[machine.place(entry)].load(entry.request):
                    machine.asked(entry)
                else:
                    machine.passed(entry, self._is_here(entry), now)
            for link in up.values():
                link.flush()
            counts = self._near.cache.snapshot()
            if counts["bytes"] > FULL * counts["budget"]:
                return
            if machine.phase is Phase.LOADING:
                progress(machine)
                await asyncio.sleep(PAUSE)

    def _look(
        self,
        machine: WarmUp,
        place: Place,
        part: Part | None,
        links: dict[Place, TrackedLink | None],
        now: float,
    ) -> None:
        """Take in the answers of a part, or the loss of its connection. None: nothing can be read
        there."""
        link = part.link if part is not None else None
        if links.get(place) not in (None, link):
            machine.lost(place, now)
        links[place] = link
        if link is not None:
            machine.answered(place, link.pending, self._is_here, now)
        elif part is None or part.refused or not self._near.usable:
            machine.give_up(place, now)

    def _is_here(self, entry: Entry) -> bool:
        return self._near.cache.holds(entry.key) > 0

    async def _release(self, entries: Sequence[Entry]) -> None:
        """Stop caching what has not become hot meanwhile."""
        if self._near.settings.mode != "hot":
            return
        for number, entry in enumerate(entries):
            if entry.key not in self._hot:
                self._near.cache.want(entry.key, False)
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)

    def _progress(self, machine: WarmUp) -> None:
        done, total = machine.loaded + machine.failed, machine.total
        if self.show is not None:
            self.show(done, total)
        if machine.phase is Phase.DONE:
            counts = {"sidecar.loaded": machine.loaded, "sidecar.failed": machine.failed}
            began = time.monotonic() - machine.duration(time.monotonic())
            self._record_work("warm up", began, counts)
            seconds = round(machine.duration(time.monotonic()), 3)
            log.info(
                "warm start finished",
                loaded=machine.loaded,
                failed=total - machine.loaded,
                seconds=seconds,
            )
        elif self.show is None and 10 * done // max(total, 1) > self._told:
            self._told = 10 * done // total
            log.info("warm start progressed", done=done, of=total)
