"""When a login may be judged: wrong ones slow down whoever makes them, more each time.

Attempts are counted by (address, user), and by address alone, which bounds who tries many names.
After a few failures in a row, the next attempts are judged one after the other, with pauses that
double. Who gives the right password meanwhile waits for its turn like everybody else: otherwise
many guesses could be made at a time, and the right one would be told by its speed. An accepted
login ends the pauses. Both tables are bounded; what was used least recently is forgotten.

Sans-IO: times are arguments, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MOST = 4096  # keys of each table
FORGET = 600.0  # failures count for so long


@dataclass(frozen=True)
class Pace:
    """How attempts of one kind slow down: after `free` failures the first pause is `first` seconds,
    and none is longer than `longest`. At most `waiting` attempts wait at a time."""

    free: int
    first: float
    longest: float
    waiting: int

    def pause(self, failures: int) -> float:
        """Seconds between two attempts after so many failures in a row."""
        if failures < self.free:
            return 0.0
        return min(self.longest, self.first * float(1 << min(failures - self.free, 30)))


OF_USER = Pace(free=3, first=0.1, longest=2.0, waiting=8)
OF_ADDRESS = Pace(free=30, first=0.05, longest=0.5, waiting=64)


@dataclass
class _Key:
    failures: int = 0
    failed_at: float = 0.0
    next_at: float = 0.0  # when the next attempt may be judged
    waiting: int = 0


class _Table:
    def __init__(self, pace: Pace, most: int) -> None:
        self.pace = pace
        self._most = most
        self._keys: OrderedDict[Hashable, _Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, name: Hashable, now: float) -> _Key:
        found = self._keys.get(name)
        if found is None:
            self._make_room()
            found = self._keys[name] = _Key()
        self._keys.move_to_end(name)
        if found.failures and now - found.failed_at > FORGET:
            found.failures, found.next_at = 0, 0.0
        return found

    def _make_room(self) -> None:
        if len(self._keys) >= self._most:
            # Who waits is kept if possible: its turn would be lost.
            idle = (name for name, key in self._keys.items() if not key.waiting)
            del self._keys[next(idle, next(iter(self._keys)))]

    def drop(self, name: Hashable) -> None:
        found = self._keys.get(name)
        if found is not None and not found.waiting and not found.failures:
            del self._keys[name]


class LoginAttempts:
    """The attempts that count at present. Each one asks for its `turn`, is judged once that has
    come (`begin`), and has its result counted (`judged`)."""

    def __init__(self, most: int = MOST) -> None:
        self._users = _Table(OF_USER, most)
        self._addresses = _Table(OF_ADDRESS, most)

    @property
    def known(self) -> int:
        """How many (address, user) and addresses are remembered."""
        return len(self._users) + len(self._addresses)

    def turn(self, address: str, user: bytes, now: float) -> float | None:
        """Seconds after which this attempt may be judged; None: too many wait, so it is refused."""
        pairs = self._pairs(address, user, now)
        wait = max((key.next_at - now for key, _ in pairs), default=0.0)
        wait = max(0.0, wait)
        if wait and any(key.waiting >= pace.waiting for key, pace in pairs):
            return None
        for key, pace in pairs:
            key.waiting += wait > 0
            key.next_at = now + wait + pace.pause(key.failures)
        return wait

    def begin(self, address: str, user: bytes, now: float) -> None:
        """An attempt that had to wait is judged now, or has been given up."""
        for key, _ in self._pairs(address, user, now):
            key.waiting = max(0, key.waiting - 1)

    def judged(self, address: str, user: bytes, accepted: bool, now: float) -> None:
        """An attempt was accepted or refused."""
        for key, pace in self._pairs(address, user, now):
            if accepted:
                key.failures = 0
            else:
                key.failures += 1
                key.failed_at = now
                key.next_at = max(key.next_at, now + pace.pause(key.failures))
        if accepted:
            self._users.drop((address, user))
            self._addresses.drop(address)

    def _pairs(self, address: str, user: bytes, now: float) -> list[tuple[_Key, Pace]]:
        return [
            (self._users.key((address, user), now), self._users.pace),
            (self._addresses.key(address, now), self._addresses.pace),
        ]
