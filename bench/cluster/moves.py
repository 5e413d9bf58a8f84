"""`python -m bench.cluster.moves`: a cluster that changes all the time, under load.

Slots move back and forth the whole time, in turns key by key and (Valkey) at one moment. Meanwhile
a shard is added, gets slots and loses them again, and is removed; a replica takes over by hand; a
primary is killed, and comes back as a replica. The clients (clients.py) know nothing of clusters
and go through the sidecar; `--peer redis-py` has them use redis-py's client for clusters instead,
which tells what a client that knows clusters sees in the same minute.

What must be: no read fails; SCAN misses no key that is there all the time; a write fails with
`-UNCERTAIN` only, and only when the killed primary had it; nothing is lost that the cluster has not
lost itself in the crash, nothing is done twice, or in another order.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import command_line
from bench.cluster.clients import Client, Connection, Judged, Library, Plain, Scanner, judge
from tests.harness.cluster import SLOTS, Cluster
from tests.harness.fleet import Fleet
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar

SHARDS = 3
NODE_TIMEOUT = 1500
STEP = 8  # slots that move at one moment
ALLOWED = {"UNCERTAIN"}


@dataclass
class Script:
    """What is done to the cluster, and when. One at a time: movers share its lock."""

    cluster: Cluster
    clients: list[Client]
    seconds: float
    done: list[tuple[float, str]] = field(default_factory=list)
    moved: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _begun: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """All of it. Raises what a step raises."""
        problems: list[BaseException] = []

        def moving() -> None:
            try:
                self._move()
            except BaseException as error:
                problems.append(error)

        mover = threading.Thread(target=moving, daemon=True)
        mover.start()
        try:
            for share, name, step in self._steps():
                self._until(share)
                with self._lock:
                    step()
                    self.done.append((time.monotonic() - self._begun, name))
            self._until(1.0)
        finally:
            self._ending.set()
            mover.join(60)
        if problems:
            raise problems[0]

    def _steps(self) -> list[tuple[float, str, Callable[[], None]]]:
        """At which share of the time, and what."""
        return [
            (0.10, "a shard is added", self._add),
            (0.25, "a replica takes over by hand", lambda: self.cluster.failover(1)),
            (0.45, "a primary is killed, and a replica takes over", self._kill),
            (0.65, "the killed one comes back", self._back),
            (0.80, "the added shard is removed", self._remove),
        ]

    def _until(self, share: float) -> None:
        self._ending.wait(max(self._begun + share * self.seconds - time.monotonic(), 0))

    def _move(self) -> None:
        """Some slots go to another shard, and the next time back."""
        chance = random.Random(5)
        turn = itertools.count()
        used = sorted({each.slot for client in self.clients for each in client.lists})
        while not self._ending.is_set():
            with self._lock:
                numbers = [shard.number for shard in self.cluster.shards]
                slots = chance.sample(used, STEP)
                to = chance.choice(numbers)
                self._shift(slots, to, at_once=next(turn) % 2 == 0)
            self._ending.wait(0.05)

    def _shift(self, slots: list[int], to: int, *, at_once: bool) -> None:
        moving = [slot for slot in slots if self.cluster.owners[slot] != to]
        if at_once and self.cluster.kind == "valkey":
            self.cluster.migrate_atomically(moving, to)
        else:
            for slot in moving:
                self.cluster.migrate(slot, to)
        self.moved += len(moving)

    def _add(self) -> None:
        number = self.cluster.add_shard().number
        self._shift(list(range(0, SLOTS, SLOTS // 40)), number, at_once=False)

    def _kill(self) -> None:
        at = time.monotonic()
        for client in self.clients:
            client.crashed |= {s: at for s, n in enumerate(self.cluster.owners) if n == 2}
        self._killed = self.cluster.kill(2)
        self.cluster.adopt(2)

    def _back(self) -> None:
        self._killed.start()
        self.cluster.settle()

    def _remove(self) -> None:
        added = self.cluster.shards[-1].number
        owned = [slot for slot, number in enumerate(self.cluster.owners) if number == added]
        self._shift(owned, 0, at_once=False)
        self.cluster.settle()
        self.cluster.remove_shard(added)


def contents(cluster: Cluster, clients: list[Client]) -> dict[str, list[int]]:
    """All lists, as their owners have them."""
    cluster.settle()
    found = {}
    for client in clients:
        for each in client.lists:
            numbers = cluster.call(cluster.owner(each.slot), "LRANGE", each.key, 0, -1)
            found[each.key] = list(map(int, numbers))
    return found


def total(clients: list[Client], found: dict[str, list[int]]) -> Judged:
    """Of all clients."""
    sums: Counter[str] = Counter()
    for client in clients:
        sums.update(asdict(judge(client, found)))
    return Judged(**sums)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One run: what it found."""
    made = Cluster(args.server, shards=SHARDS, replicas=1, node_timeout=NODE_TIMEOUT)
    with made as cluster, Fleet() as fleet:
        port = cluster.shard(0).primary.port
        connect: Callable[[int], Connection] = Library
        if args.peer == "sidecar":
            settings = command_line.settings(args.sidecar_set)
            port, connect = fleet.add(Sidecar(cluster.url, settings=settings)).port, Plain
        clients = [Client(number, connect(port)) for number in range(args.clients)]
        # A library for clusters has no one walk over all shards.
        scanner = Scanner(connect(port)) if args.peer == "sidecar" else None
        running: list[Client | Scanner] = [*clients, *([scanner] if scanner else [])]
        for thread in running:
            thread.start()
        wait_until(lambda: all(client.commands for client in clients), "clients begin", 30)
        script = Script(cluster, clients, args.seconds)
        try:
            script.run()
        finally:
            for thread in running:
                thread.stop()
        judged = total(clients, contents(cluster, clients))
    errors: Counter[str] = Counter()
    for client in clients:
        errors.update(client.errors)
    return {
        "peer": args.peer,
        "commands": sum(client.commands for client in clients),
        "longest": max(client.longest for client in clients),
        "slots moved": script.moved,
        "steps": script.done,
        "errors": dict(errors),
        "faults": [fault for client in clients for fault in client.faults][:20],
        "numbers": asdict(judged),
        "walks": (scanner.walks, scanner.given_up, scanner.missed) if scanner else (0, 0, 0),
        "right": not judged.wrong
        and not (scanner and scanner.missed)
        and not errors.keys() - ALLOWED
        and not any(client.faults for client in clients),
    }


