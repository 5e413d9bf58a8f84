"""What one input is for each fuzzer that is guided by coverage (guided.py), and the inputs kept.

For the decoders and the rewriter an input is what a peer sends; for the worlds it is chance: each
byte decides who moves next, and by how much (tests/native/chance.pyx). AssertionError, or a crash:
a broken promise.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.fuzz_core import CACHES, KINDS
from tests.fuzz.fuzz_rewriter import try_replies, try_requests
from tests.native.chance import on_tape
from tests.native.fuzz_cache_world import fuzz_cache_world
from tests.native.fuzz_decoders import sample, try_input
from tests.native.fuzz_world import fuzz_world
from tests.native.shell import table

CORPUS = Path(__file__).with_name("corpus")
STEPS = 600
"""Of a world, at most: so that an input takes a few milliseconds."""


def requests(data: bytes) -> None:
    """Bytes of a client."""
    try_input(data, False)


def replies(data: bytes) -> None:
    """Bytes of a server."""
    try_input(data, True)


def rewriter(data: bytes) -> None:
    """Both through the rewriter of a client with a key prefix, cut by the first byte."""
    chance = random.Random(data[:1])
    (try_replies if data[:1] < b"\x80" else try_requests)(chance, data[1:])


def worlds(data: bytes) -> None:
    """Clients, links and servers; the first byte says of which kind."""
    losses, follows, holds, acks = KINDS[sum(data[:1]) % len(KINDS)]
    kind: dict[str, Any] = {"losses": losses, "follows": follows, "holds": holds, "acks": acks}
    on_tape(data[1:], fuzz_world, table(), 0, _steps(data), **kind)


def caches(data: bytes) -> None:
    """The same with a near cache."""
    mode, losses, follows, acks = CACHES[sum(data[:1]) % len(CACHES)]
    kind: dict[str, Any] = {"mode": mode, "losses": losses, "follows": follows, "acks": acks}
    on_tape(data[1:], fuzz_cache_world, table(), 0, _steps(data), **kind)


def _steps(data: bytes) -> int:
    return min(STEPS, 1 + len(data) // 2)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "requests": requests,
    "replies": replies,
    "rewriter": rewriter,
    "worlds": worlds,
    "caches": caches,
}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with, where nothing is kept."""
    if name in ("requests", "replies"):
        return sample(1, 200, name == "replies")
    if name == "rewriter":
        found = [b"\xff" + each for each in sample(1, 100, False)]
        return found + [b"\x00" + each for each in sample(1, 100, True)]
    chance = random.Random(1)
    return [chance.randbytes(length) for length in (20, 100, 400, 1200) for _ in range(40)]


def kept(name: str) -> list[bytes]:
    """The inputs kept for a target."""
    path = CORPUS / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []


def keep(name: str, inputs: Sequence[bytes]) -> None:
    """Keep these in the place of those before: one a line, in base64, the shortest first."""
    lines = [base64.b64encode(each).decode() for each in sorted(inputs, key=lambda b: (len(b), b))]
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
