"""Memory that runs out, at every allocation of the core in turn.

    python -m tests.fuzz.failing_memory --seeds 20

A program of clients, links and a near cache (tests/native/cached_shell.py) is run again and
again; in the n-th run the n-th allocation of the core fails, until a run needs fewer. What must
hold, whichever it was: nothing crashes; one client is closed, or one link lost, at most; every byte
that a client gets is what the judge says is right (tests/native/oracle.py), so nothing is ever
missing in the middle; and all who are still there get all their replies.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from sidecar.core.cache.near_cache import NearCache
from tests.native.cached_clients import Client, Identity
from tests.native.cached_loopback import SpareBlocks
from tests.native.cached_shell import CachedShell
from tests.native.loopback import LinkError
from tests.native.model_replies import Args
from tests.native.oracle import Terms

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "native" / "failing.c"
LIBRARY = ROOT / "build" / "failing.so"
UNDER_TEST = b"/sidecar/core/"

KEYS = (b"a", b"b", b"k" * 40)
SECOND = 1_000_000
STEPS = 60


class FailingShell(CachedShell):
    """Does what the plane does when memory is out: closes the client, or the link, it was about."""

    closed = 0
    lost = 0

    def send(self, client: Client, data: bytes) -> None:
        """The client sends these bytes; if there is no memory for them, it is closed."""
        try:
            super().send(client, data)
        except MemoryError:
            self.give_up(client)

    def go_on(self, client: Client) -> None:
        """What was wanted is there."""
        try:
            super().go_on(client)
        except MemoryError:
            self.give_up(client)

    def leave(self, client: Client) -> None:
        """A client is closed, by itself or by us."""
        self.closed += 1
        super().leave(client)

    def serve_stall(self, client: Client, stall: str) -> None:
        """Memory that is out is a reason to close a client, as a request that is none."""
        if stall == "protocol_error":
            self.leave(client)
            return
        try:
            super().serve_stall(client, stall)
        except MemoryError:
            self.give_up(client)

    def give_up(self, client: Client) -> None:
        """Close a client, unless that has happened."""
        if not client.gone:
            self.leave(client)
            self.settle()

    def arrive(self, link: int, size: int = 1 << 30) -> None:
        """Some bytes arrive; if there is no memory for them, the link is lost."""
        try:
            super().arrive(link, size)
        except (LinkError, MemoryError):
            self.break_link(link)

    def break_link(self, link: int) -> None:
        """A connection is given up."""
        self.lost += 1
        if link in self.tracked:
            self.untrack(link)
            return
        for who in self.identities:
            if who.link == link:
                self.lose(who)
                self.restore(who)
                return
        owner = next(c for c in self.clients.values() if self.core.link_of(c.session) == link)
        self.leave(owner)

    def untrack(self, tracked: int) -> None:
        """A tracked connection ends; there is another at once."""
        connection = self.connections[tracked]
        space = self.tracked[tracked]
        super().untrack(tracked)
        with suppress(MemoryError):
            self.track(space, connection.user, connection.db)


class Run:
    """One run of a program, which its seed says."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        mode = self.random.choice(("rules", "rules", "hot"))
        self.cache = NearCache(
            seed, mode=mode, budget=6000, value_max=600, staleness=0.4, ttl_max=2.0, ttl_missing=0.2
        )
        if mode == "rules":
            self.cache.rule(b"")
        terms = Terms(
            400_000,
            ttl_max=2 * SECOND,
            ttl_missing=200_000,
            serves=True,
            never=lambda key: False,
            staleness_of=lambda key: None,
            ttl_of=lambda key: None,
        )
        who = [Identity(b"ann", 0, 2), Identity(b"ann", 0, 3), Identity(b"bob", 0, 3)]
        self.shell = FailingShell(self.cache, terms, who)
        self.shell.tick(SECOND)
        for key in KEYS:
            self.cache.want(key, True)
            self.shell.server.pads[key] = self.random.choice((0, 0, 300, 900))
        for one in (*who, who[0]):
            self.shell.connect(one)
        self.scripts: dict[Client, bytearray] = {}

    def command(self) -> list[Args]:
        """What a client may say."""
        key, other = self.random.choice(KEYS), self.random.choice(KEYS)
        kind = self.random.randrange(12)
        if kind < 5:
            return [(b"GET", key)]
        if kind == 5:
            return [(b"MGET", key, other)]
        if kind == 6:
            return [(b"HGETALL", key), (b"ZSCORE", key, b"m")]
        if kind == 7:
            return [(b"SET", key, b"v" * self.random.choice((1, 1500, 30_000)))]
        if kind == 8:
            return [(b"MSET", key, b"v", other, b"v")]
        if kind == 9:
            return [(b"MULTI",), (b"SET", key, b"v"), (b"GET", other), (b"EXEC",)]
        if kind == 10:
            return [(b"EVAL", b"", b"1", key)]
        return [(b"GET", key)] * self.random.randrange(1, 40)

    def step(self) -> None:
        """Somebody does something."""
        shell = self.shell
        kind = self.random.randrange(10)
        if kind < 4 and shell.clients:
            client = self.random.choice(list(shell.clients.values()))
            script = self.scripts.setdefault(client, bytearray())
            script += shell.expect(client, *self.command())
            cut = self.random.choice((0, 0, 0, 5, 700))
            part = bytes(script[: max(1, len(script) - cut)])
            del script[: len(part)]
            shell.send(client, part)
        elif kind < 8:
            link = self.random.choice(list(shell.connections))
            size = self.random.choice((20, 1 << 20, 1 << 20))
            for move in (shell.flush, shell.serve, shell.arrive):
                if link in shell.connections:
                    move(link, size)
        elif kind == 8:
            shell.tick(self.random.choice((500, 60_000)))
        else:
            shell.begin()
            for tracked in shell.tracked:
                try:
                    shell.core.beat(tracked)
                except MemoryError:
                    shell.break_link(tracked)
                    break
            shell.settle()

    def finish(self) -> None:
        """All comes to its end, and nothing is missing."""
        for client, script in self.scripts.items():
            self.shell.send(client, bytes(script))
        for who in self.shell.identities:
            if not who.up:
                self.shell.restore(who)
        self.shell.run()
        for client in self.shell.clients.values():
            assert not client.got, f"{client} has got a part: {bytes(client.got)[:80]!r}"
            due = len(client.due) - client.answered
            assert due == 0, f"{client} waits for {due} replies"