def table(found: dict[str, Any]) -> Table:
    """For the terminal."""
    shown = Table(title=f"a cluster that changes, through {found['peer']}", show_header=False)
    for name in ("commands", "slots moved"):
        shown.add_row(name, f"{found[name]:,}")
    shown.add_row("longest batch", f"{found['longest']:.2f} s")
    for name, count in found["numbers"].items():
        shown.add_row(f"writes {name.replace('_', ' ')}", f"{count:,}")
    walks, given_up, missed = found["walks"]
    shown.add_row("walks by SCAN", f"{walks}, begun again {given_up}, keys missed {missed}")
    for name, count in sorted(found["errors"].items()):
        shown.add_row(f"error {name}", f"{count:,}")
    for fault in found["faults"]:
        shown.add_row("fault", fault)
    for at, step in found["steps"]:
        shown.add_row(f"{at:.1f} s", step)
    return shown


def main(argv: list[str] | None = None) -> int:
    """Run and report; 1 if something was not right."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster.moves", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (60)")
    parser.add_argument("--clients", type=int, default=6, help="threads (6)")
    parser.add_argument("--peer", choices=["sidecar", "redis-py"], default="sidecar")
    parser.add_argument("--server", default="valkey", help="valkey (default), redis7 or redis8")
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    args = parser.parse_args(argv)
    console = command_line.terminal(110)
    with command_line.measuring(console):
        found = run(args)
    console.print(table(found))
    console.print("right" if found["right"] else "WRONG")
    folder = command_line.results_folder(args.out, "cluster-moves")
    (folder / "moves.json").write_text(json.dumps(found, indent=1) + "\n")
    console.print(command_line.shown(folder))
    return 0 if found["right"] else 1


if __name__ == "__main__":
    sys.exit(main())
