"""Instructions of the core for each command, counted by valgrind's callgrind.

    make bench-instructions                                  a table
    make bench-instructions ARGS='--save before.json'        and the figures in a file
    make bench-instructions ARGS='--against before.json'     and what has changed since

A count is the same whatever else the machine does, so a change of half a percent shows. It covers
the session, the link and the near cache, from the bytes of the client to the bytes for it, without
sockets: 16 commands are read at once, as are 16 replies. Instructions are not time: a cache miss
costs as much as a hundred of them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench import command_line
from bench.report import tables
from sidecar.core.cache.near_cache import NearCache
from tests.harness.errors import Unavailable
from tests.native.cached_loopback import CachedLoopback
from tests.native.driver import COUNTABLE, drive
from tests.native.loopback import Loopback
from tests.native.shell import request, table

BATCH = 16
ROUNDS = 200
KEY = b"user:12345678:profile"
VALUE = b"v" * 64
BULK = b"$%d\r\n%s\r\n" % (len(VALUE), VALUE)
GET, SET = request(b"GET", KEY), request(b"SET", KEY, VALUE)
KEYS = [b"item:%06d" % i for i in range(10)]
PIECE = request(b"MULTI") + GET + SET + request(b"EXEC")
PIECE_REPLIES = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n" + BULK + b"+OK\r\n"
SCRIPT = request(b"EVALSHA", b"a" * 40, b"2", KEY, b"other", b"1", b"2")


def _plain(requests: bytes, replies: bytes) -> bytes:
    """Without a near cache."""
    core = Loopback(table())
    link = core.add_link()
    return drive(core, core.add_session(link), link, requests * BATCH, replies * BATCH, ROUNDS)


def _cached(requests: bytes, replies: bytes, *, hit: bool = False) -> bytes:
    """With a near cache, which has the value of KEY or knows nothing of it."""
    core = CachedLoopback(table())
    cache = NearCache(
        7,
        mode="rules" if hit else "hot",
        budget=1 << 20,
        value_max=1 << 16,
        staleness=10.0,
        ttl_max=60.0,
        ttl_missing=1.0,
    )
    core.use_cache(cache)
    link, space = core.add_link(), cache.open_space()
    session = core.add_session(link)
    core.use_space(session, space, 2)
    if hit:
        cache.rule(KEY)
        tracked = core.add_tracked(space)
        core.load(tracked, GET)
        core.tracked_output(tracked, 1 << 16)
        core.tracked_receive(tracked, b":-1\r\n" + BULK)
    return drive(core, session, link, requests * BATCH, replies * BATCH, ROUNDS)


def _hit(requests: bytes, replies: bytes) -> bytes:
    return _cached(requests, replies, hit=True)


# Name -> (how it is driven, one request, its reply, commands in it).
SCENARIOS: dict[str, tuple[Callable[[bytes, bytes], bytes], bytes, bytes, int]] = {
    "GET": (_plain, GET, BULK, 1),
    "SET": (_plain, SET, b"+OK\r\n", 1),
    "MGET of 10": (_plain, request(b"MGET", *KEYS), b"*10\r\n" + BULK * 10, 1),
    "INCR inline": (_plain, b"INCR counter\r\n", b":12345\r\n", 1),
    "MULTI GET SET EXEC": (_plain, PIECE, PIECE_REPLIES, 4),
    "GET past the near cache": (_cached, GET, BULK, 1),
    "SET past the near cache": (_cached, SET, b"+OK\r\n", 1),
    "DEL of 10 past it": (_cached, request(b"DEL", *KEYS), b":10\r\n", 1),
    "EVALSHA past it": (_cached, SCRIPT, b":1\r\n", 1),
    "GET from the near cache": (_hit, GET, b"", 1),
}


def count(name: str) -> float:
    """Instructions of one command of this scenario."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += ["--instr-atstart=no", sys.executable, "-m", "bench.instructions", "--drive", name]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or found is None:
        raise RuntimeError(f"{name}: {run.stderr[-2000:]}")
    return int(found[1]) / ROUNDS / BATCH / SCENARIOS[name][3]


def main(argv: list[str] | None = None) -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    every = list(SCENARIOS)
    parser.add_argument("--only", type=command_line.names, default=every, metavar="NAME,...")
    parser.add_argument("--save", type=Path, help="write the figures to this file")
    parser.add_argument("--against", type=Path, help="compare with the figures in this file")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.drive:
        how, requests, replies, _ = SCENARIOS[args.drive]
        how(requests, replies)
        return 0
    if shutil.which("valgrind") is None or not COUNTABLE:
        raise Unavailable("valgrind with its headers; then tests/native is to be built again")
    before = json.loads(args.against.read_text()) if args.against else {}
    figures = {name: count(name) for name in args.only}
    rows = [
        [name, f"{n:,.0f}", f"{n / before[name] - 1:+.1%}" if name in before else "-"]
        for name, n in figures.items()
    ]
    columns = ("command", "instructions", "change")
    command_line.terminal(80).print(tables.table("Instructions per command", columns, rows))
    if args.save:
        args.save.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
