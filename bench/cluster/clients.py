"""Clients that push numbers onto lists of their own, all over the slots, and notice what is wrong.

Each number is pushed once. What is answered is there at the end, in the order in which it was sent;
what was refused is not; what is uncertain (`-UNCERTAIN`, or a connection that broke) may be. A list
read meanwhile is never shorter than what was acknowledged. A client is a thread with a connection
of its own; every second batch is a pipeline over many slots.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from redis import RedisCluster
from redis.crc import key_slot

from tests.harness.errors import GONE
from tests.harness.resp import Refused, value
from tests.harness.wire import Wire

KEYS = 16  # lists of each client
DEPTH = 8  # commands of a pipeline
DEADLINE = 30.0

Command = tuple[str, ...]


class Connection(Protocol):
    """Whatever carries commands; an error that a server, or a library, tells is a value."""

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """The replies of a batch, in order. Raises OSError where the connection is lost."""

    def close(self) -> None:
        """The end."""


class Plain:
    """A connection that knows nothing of clusters."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wire = Wire(port, deadline=DEADLINE)

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """In one write."""
        try:
            replies = self._wire.pipeline(commands)
        except GONE as error:
            self._wire.close()
            self._wire = Wire(self._port, deadline=DEADLINE)
            raise OSError(str(error)) from error
        return [value(reply) for reply in replies]

    def close(self) -> None:
        self._wire.close()


class Library:
    """redis-py's client for clusters."""

    def __init__(self, port: int) -> None:
        self._client = RedisCluster(host="127.0.0.1", port=port, decode_responses=True, protocol=2)

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """One by itself, or its pipeline. Whatever it raises is an error, its faults as well."""
        client: Any = self._client
        try:
            if len(commands) == 1:
                return [client.execute_command(*commands[0])]
            pipe = client.pipeline()
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute(raise_on_error=False))
        except Exception as error:
            return [error] * len(commands)

    def close(self) -> None:
        self._client.close()


@dataclass
class List:
    """One list: what was pushed, and how that ended; times as of the monotonic clock."""

    key: str
    acknowledged: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    uncertain: set[int] = field(default_factory=set)
    last: int = 0

    @property
    def slot(self) -> int:
        """Where it is."""
        return key_slot(self.key.encode())


class Client(threading.Thread):
    """One client; it runs until `stop`. `faults` are things that must not be, in words."""

    def __init__(self, number: int, connection: Connection) -> None:
        super().__init__(daemon=True)
        self.lists = [List(f"moves:{number}:{each}") for each in range(KEYS)]
        self.errors: Counter[str] = Counter()
        self.faults: list[str] = []
        self.commands = 0
        self.longest = 0.0
        self.crashed: dict[int, float] = {}
        """Slots whose server has crashed, and when: what it alone had is gone with it."""
        self._connection = connection
        self._chance = random.Random(number)
        self._ending = threading.Event()

    def stop(self) -> None:
        """End after the batch under way."""
        self._ending.set()
        self.join(2 * DEADLINE)
        if self.is_alive():
            self.faults.append("a batch was not answered at all")

    def run(self) -> None:
        """Batches, until the end."""
        turn = 0
        while not self._ending.is_set():
            turn += 1
            self._push(DEPTH if turn % 2 else 1)
            self._read()
        self._connection.close()

    def _timed(self, commands: Sequence[Command]) -> list[Any]:
        begun = time.monotonic()
        try:
            return self._connection.run(commands)
        except OSError as error:
            return [error] * len(commands)
        finally:
            self.commands += len(commands)
            self.longest = max(self.longest, time.monotonic() - begun)

    def _push(self, count: int) -> None:
        pushed = []
        for _ in range(count):
            found = self._chance.choice(self.lists)
            found.last += 1
            pushed.append((found, found.last))
        replies = self._timed([("RPUSH", each.key, str(number)) for each, number in pushed])
        for (each, number), reply in zip(pushed, replies, strict=True):
            if isinstance(reply, int):
                each.acknowledged[number] = time.monotonic()
                continue
            self.errors[kind_of(reply)] += 1
            (each.uncertain if may_have_happened(reply) else each.refused).add(number)

    def _read(self) -> None:
        """What was acknowledged is there, in whatever shard."""
        each = self._chance.choice(self.lists)
        least = len(each.acknowledged)
        (length,) = self._timed([("LLEN", each.key)])
        if not isinstance(length, int):
            self.errors[f"read: {kind_of(length)}"] += 1
        elif length < least and each.slot not in self.crashed:
            self.faults.append(f"{each.key} has {length} of {least} numbers")


class Scanner(threading.Thread):
    """A client that walks over all keys again and again, and notices which of those that are there
    all the time it has not been given. A walk that the server gives up is begun again."""

    KEYS = 1000

    def __init__(self, connection: Connection) -> None:
        super().__init__(daemon=True)
        self.walks = self.given_up = self.missed = 0
        self._connection = connection
        self._ending = threading.Event()
        self._keys = {f"stays:{number}" for number in range(self.KEYS)}
        for key in self._keys:
            connection.run([("SET", key, key)])

    def stop(self) -> None:
        """End after the walk under way."""
        self._ending.set()
        self.join(2 * DEADLINE)

    def run(self) -> None:
        """Walks, until the end."""
        while not self._ending.is_set():
            found = self._walk()
            if found is None:
                self.given_up += 1
                continue
            self.walks += 1
            self.missed += len(self._keys - found)
        self._connection.close()

    def _walk(self) -> set[str] | None:
        cursor, found = "0", set[str]()
        while True:
            command = ("SCAN", cursor, "MATCH", "stays:*", "COUNT", "50")
            try:
                (reply,) = self._connection.run([command])
            except OSError:
                return None
            if not isinstance(reply, list):
                return None
            cursor = str(reply[0])
            found.update(reply[1])
            if cursor == "0":
                return found


def kind_of(reply: object) -> str:
    """The first word of an error, or what it is."""
    words = str(reply).split()
    if isinstance(reply, Refused) and words:
        return words[0]
    return f"{type(reply).__name__}: {' '.join(words[:6])}"


def may_have_happened(reply: object) -> bool:
    """Whether an error leaves open what has become of a command."""
    return not isinstance(reply, Refused) or str(reply).startswith("UNCERTAIN")


@dataclass
class Judged:
    """What became of all numbers."""

    acknowledged: int = 0
    lost: int = 0
    lost_in_crash: int = 0
    twice: int = 0
    disordered: int = 0
    refused_yet_done: int = 0
    uncertain: int = 0

    @property
    def wrong(self) -> int:
        """What must be 0."""
        return self.lost + self.twice + self.disordered + self.refused_yet_done


def judge(client: Client, contents: dict[str, list[int]]) -> Judged:
    """Hold what the lists have at the end against what the client knows."""
    found = Judged()
    for each in client.lists:
        there = contents[each.key]
        once = set(there)
        found.acknowledged += len(each.acknowledged)
        found.uncertain += len(each.uncertain)
        found.twice += len(there) - len(once)
        found.disordered += sum(b < a for a, b in pairwise(there))
        found.refused_yet_done += len(each.refused & once)
        crashed = client.crashed.get(each.slot, 0.0)
        for number, when in each.acknowledged.items():
            if number not in once:
                if when <= crashed:
                    found.lost_in_crash += 1
                else:
                    found.lost += 1
    return found
