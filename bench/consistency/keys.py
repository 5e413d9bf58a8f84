"""The keys of the load, and what each of their values is called.

A value names its key and version, `reg7:12`, so whoever reads it knows what has been seen. A
*register* is written by one client at a time (`busy`); a *counter* by anybody. Versions are those
of `tests.harness.checker.history`. A register whose last write was not acknowledged is *retired*:
it is still read for a while, and never written again, so nothing can overtake that write.
"""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass, field

from tests.harness.checker.history import (
    ABSENT,
    GARBLED,
    NEVER,
    WIPED,
    History,
    Kind,
)

MILLISECOND = 1_000_000

REGISTERS = {"string": 6, "hash": 3, "list": 2}
COUNTERS = {"number": 3, "numbers": 1}
"""Shape -> how many. `numbers` is a hash."""

READ_AFTER_RETIRING = 3.0
"""Seconds."""


@dataclass(eq=False)
class Key:
    """One key."""

    number: int
    name: bytes
    shape: str
    retired_at: float = 0.0


@dataclass(eq=False)
class Register(Key):
    """A key with one writer at a time."""

    version: int = 0
    present: bool = False
    window: tuple[int, int] | None = None
    """When the value expires: not before, and not after."""
    busy: bool = False
    text: bytes = b""
    """What the value calls itself."""
    names: dict[bytes, int] = field(default_factory=dict)
    """Values that came from another key -> their versions here."""

    @property
    def sure(self) -> bool:
        """Whether there is a value, and will be for as long as nobody writes."""
        return self.present and self.window is None

    @property
    def next_text(self) -> bytes:
        """What the next value is to call itself."""
        return b"%b:%d" % (self.name, self.version + 2)

    def may_get(self, other: Register) -> bool:
        """Whether the other key's value would be told from all that have been here."""
        return (
            other.sure
            and not other.text.startswith(self.name + b":")
            and other.text not in self.names
        )

    def seen(self, value: bytes | None) -> int:
        """The version of a value read."""
        if value is None:
            return ABSENT
        text = value.partition(b" ")[0]
        name, _, number = text.rpartition(b":")
        if name == self.name and number.isdigit():
            return int(number)
        return self.names.get(text, GARBLED)


class Counter(Key):
    """A key that anybody increments."""

    def seen(self, value: object) -> int:
        """The version of a value read."""
        if value is None:
            return ABSENT
        text = value if isinstance(value, bytes) else str(value).encode()
        return int(text) if text.isdigit() else GARBLED


class Keys:
    """All keys there are now, and the history of what is done to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.history = History()
        self.registers: list[Register] = []
        self.counters: list[Counter] = []
        self.old: deque[Register | Counter] = deque()
        self.under_way = 0
        self.shut = False
        """Nobody may begin to write."""
        self._serial = 0
        self._fill()

    def _fill(self) -> None:
        """Make as many keys as there should be."""
        for shape, count in REGISTERS.items():
            for _ in range(count - sum(key.shape == shape for key in self.registers)):
                name = self._name("reg")
                number = self.history.new_key(name.decode())
                self.registers.append(Register(number, name, shape))
        for shape, count in COUNTERS.items():
            for _ in range(count - sum(key.shape == shape for key in self.counters)):
                name = self._name("count")
                number = self.history.new_key(name.decode(), counter=True)
                self.counters.append(Counter(number, name, shape))

    def _name(self, prefix: str) -> bytes:
        self._serial += 1
        return f"{prefix}{self._serial}".encode()

    # Choosing

    def any(self) -> Register | Counter:
        """A key to read."""
        while self.old and time.monotonic() - self.old[0].retired_at > READ_AFTER_RETIRING:
            self.old.popleft()
        if self.old and self.random.random() < 0.2:
            return self.random.choice(self.old)
        found: list[Register | Counter] = [*self.registers, *self.counters]
        return self.random.choice(found)

    def strings(self, count: int) -> list[Register | Counter]:
        """Some keys that GET can read."""
        found = [*self.registers, *self.counters, *self.old]
        found = [key for key in found if key.shape in ("string", "number")]
        return self.random.sample(found, min(count, len(found)))

    def free(self, *, shape: str = "") -> Register | None:
        """A register that may be written."""
        found = [k for k in self.registers if not k.busy and shape in ("", k.shape)]
        return self.random.choice(found) if found and not self.shut else None

    def counter(self) -> Counter | None:
        """A counter that may be incremented."""
        return None if self.shut else self.random.choice(self.counters)

    # Writing

    def take(self, *keys: Register) -> None:
        """Begin to write these."""
        self.under_way += 1
        for key in keys:
            key.busy = True

    def release(self, *keys: Register) -> None:
        """It is over."""
        self.under_way -= 1
        for key in keys:
            key.busy = False

    def end_window(self, key: Register, begin: int, end: int) -> None:
        """A register with a TTL is written anew: say whether its value had expired by then.
        `end` is NEVER when the write may not have happened."""
        if key.window is not None and end > key.window[0]:
            earliest, latest = key.window
            last = latest if latest < begin else NEVER
            self.history.add(Kind.EXPIRY, key.number, earliest, last, key.version + 1)
        key.window = None

    def expired(self, key: Register, end: int) -> None:
        """The server said that the value is gone."""
        if key.window is not None:
            earliest, latest = key.window
            last = min(end, latest)
            self.history.add(Kind.EXPIRY, key.number, min(earliest, last), last, key.version + 1)
        key.window, key.present = None, False

    def lives(self, key: Register, ttl: int, begin: int, end: int) -> None:
        """Its value has a TTL now (milliseconds), given between two moments."""
        slack = 2 * MILLISECOND
        key.window = (begin + ttl * MILLISECOND - slack, end + ttl * MILLISECOND)

    def retire(self, key: Register | Counter, begin: int) -> None:
        """Never write it again: what becomes of the last write, begun then, is not known."""
        if isinstance(key, Register):
            self.end_window(key, begin, NEVER)
            if key in self.registers:
                self.registers.remove(key)
        elif key in self.counters:
            self.counters.remove(key)
        key.retired_at = time.monotonic()
        self.old.append(key)
        self._fill()

    # All keys at once

    def wiped(self, site: int, begin: int, end: int, *, sure: bool, what: str) -> None:
        """All keys were deleted, in one moment between these two; not `sure`: perhaps."""
        number, last = self.history.command(what), end if sure else NEVER
        while self.old:  # a write that is still on its way would come after this
            self.history.closed.setdefault(self.old.popleft().number, begin)
        for register in list(self.registers):
            self.end_window(register, begin, end if sure else NEVER)
            version = register.version + 2
            self.history.add(
                Kind.DELETE, register.number, begin, last, version, site=site, what=number
            )
            register.version, register.present = version, False
            if not sure:
                self.retire(register, begin)
        for counter in list(self.counters):
            self.history.add(
                Kind.DELETE, counter.number, begin, last, WIPED, site=site, what=number
            )
            self.retire(counter, begin)

    def close(self, at: int) -> None:
        """The server has lost its data, with writes under way: all keys are new ones from here on,
        and what ended after that moment says nothing of the old ones."""
        for register in self.registers:
            self.end_window(register, at, NEVER)
        for key in (*self.registers, *self.counters, *self.old):
            self.history.closed.setdefault(key.number, at)
        self.registers, self.counters = [], []
        self.old.clear()
        self._fill()

    def finish(self) -> History:
        """The load is over: the history."""
        now = time.monotonic_ns()
        for key in self.registers:
            self.end_window(key, now, now)
        return self.history
