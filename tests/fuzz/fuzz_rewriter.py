"""Damaged requests and replies through the rewriter of a client with a key prefix.

Cut anywhere, they are rewritten as they are uncut; every key that the server gets has the prefix;
and a reply loses nothing but prefixes and messages.
"""

from __future__ import annotations

import random

from sidecar.core.protocol.keys import found_keys
from sidecar.core.rewrite.rewriter import Rewriter
from tests.core.rewrite.client import PREFIX, RULES, TABLE, packed
from tests.harness.refdecoder import requests
from tests.native.fuzz_decoders import sample

EACH = 2000
# Large enough for most, so that both ways of finding keys are taken.
MOST = 200
WITH_NAMES = [
    "KEYS *", "SCAN 0", "BLPOP a 0", "XREAD STREAMS a 0", "PUBSUB NUMSUB a", "CLIENT TRACKINGINFO",
    "XINFO CONSUMERS a g", "GET a", "MULTI", "EXEC", "DISCARD", "SUBSCRIBE a", "PSUBSCRIBE a b",
    "UNSUBSCRIBE", "FLUSHALL", "nothing",
]  # fmt: skip


def fuzz_rewriter(seed: int) -> int:
    """A batch: how many inputs it was. AssertionError: one that breaks a promise."""
    chance = random.Random(seed)
    for data in sample(seed, EACH, False):
        try_requests(chance, data)
    for data in sample(seed, EACH, True):
        try_replies(chance, data)
    return 2 * EACH


def _cut(chance: random.Random, data: bytes) -> list[bytes]:
    ends = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def try_requests(chance: random.Random, data: bytes) -> None:
    most = chance.choice((MOST, 1 << 18))
    whole, parts = Rewriter(RULES, 7), Rewriter(RULES, 7)
    got = whole.requests(data)
    assert b"".join(parts.requests(piece) for piece in _cut(chance, data)) == got, data
    large = Rewriter(RULES, 7)
    for out in (got, b"".join(large.requests(piece, True, most) for piece in _cut(chance, data))):
        for event in requests(out):
            if event[0] != "args":
                continue
            name = event[1][0].lower()
            keys = found_keys(TABLE, _packed(event[1]), len(event[1]) + 4)
            if isinstance(keys, list) and name not in (b"xread", b"xreadgroup"):
                assert all(key.startswith(PREFIX) for key, _ in keys), (data, event)


def try_replies(chance: random.Random, data: bytes) -> None:
    lines = chance.choices(WITH_NAMES, k=chance.randrange(6))
    whole, parts = Rewriter(RULES, 7), Rewriter(RULES, 7)
    whole.requests(packed(*lines))
    parts.requests(packed(*lines))
    shown = whole.shown(data)
    pieces = _cut(chance, data)
    again = b"".join(parts.shown(piece) for piece in pieces)
    rest = b"\r\n" * 9  # ends what is held
    assert again + parts.shown(rest) == shown + whole.shown(rest), (lines, data, pieces)
    assert lines or b">" in data or b"*" in data or shown == data[: len(shown)], data


def _packed(args: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)