def attempt(seed: int, allocation: int, times: int, library: ctypes.CDLL) -> bool:
    """Run a program in which this allocation fails: whether it came to that."""
    blocks = SpareBlocks()  # those that are kept are taken, so that each is asked for
    run = Run(seed)
    assert library.failing_begin(UNDER_TEST, allocation, times) > 0, "nothing is under test"
    failed = 0
    try:
        for _ in range(STEPS):
            run.step()
        run.finish()
    finally:
        failed = library.failing_end()
        blocks.give_back()
    shell = run.shell
    if failed == 1:
        assert shell.closed + shell.lost <= 1, f"{shell.closed} clients, {shell.lost} links"
    return failed > 0


def run_all(seeds: range, times: int) -> int:
    """Each allocation of each program: how many there were."""
    library = ctypes.CDLL(None)
    count = 0
    for seed in seeds:
        allocation = 0
        while True:
            try:
                if not attempt(seed, allocation, times, library):
                    break
            except BaseException:
                print(f"seed {seed}, allocation {allocation}, times {times}", file=sys.stderr)
                raise
            allocation += 1
            count += 1
    return count


def main(arguments: list[str] | None = None) -> int:
    """Compile the allocator, and run in a process that has it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--times", type=int, default=1, help="allocations that fail in a row")
    options = parser.parse_args(arguments)
    if "failing" not in os.environ.get("LD_PRELOAD", ""):
        compiler = os.environ.get("CC", "cc")
        LIBRARY.parent.mkdir(exist_ok=True)
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(LIBRARY), str(SOURCE)]
        subprocess.run(command, check=True)
        argv = [sys.executable, "-m", "tests.fuzz.failing_memory", *(arguments or sys.argv[1:])]
        environment = {**os.environ, "LD_PRELOAD": str(LIBRARY)}
        return subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode
    count = run_all(range(options.seed, options.seed + options.seeds), options.times)
    print(f"{count} allocations failed, one in each run: nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
