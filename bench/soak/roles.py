"""What the clients of the soak do, each in a way that shows a wrong reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bench.soak.client import Client, Command, Door, Ledger
from bench.soak.values import Key, Wrong, may_be_done, number_of

DEPTHS = (1, 1, 1, 4, 16)
TOKEN = 8
"""Digits of a number in a log (see Counting)."""
LOG = 200
"""Numbers in a log before another one is begun."""

SCRIPT = "return {KEYS[1], redis.call('GET', KEYS[1]), ARGV[1]}"


class Keeping(Client):
    """SETs keys of its own, and GETs and MGETs everybody's: what is read is never older than what
    any client of the sidecar had been told when it asked."""

    def __init__(
        self, door: Door, ledger: Ledger, seed: int, think: float, number: int, everybody: list[Key]
    ) -> None:
        super().__init__(door, ledger, seed, think)
        sizes = (20, 20, 100, 1000, 12_000)
        self.own = [
            Key(f"keep:{number}:{each}", self.chance.choice(sizes), 0) for each in range(24)
        ]
        self.everybody = everybody
        everybody += self.own

    async def turn(self) -> None:
        """Some of them in one piece."""
        commands: list[Command] = []
        judges: list[Callable[[Any], None]] = []
        for _ in range(self.chance.choice(DEPTHS)):
            command, judge = self.chance.choice((self._set, self._get, self._get, self._mget))()
            commands.append(command)
            judges.append(judge)
        # A write of uncertain fate comes first: a read before it that was sent again may show it.
        answered = list(zip(judges, await self.exchange(*commands), strict=True))
        for judge, reply in sorted(answered, key=lambda each: not may_be_done(each[1])):
            judge(reply)

    def _set(self) -> tuple[Command, Callable[[Any], None]]:
        key = self.chance.choice(self.own)
        value, number = key.next(), key.tried
        return ("SET", key.name, value), lambda reply: key.told(number, reply, done=reply == b"OK")

    def _get(self) -> tuple[Command, Callable[[Any], None]]:
        key = self._some()
        judge = self._judge(key)
        return ("GET", key.name), lambda reply: None if self.failed(reply) else judge(reply)

    def _mget(self) -> tuple[Command, Callable[[Any], None]]:
        keys = [self._some() for _ in range(3)]
        judges = [self._judge(key) for key in keys]

        def judge(reply: Any) -> None:
            if not self.failed(reply):
                for each, value in zip(judges, reply, strict=True):
                    each(value)

        return ("MGET", *(key.name for key in keys)), judge

    def _some(self) -> Key:
        """Some keys are hot: half of all reads go to a few."""
        if self.chance.random() < 0.5:
            return self.everybody[self.chance.randrange(5)]
        return self.chance.choice(self.everybody)

    def _judge(self, key: Key) -> Callable[[Any], None]:
        if key in self.own:
            return key.check_own
        least = key.known
        return lambda value: key.check_foreign(value, least)

    async def look_back(self) -> None:
        """Every key of its own."""
        for key in self.own:
            (reply,) = await self.exchange(("GET", key.name))
            key.check_own(reply)


class Counting(Client):
    """INCRs a counter and APPENDs numbers to a log, both its own: nothing is executed twice, and
    nothing that was acknowledged is missing."""

    def __init__(self, door: Door, ledger: Ledger, seed: int, think: float, number: int) -> None:
        super().__init__(door, ledger, seed, think)
        self.counter = f"count:{number}"
        self.last = self.unsure = 0
        self.logs = 0
        self.logged: dict[int, bool] = {}
        """Numbers of the log in order; whether they must be there."""
        self.written = 0

    @property
    def log(self) -> str:
        """The key of the present log."""
        return f"log:{self.counter}:{self.logs}"

    async def turn(self) -> None:
        """Both at once."""
        self.written += 1
        append = ("APPEND", self.log, b"%0*d" % (TOKEN, self.written))
        count, length = await self.exchange(("INCR", self.counter), append)
        self._counted(count)
        if not self.failed(length):
            self.logged[self.written] = True
        elif may_be_done(length):
            self.logged[self.written] = False
        if self.written % 20 == 0:
            await self._read()

    def _counted(self, reply: Any) -> None:
        if self.failed(reply):
            self.unsure += may_be_done(reply)
            return
        if not self.last < reply <= self.last + 1 + self.unsure:
            raise Wrong(f"{self.counter}: {reply} after {self.last} and {self.unsure} unsure")
        self.last, self.unsure = reply, 0

    async def _read(self) -> None:
        (reply,) = await self.exchange(("GETRANGE", self.log, 0, -1))
        if self.failed(reply):
            return
        there = [int(reply[at : at + TOKEN]) for at in range(0, len(reply), TOKEN)]
        due = [number for number, sure in self.logged.items() if sure or number in set(there)]
        if there != due:
            raise Wrong(f"{self.log}: {there[-10:]} where {due[-10:]} is due")
        if len(there) >= LOG:
            await self.exchange(("UNLINK", self.log))
            self.logs += 1
            self.logged.clear()

    async def look_back(self) -> None:
        """The log, and the counter once more."""
        await self._read()
        (reply,) = await self.exchange(("GET", self.counter))
        if not self.last <= int(reply or 0) <= self.last + self.unsure:
            raise Wrong(f"{self.counter}: {reply} after {self.last} and {self.unsure} unsure")


class Trading(Client):
    """Writes two keys in transactions, in one piece or step by step with WATCH: nobody ever sees
    the one without the other."""

    def __init__(self, door: Door, ledger: Ledger, seed: int, think: float, number: int) -> None:
        super().__init__(door, ledger, seed, think)
        self.one, self.other = Key(f"{{trade:{number}}}:a"), Key(f"{{trade:{number}}}:b")

    async def turn(self) -> None:
        """A transaction that writes, or one that reads."""
        kind = self.chance.randrange(3)
        if kind == 0:
            await self._read()
        else:
            await (self._piece() if kind == 1 else self._steps())

    def _writes(self) -> list[Command]:
        self.one.tried = self.other.tried = max(self.one.tried, self.other.tried)
        return [("SET", key.name, key.next()) for key in (self.one, self.other)]

    def _told(self, reply: Any) -> None:
        for key in (self.one, self.other):
            key.told(key.tried, reply, done=isinstance(reply, list))

    async def _piece(self) -> None:
        *_, executed = await self.exchange(("MULTI",), *self._writes(), ("EXEC",))
        self._told(executed)

    async def _steps(self) -> None:
        watched, value = await self.exchange(("WATCH", self.one.name), ("GET", self.one.name))
        if self.failed(watched) or self.failed(value):
            return
        self.one.check_own(value)
        (begun,) = await self.exchange(("MULTI",))
        if self.failed(begun):
            return
        for write in self._writes():
            await self.exchange(write)
        (executed,) = await self.exchange(("EXEC",))
        self._told(executed)

    async def _read(self) -> None:
        reads = [("GET", key.name) for key in (self.one, self.other)]
        *_, found = await self.exchange(("MULTI",), *reads, ("EXEC",))
        if not isinstance(found, list):
            return
        one, other = found
        if (one is None) != (other is None) or (
            one and number_of(self.one.name, one) != number_of(self.other.name, other)
        ):
            raise Wrong(f"{self.one.name}: half a transaction: {one!r:.60}, {other!r:.60}")
        self.one.check_own(one)
        self.other.check_own(other)

    async def look_back(self) -> None:
        """Both of them."""
        await self._read()


class Scripting(Client):
    """EVAL and EVALSHA, which give back their key, its value and their argument."""

    sha = ""

    def __init__(self, door: Door, ledger: Ledger, seed: int, think: float, number: int) -> None:
        super().__init__(door, ledger, seed, think)
        self.key = Key(f"script:{number}", 200)

    async def turn(self) -> None:
        """Write, and read by a script."""
        value, number = self.key.next(), self.key.tried
        word = b"%d" % number
        run: Sequence[Any] = ("EVALSHA", self.sha) if self.sha else ("EVAL", SCRIPT)
        written, read = await self.exchange(
            ("SET", self.key.name, value), (*run, 1, self.key.name, word)
        )
        self.key.told(number, written, done=written == b"OK")
        if str(read).startswith("NOSCRIPT") or not self.sha:
            (sha,) = await self.exchange(("SCRIPT", "LOAD", SCRIPT))
            self.sha = "" if self.failed(sha) else sha.decode()
        if not self.failed(read):
            key, found, argument = read
            if (key, argument) != (self.key.name.encode(), word):
                raise Wrong(f"{self.key.name}: a script of {key!r} with {argument!r}")
            self.key.check_own(found)


class Lifting(Client):
    """Large values, written and read."""

    def __init__(self, door: Door, ledger: Ledger, seed: int, think: float, number: int) -> None:
        super().__init__(door, ledger, seed, 30 * think)
        self.key = Key(f"large:{number}")

    async def turn(self) -> None:
        """One of 0.3 to 3 MB."""
        self.key.size = self.chance.randint(300_000, 3_000_000)
        value, number = self.key.next(), self.key.tried
        written, read = await self.exchange(("SET", self.key.name, value), ("GET", self.key.name))
        self.key.told(number, written, done=written == b"OK")
        if not self.failed(read):
            self.key.check_own(read)


class Dawdling(Lifting):
    """Asks for one large value many times at once and reads the replies slowly."""

    async def turn(self) -> None:
        """A pipeline, read in sips."""
        self.key.size = 1_000_000
        value, number = self.key.next(), self.key.tried
        (written,) = await self.exchange(("SET", self.key.name, value))
        self.key.told(number, written, done=written == b"OK")
        reading = asyncio.ensure_future(self.exchange(*[("GET", self.key.name)] * 4))
        try:
            while not reading.done() and not self.conn.lost:
                assert self.conn.transport is not None
                self.conn.transport.pause_reading()
                await asyncio.sleep(0.03)
                self.conn.transport.resume_reading()
                await asyncio.wait([reading], timeout=0.005)
            replies = await reading
        finally:
            reading.cancel()
        for reply in replies:
            if not self.failed(reply):
                self.key.check_own(reply)
