"""Traffic like that of an application, from threads of this process, until it is closed.

Most reads go to few keys. What a client is told is counted; a connection that breaks is made again.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress

from .closing import Closing
from .errors import GONE
from .wire import Wire, pack

KEYS = 400
BATCH = 8


class Load(Closing):
    """`clients` threads; each waits `pause` seconds between two pipelines of BATCH commands."""

    def __init__(
        self,
        port: int,
        clients: int = 4,
        pause: float = 0.004,
        prefix: str = "session",
        seed: int = 1,
    ) -> None:
        self.port = port
        self.pause = pause
        self.prefix = prefix
        self.replies = 0
        self.errors: list[bytes] = []
        self._stop = threading.Event()
        weights = [1 / (rank + 1) for rank in range(KEYS)]
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed + i), weights))
            for i in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, chance: random.Random, weights: list[float]) -> None:
        while not self._stop.is_set():
            with suppress(*GONE), Wire(self.port) as wire:
                while not self._stop.is_set():
                    wire.send(b"".join(self._command(chance, weights) for _ in range(BATCH)))
                    for _ in range(BATCH):
                        reply = wire.read_reply()
                        self.replies += 1
                        if reply.startswith(b"-"):
                            self.errors.append(reply)
                    self._stop.wait(self.pause)
            time.sleep(0)

    def _command(self, chance: random.Random, weights: list[float]) -> bytes:
        key = f"{self.prefix}:{chance.choices(range(KEYS), weights)[0]:04}"
        if chance.random() < 0.03:
            return pack("SET", key, "x" * chance.randint(20, 900))
        return pack("GET", key)

    def close(self) -> None:
        """Stop, and wait for the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(15)
