"""A sidecar of several workers: which process is which, and which client is whose."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .process import free_port, wait_until
from .servers import Settings, Sidecar
from .wire import ClosedError, Wire


def several(
    upstream: str, workers: int = 2, *, settings: Settings | None = None, also: Sequence[str] = ()
) -> Sidecar:
    """Start one, with an admin address, and wait until every worker serves."""
    sidecar = Sidecar(
        upstream,
        settings={"workers": workers, **(settings or {})},
        admin=f"127.0.0.1:{free_port()}",
        also=also,
    )
    wait_until(lambda: "sidecar started" in sidecar.log(), "every worker serves", 20)
    return sidecar


def pids(sidecar: Sidecar) -> dict[int, int]:
    """The newest process of each worker, by its number, from the log."""
    found = {}
    for line in sidecar.log().splitlines():
        if '"worker started"' in line:
            said = json.loads(line)
            found[said["number"]] = said["pid"]
    return found


def worker_of(wire: Wire) -> int:
    """A number for the process that serves this client: its clients' ids have it in common."""
    return int(wire.ask("CLIENT", "ID") or 0) >> 32


@contextmanager
def spread(port: int, of_each: int = 1, workers: int = 2) -> Iterator[list[list[Wire]]]:
    """Clients of every worker, so many of each. The system chooses the worker."""
    found: dict[int, list[Wire]] = {}
    others: list[Wire] = []

    def enough() -> bool:
        wire = Wire(port, deadline=10)
        mine = found.setdefault(worker_of(wire), [])
        (mine if len(mine) < of_each else others).append(wire)
        return len(found) == workers and all(len(each) == of_each for each in found.values())

    try:
        wait_until(enough, "clients of every worker", 20)
        for wire in others:
            wire.close()
        yield list(found.values())
    finally:
        for wire in [*others, *(wire for each in found.values() for wire in each)]:
            wire.close()


class Counting(threading.Thread):
    """Counts with INCR on one connection, connecting again when it ends, until `stop`."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.port, self.key, self.stop = port, name, False
        self.confirmed, self.lost, self.failures = 0, 0, list[str]()
        self.wire = Wire(port, deadline=20)
        self.worker = worker_of(self.wire)

    def run(self) -> None:
        while not self.stop:
            try:
                reply = self.wire.cmd("INCR", self.key)
                self.confirmed += 1
                if not reply.startswith(b":"):
                    self.failures.append(repr(reply))
            except (OSError, ClosedError):
                self.lost += 1
                self.wire.close()
                self.wire = Wire(self.port, deadline=20)


def lives(pid: int) -> bool:
    """Whether this process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
