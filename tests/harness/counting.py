"""Clients that INCR: each a key of its own, in batches and alone, whichever server it is on."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Self

from .process import wait_until
from .servers import Server
from .wire import ClosedError, Wire


class Counting:
    """At work from `with` on until `stop`."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.port = port
        self.acknowledged = [0] * clients
        self.errors: Counter[bytes] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No new commands; wait for the answers to those that are under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, number: int = 100) -> None:
        """Wait until so many more have been acknowledged."""
        before = sum(self.acknowledged)
        wait_until(lambda: sum(self.acknowledged) >= before + number, "they are served", 20)

    def _work(self, number: int) -> None:
        batch = 1 + 3 * (number % 2)
        with Wire(self.port, deadline=20) as wire:
            while not self._stop.is_set():
                for reply in wire.pipeline([("INCR", f"n{number}")] * batch):
                    if reply.startswith(b":"):
                        self.acknowledged[number] += 1
                    else:
                        self.errors[reply] += 1

    def counted(self, *servers: Server) -> list[int]:
        """What the servers have counted, together, by client."""
        found = []
        for number in range(len(self.acknowledged)):
            total = 0
            for server in servers:
                with Wire(server.address) as wire:
                    total += int(wire.call("GET", f"n{number}") or 0)
            found.append(total)
        return found


class Reconnecting(Counting):
    """Connects again when its connection ends, as a library does; what it had asked then may or may
    not have been executed."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.unknown = [0] * len(self.acknowledged)

    def _work(self, number: int) -> None:
        while not self._stop.is_set():
            with Wire(self.port, deadline=20) as wire:
                try:
                    while not self._stop.is_set():
                        reply = wire.cmd("INCR", f"n{number}")
                        if reply.startswith(b":"):
                            self.acknowledged[number] += 1
                        else:
                            self.errors[reply] += 1
                except (OSError, ClosedError):
                    self.unknown[number] += 1
