"""Warming up: which entries to ask for next, and when it is over. Pure; time is handed in.

    GATHERING  the sources are being read   --found--> LOADING, or DONE without entries
    LOADING    reads are under way          --all answered, stop--> DONE
    DONE       whatever is answered now counts no more

Reads of one place, a (user, database) and of a cluster a shard beside, are answered in the order
they were asked for: they share a connection. When that is lost, everything read on it is gone. It
is all read once more, without what was under way, since one of these may be what the connection
broke on; after a second loss the place is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum

from sidecar.policy.warm_set import Entry

Place = tuple[bytes | None, int, int | None]
"""(user, database, number of the shard; None: the upstream is no cluster)"""


class Phase(Enum):
    """See the module's head."""

    GATHERING = "gathering"
    LOADING = "loading"
    DONE = "done"


@dataclass
class _Queue:
    """One place's entries: to be asked for, under way, and here."""

    due: deque[Entry] = field(default_factory=deque)
    asked: deque[Entry] = field(default_factory=deque)
    here: list[Entry] = field(default_factory=list)
    lost: bool = False


@dataclass
class WarmUp:
    """One warm-up. Times in seconds of one monotonic clock.

    At most `concurrency` reads are under way, and `rate` are begun each second (0: no limit).
    `deadline` after `began` the sidecar is ready, whatever is still missing. `place_of` tells an
    entry's place, once.
    """

    began: float
    deadline: float
    concurrency: int
    rate: float
    place_of: Callable[[Entry], Place] = lambda entry: (*entry.place, None)
    phase: Phase = Phase.GATHERING
    total: int = 0
    loaded: int = 0
    failed: int = 0
    ended: float = 0.0
    _places: dict[Place, _Queue] = field(default_factory=dict)
    _place: dict[Entry, Place] = field(default_factory=dict)
    _may: float = 0.0
    _counted_at: float = 0.0

    def found(self, entries: Iterable[Entry], now: float) -> None:
        """The sources have been read: these are to be loaded, the first ones first."""
        if self.phase is not Phase.GATHERING:
            raise RuntimeError(f"entries in phase {self.phase.value}")
        for entry in entries:
            place = self._place[entry] = self.place_of(entry)
            self._places.setdefault(place, _Queue()).due.append(entry)
            self.total += 1
        self.phase = Phase.LOADING
        self._may, self._counted_at = 1.0, now
        self._end_if_over(now)

    def due(self, places: Collection[Place], now: float) -> list[Entry]:
        """What to ask for now; these places can be asked. Each is told of: `asked` or `passed`."""
        if self.phase is not Phase.LOADING:
            return []
        room = self.concurrency - self.under_way
        if self.rate:
            grown = self._may + self.rate * (now - self._counted_at)
            self._may, self._counted_at = min(grown, self.concurrency), now
            room = min(room, int(self._may))
        queues = deque(self._places[place].due for place in places if place in self._places)
        found: list[Entry] = []
        while queues and len(found) < room:
            queue = queues.popleft()
            if queue:
                found.append(queue.popleft())
                queues.append(queue)
        self._may -= len(found) if self.rate else 0
        return found

    def asked(self, entry: Entry) -> None:
        """It has been asked for."""
        if self.phase is Phase.LOADING:
            self._places[self.place(entry)].asked.append(entry)

    def passed(self, entry: Entry, here: bool, now: float) -> None:
        """It need not be asked for (`here`), or cannot."""
        if self.phase is Phase.LOADING:
            self._count(entry, here)
            self._end_if_over(now)

    def answered(
        self, place: Place, pending: int, here: Callable[[Entry], bool], now: float
    ) -> None:
        """Of all that was asked for at this place, by anybody, `pending` answers are due."""
        if self.phase is not Phase.LOADING or place not in self._places:
            return
        asked = self._places[place].asked
        while asked and (len(asked) > pending or here(asked[0])):
            entry = asked.popleft()
            self._count(entry, here(entry))
        self._end_if_over(now)

    def lost(self, place: Place, now: float) -> None:
        """The place's connection is lost, and what was read on it."""
        if self.phase is not Phase.LOADING or place not in self._places:
            return
        queue = self._places[place]
        again, queue.here = queue.here, []
        self.loaded -= len(again)
        self.failed += len(queue.asked)
        queue.asked.clear()
        queue.due.extendleft(reversed(again))
        if queue.lost:
            self.give_up(place, now)
        queue.lost = True
        self._end_if_over(now)

    def give_up(self, place: Place, now: float) -> None:
        """The place can't be read."""
        if self.phase is not Phase.LOADING or place not in self._places:
            return
        queue = self._places[place]
        self.failed += len(queue.due) + len(queue.asked)
        queue.due.clear()
        queue.asked.clear()
        self._end_if_over(now)

    def stop(self, now: float) -> None:
        """Enough."""
        if self.phase is not Phase.DONE:
            self.phase = Phase.DONE
            self.ended = now
            self._places.clear()

    def ready(self, now: float) -> bool:
        """Whether the sidecar need not wait for it any more."""
        return self.phase is Phase.DONE or now >= self.began + self.deadline

    def place(self, entry: Entry) -> Place:
        """Where this one of the entries found is read."""
        return self._place[entry]

    @property
    def under_way(self) -> int:
        """Reads asked for and not answered."""
        return sum(len(queue.asked) for queue in self._places.values())

    @property
    def places(self) -> list[Place]:
        """Where something is still to be read, or under way."""
        return [place for place, queue in self._places.items() if queue.due or queue.asked]

    def duration(self, now: float) -> float:
        """How long it has taken, so far or altogether."""
        return (self.ended if self.phase is Phase.DONE else now) - self.began

    def _count(self, entry: Entry, here: bool) -> None:
        self.loaded += here
        self.failed += not here
        if here:
            self._places[self.place(entry)].here.append(entry)

    def _end_if_over(self, now: float) -> None:
        if self.loaded + self.failed == self.total:
            self.stop(now)
