"""The load, as a process of its own: `python -m bench.drills.load SPEC` until SIGTERM.

Four kinds of clients, each in a closed loop with a short random pause between commands:

* writers SET keys of their own, each key once;
* readers SET a few keys of their own, ever higher numbers, and GET them four times as often;
* counting clients INCR a counter of their own and one which they share, in turns;
* visitors connect, GET a key that is not there in one database after the other, and go.

Every command becomes a `Record`, whatever its outcome. After an error a client goes on as usual.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.drills.clients import connect
from bench.drills.kinds import kind_of
from bench.drills.spec import Connect, Spec
from tests.harness.checker.records import (
    GARBLED,
    MISSING,
    SHARED_COUNTER,
    Record,
    decode,
    encode,
    save,
)

READER_KEYS = 4
READER_SETS = 0.2
"""Share of a reader's commands that write."""


DATABASES = 16
VISIT_EVERY = 0.1
"""Seconds between two visits."""


@dataclass
class Told:
    """What all clients of the process were told."""

    records: list[Record] = field(default_factory=list)
    connects: list[Connect] = field(default_factory=list)


class Client:
    """One client: sends, waits, records."""

    def __init__(self, spec: Spec, number: int, told: Told) -> None:
        self.number = number
        self.served = asyncio.Event()
        self._spec, self._told = spec, told
        self._redis = connect(spec, number, told.connects)
        self._random = random.Random(number)
        self._numbers: dict[str, int] = {}

    async def run(self, kind: str, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        step = {
            "writer": self._writer,
            "reader": self._reader,
            "counter": self._counter,
            "visitor": self._visitor,
        }[kind]
        turn = 0
        while not stop.is_set():
            await step(turn)
            turn += 1
            await asyncio.sleep(self._spec.think * self._random.uniform(0.5, 1.5))
        with contextlib.suppress(Exception):
            await self._redis.aclose()

    async def _visitor(self, turn: int) -> None:
        self._redis = connect(self._spec, self.number, [], turn % DATABASES)
        await self._do("get", f"drill:v:{self.number}", 0)
        with contextlib.suppress(Exception):
            await self._redis.aclose()
        await asyncio.sleep(VISIT_EVERY)

    def _writer(self, turn: int) -> Awaitable[None]:
        return self._set(f"drill:w:{self.number}:{turn}", turn)

    def _reader(self, turn: int) -> Awaitable[None]:
        key = f"drill:r:{self.number}:{self._random.randrange(READER_KEYS)}"
        if self._random.random() >= READER_SETS:
            return self._do("get", key, 0)
        self._numbers[key] = self._numbers.get(key, -1) + 1
        return self._set(key, self._numbers[key])

    def _counter(self, turn: int) -> Awaitable[None]:
        return self._do("incr", SHARED_COUNTER if turn % 2 else f"drill:count:{self.number}", 0)

    def _set(self, key: str, number: int) -> Awaitable[None]:
        return self._do("set", key, number)

    async def _do(self, op: str, key: str, number: int) -> None:
        """Send one command and record what comes of it."""
        value, error = MISSING, ""
        sent = time.monotonic()
        try:
            value = await self._send(op, key, number)
            self.served.set()
        except Exception as failure:
            error = kind_of(failure)
            if error == "other":
                print(f"unexpected: {failure!r}", file=sys.stderr, flush=True)
        answered = time.monotonic()
        self._told.records.append(
            Record(self.number, op, key, number, sent, answered, error, value)
        )

    async def _send(self, op: str, key: str, number: int) -> int:
        if op == "set":
            await self._redis.set(key, encode(key, number))
            return number
        if op == "incr":
            return int(await self._redis.incr(key))
        got = await self._redis.get(key)
        return decode(key, got) if got is None or isinstance(got, str) else GARBLED


async def work(spec: Spec) -> Told:
    """Run all clients until SIGTERM; everything they recorded."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    told, crowd = Told(), spec.crowd
    kinds = ["writer"] * crowd.writers + ["reader"] * crowd.readers
    kinds += ["counter"] * crowd.counters + ["visitor"] * crowd.visitors
    clients = [Client(spec, spec.first + number, told) for number in range(len(kinds))]
    runs = [
        asyncio.create_task(client.run(kind, stop))
        for client, kind in zip(clients, kinds, strict=True)
    ]
    served = asyncio.gather(*(client.served.wait() for client in clients))
    served.add_done_callback(lambda _: Path(f"{spec.out}.ready").touch())
    await asyncio.gather(*runs)
    served.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await served
    return told


def main() -> None:
    """Read the specification, work, write the history."""
    spec = Spec.of(sys.argv[1])
    gc.disable()  # a run is short; a collection would look like a pause of the server
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(work(spec))
    Path(f"{spec.out}.connects").write_text(json.dumps(told.connects))
    save(Path(spec.out), told.records)


if __name__ == "__main__":
    main()
