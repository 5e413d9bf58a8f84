"""What clients do: reads and writes of many kinds, and what each reply says of a version.

Every function makes one step, or None when it does not fit (all keys are being written). Writes
hold their registers until they are answered. What was answered with an error, or not at all, may
have happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.consistency.keys import Counter, Keys, Register
from tests.harness.checker.history import (
    ABSENT,
    DIRECT,
    GARBLED,
    NEVER,
    PRESENT,
    UNKNOWN,
    Kind,
)
from tests.harness.connection import Connection, Step
from tests.harness.resp import Refused, pack

BIG = 300 * 1024
"""More than `limits.request_buffer`: streamed on a link of its own."""

SET_BY_SCRIPT = "return redis.call('SET', KEYS[1], ARGV[1])"
SET_UNDECLARED = "return redis.call('SET', ARGV[1], ARGV[2])"
INCREMENT_BY_SCRIPT = "return redis.call('INCR', KEYS[1])"
GET_BY_SCRIPT = "return redis.call('GET', KEYS[1])"

Version = Callable[[Any], int]


@dataclass
class Who:
    """A client, as the history knows it."""

    keys: Keys
    conn: Connection
    site: int
    strict: bool = False
    """It is never answered from the cache."""
    reads: int = 0
    """How many of its reads the cache might have answered,"""
    past: int = 0
    """and how many the server answered, since no cache may."""
    errors: int = 0


# Reads


def _seen_by(key: Register | Counter, shape: str) -> Version:
    """How the reply to a read names a version; `shape` is that of the reply."""
    if shape == "value":
        return key.seen
    if shape == "text":
        return lambda reply: key.seen(reply or None)
    if shape == "count":
        return lambda reply: PRESENT if reply else ABSENT
    if shape == "one":
        return lambda reply: key.seen(reply[0] if reply else None)
    return lambda reply: _whole(key, reply)


def _whole(key: Register | Counter, reply: Any) -> int:
    """Of all values of a hash, which were written together."""
    if isinstance(reply, dict):
        values = list(reply.values())
    elif isinstance(key, Counter) or b"v" in reply[::2]:
        values = reply[1::2]
    else:
        values = reply
    if len(set(values)) > 1:
        return GARBLED
    return key.seen(values[0] if values else None)


READS: dict[str, list[tuple[tuple[bytes, ...], str, int]]] = {
    "string": [
        ((b"GET",), "value", 30), ((b"GETRANGE", b"0", b"-1"), "text", 2),
        ((b"EXISTS",), "count", 2), ((b"STRLEN",), "count", 1),
    ],
    "number": [((b"GET",), "value", 30), ((b"STRLEN",), "count", 1)],
    "hash": [
        ((b"HGET", b"v"), "value", 20), ((b"HGETALL",), "whole", 20),
        ((b"HMGET", b"v", b"w"), "whole", 4), ((b"HVALS",), "whole", 1),
        ((b"HEXISTS", b"v"), "count", 1), ((b"HLEN",), "count", 1),
    ],
    "numbers": [
        ((b"HGET", b"v"), "value", 20), ((b"HGETALL",), "whole", 10), ((b"HLEN",), "count", 1),
    ],
    "list": [
        ((b"LRANGE", b"0", b"-1"), "one", 20), ((b"LINDEX", b"0"), "value", 4),
        ((b"LLEN",), "count", 1),
    ],
}  # fmt: skip
"""Shape of the key -> commands without their key, the shape of their reply, how often."""

WEIGHTS = {shape: [weight for *_, weight in reads] for shape, reads in READS.items()}


def read(who: Who) -> Step:
    """One read of one key, which may be answered from the cache."""
    keys = who.keys
    key = keys.any()
    words, shape, _ = keys.random.choices(READS[key.shape], WEIGHTS[key.shape])[0]
    seen = _seen_by(key, shape)
    what = keys.history.command(words[0].decode())
    past = who.strict or who.site == DIRECT
    who.reads += not past

    def told(replies: Any, begin: int, end: int) -> None:
        if replies is None or isinstance(replies[0], Refused):
            who.errors += replies is not None
            return
        who.past += past
        keys.history.add(
            Kind.READ, key.number, begin, end, seen(replies[0]), client=who.conn.number,
            site=who.site, what=what, strict=who.strict,
        )  # fmt: skip

    return pack(words[0], key.name, *words[1:]), 1, told


def read_many(who: Who) -> Step:
    """MGET."""
    keys = who.keys
    chosen = keys.strings(keys.random.randint(1, 5))
    what = keys.history.command("MGET")
    past = who.strict or who.site == DIRECT
    who.reads += not past

    def told(replies: Any, begin: int, end: int) -> None:
        if replies is None or isinstance(replies[0], Refused):
            who.errors += replies is not None
            return
        who.past += past
        for key, value in zip(chosen, replies[0], strict=True):
            keys.history.add(
                Kind.READ, key.number, begin, end, key.seen(value), client=who.conn.number,
                site=who.site, what=what, strict=who.strict,
            )  # fmt: skip

    return pack(b"MGET", *[key.name for key in chosen]), 1, told


def read_past(who: Who) -> Step:
    """In a transaction or a script: no cache may answer."""
    keys = who.keys
    key = keys.strings(1)[0]
    if keys.random.random() < 0.5:
        data, count = pack(b"EVAL", GET_BY_SCRIPT, 1, key.name), 1
        what = keys.history.command("EVAL-GET")
    else:
        data, count = pack(b"MULTI") + pack(b"GET", key.name) + pack(b"EXEC"), 3
        what = keys.history.command("MULTI-GET")

    def told(replies: Any, begin: int, end: int) -> None:
        value = None if replies is None else replies[-1]
        if replies is None or isinstance(value, Refused):
            who.errors += replies is not None
            return
        who.past += 1
        keys.history.add(
            Kind.READ, key.number, begin, end, key.seen(value[0] if count == 3 else value),
            client=who.conn.number, site=who.site, what=what, strict=True,
        )  # fmt: skip

    return data, count, told


# Writes of registers


@dataclass
class Written:
    """What a write does to its register once it is acknowledged."""

    who: Who
    key: Register
    what: str
    kind: Kind = Kind.WRITE
    ttl: int = 0
    text: bytes = b""

    def told(self, replies: Any, begin: int, end: int) -> None:
        """The replies, the last of which counts."""
        key, keys = self.key, self.who.keys
        sure = replies is not None and not isinstance(replies[-1], Refused)
        self.who.errors += replies is not None and not sure
        keys.end_window(key, begin, end if sure else NEVER)
        key.text = self.text or key.next_text
        key.version += 2
        keys.history.add(
            self.kind, key.number, begin, end if sure else NEVER, key.version,
            client=self.who.conn.number, site=self.who.site,
            what=keys.history.command(self.what),
        )  # fmt: skip
        key.present = self.kind == Kind.WRITE
        if self.ttl:
            keys.lives(key, self.ttl, begin, end if sure else NEVER // 2)
        if not sure:
            keys.retire(key, begin)
        keys.release(key)


def _write(who: Who, key: Register) -> tuple[str, bytes, int, int]:
    """Name, bytes, replies and TTL of one of the ways to give a register its next value."""
    random = who.keys.random
    value, name = key.next_text, key.name
    if key.shape == "hash":
        plain = pack(b"HSET", name, b"v", value, b"w", value)
        if key.window is not None:  # HSET leaves a TTL as it is
            pieces = [pack(b"MULTI"), plain, pack(b"PERSIST", name), pack(b"EXEC")]
            return "MULTI-HSET-PERSIST", b"".join(pieces), 4, 0
        if random.random() < 0.3:
            return "MULTI-HSET", pack(b"MULTI") + plain + pack(b"EXEC"), 3, 0
        return "HSET", plain, 1, 0
    if key.shape == "list":
        pieces = [pack(b"MULTI"), pack(b"DEL", name), pack(b"RPUSH", name, value), pack(b"EXEC")]
        return "MULTI-RPUSH", b"".join(pieces), 4, 0
    way = random.randrange(100)
    ttl = random.randint(20, 400)
    if way < 40:
        return "SET", pack(b"SET", name, value), 1, 0
    if way < 60:
        return "SET-PX", pack(b"SET", name, value, b"PX", ttl), 1, ttl
    if way < 70:
        return "PSETEX", pack(b"PSETEX", name, ttl, value), 1, ttl
    if way < 80:
        pieces = [pack(b"MULTI"), pack(b"SET", name, value), pack(b"EXEC")]
        return "MULTI-SET", b"".join(pieces), 3, 0
    if way < 90:
        return "EVAL-SET", pack(b"EVAL", SET_BY_SCRIPT, 1, name, value), 1, 0
    if way < 93:
        return "EVAL-UNDECLARED", pack(b"EVAL", SET_UNDECLARED, 0, name, value), 1, 0
    if way < 94:
        return "SET-BIG", pack(b"SET", name, value + b" " + b"x" * BIG), 1, 0
    return "GETSET", pack(b"GETSET", name, value), 1, 0


def write(who: Who) -> Step | None:
    """The next value of a register."""
    key = who.keys.free()
    if key is None:
        return None
    who.keys.take(key)
    what, data, replies, ttl = _write(who, key)
    return data, replies, Written(who, key, what, ttl=ttl).told


def delete(who: Who) -> Step | None:
    """DEL and its kin."""
    key = who.keys.free()
    if key is None:
        return None
    who.keys.take(key)
    ways = ["DEL", "UNLINK", "PEXPIRE-0"] + ["GETDEL"] * (key.shape == "string")
    ways += ["HDEL"] * (key.shape == "hash")
    way = who.keys.random.choice(ways)
    if way == "HDEL":
        data = pack(b"HDEL", key.name, b"v", b"w")
    elif way == "PEXPIRE-0":
        data = pack(b"PEXPIRE", key.name, 0)
    else:
        data = pack(way, key.name)
    return data, 1, Written(who, key, way, Kind.DELETE).told


def expire(who: Who) -> Step | None:
    """PEXPIRE or PERSIST: the value stays, its end changes."""
    keys = who.keys
    key = keys.free()
    if key is None or not key.present:
        return None
    keys.take(key)
    ttl = keys.random.randint(20, 400) if keys.random.random() < 0.7 else 0
    data = pack(b"PEXPIRE", key.name, ttl) if ttl else pack(b"PERSIST", key.name)

    def told(replies: Any, begin: int, end: int) -> None:
        sure = replies is not None and not isinstance(replies[0], Refused)
        if not sure:
            if key.window is not None or ttl:
                # It may end at either of two times, or not at all.
                earliest = [key.window[0]] if key.window else []
                earliest += [begin + ttl * 1_000_000 - 2_000_000] if ttl else []
                key.window = (min(earliest), NEVER // 2)
            keys.retire(key, begin)
        elif replies[0] == 0 and key.window is not None:
            keys.expired(key, end)
        elif replies[0] == 1:
            key.window = None
            if ttl:
                keys.lives(key, ttl, begin, end)
        keys.release(key)

    return data, 1, told


def rename(who: Who) -> Step | None:
    """RENAME, or COPY: another key's value."""
    keys = who.keys
    source = keys.free(shape="string")
    if source is None or not source.sure:
        return None
    keys.take(source)
    target = keys.free(shape="string")
    if target is None or not target.may_get(source):
        keys.release(source)
        return None
    keys.take(target)
    keys.under_way -= 1
    moves = keys.random.random() < 0.6
    target.names[source.text] = target.version + 2
    to = Written(who, target, "RENAME" if moves else "COPY", text=source.text)

    def told(replies: Any, begin: int, end: int) -> None:
        keys.under_way += 1
        to.told(replies, begin, end)
        if moves:
            Written(who, source, "RENAME", Kind.DELETE).told(replies, begin, end)
        else:
            keys.release(source)

    if moves:
        return pack(b"RENAME", source.name, target.name), 1, told
    return pack(b"COPY", source.name, target.name, b"REPLACE"), 1, told


def write_two(who: Who) -> Step | None:
    """MSET."""
    keys = who.keys
    one = keys.free(shape="string")
    if one is None:
        return None
    keys.take(one)
    other = keys.free(shape="string")
    if other is None:
        keys.release(one)
        return None
    keys.take(other)
    pair = [Written(who, one, "MSET"), Written(who, other, "MSET")]
    words = [word for key in (one, other) for word in (key.name, key.next_text)]

    def told(replies: Any, begin: int, end: int) -> None:
        for written in pair:
            written.told(replies, begin, end)

    return pack(b"MSET", *words), 1, told


# Writes of counters


def increment(who: Who) -> Step | None:
    """One more."""
    keys = who.keys
    key = keys.counter()
    if key is None:
        return None
    keys.take()
    way, data, replies = "INCR", pack(b"INCR", key.name), 1
    chance = keys.random.random()
    if key.shape == "numbers":
        way, data = "HINCRBY", pack(b"HINCRBY", key.name, b"v", 1)
    elif chance < 0.2:
        way, data = "EVAL-INCR", pack(b"EVAL", INCREMENT_BY_SCRIPT, 1, key.name)
    elif chance < 0.4:
        way, replies = "MULTI-INCR", 3
        data = pack(b"MULTI") + data + pack(b"EXEC")

    def told(got: Any, begin: int, end: int) -> None:
        counted(who, key, way, got, begin, end)
        keys.release()

    return data, replies, told


def counted(who: Who, key: Counter, way: str, got: Any, begin: int, end: int) -> None:
    """An increment is over: its last reply says what it made of the counter."""
    last = None if got is None else got[-1]
    if isinstance(last, list):
        last = last[0] if last else None
    sure = isinstance(last, int)
    who.errors += got is not None and not sure
    history = who.keys.history
    history.add(
        Kind.COUNT, key.number, begin, end if sure else NEVER, last if sure else UNKNOWN,
        client=who.conn.number, site=who.site, what=history.command(way),
    )  # fmt: skip


# Exchanges: several round trips, the server's connection state between them


async def compare_and_set(who: Who) -> None:
    """WATCH, GET, MULTI, SET, EXEC: an increment, if nobody came between."""
    keys = who.keys
    key = keys.counter()
    if key is None or key.shape != "number":
        return
    keys.take()
    found: list[tuple[int, int]] = []
    history = keys.history

    def looked(replies: Any, begin: int, end: int) -> None:
        value = None if replies is None else replies[1]
        if value is not None and isinstance(value, Refused):
            return
        if replies is not None:
            seen = key.seen(value)
            who.past += 1
            history.add(
                Kind.READ, key.number, begin, end, seen, client=who.conn.number,
                site=who.site, what=history.command("WATCH-GET"), strict=True,
            )  # fmt: skip
            found.append((seen, end))

    def told(replies: Any, begin: int, end: int) -> None:
        if replies is not None and replies[-1] is None:
            return  # somebody did
        version = max(0, found[0][0]) + 1
        done = replies is not None and isinstance(replies[-1], list)
        got = [version] if done else replies
        counted(who, key, "CAS", got, begin, end)

    try:
        watch = pack(b"WATCH", key.name) + pack(b"GET", key.name)
        await who.conn.send([(watch, 2, looked)])
        if not found:
            await who.conn.ask("UNWATCH")
            return
        change = pack(b"SET", key.name, max(0, found[0][0]) + 1)
        await who.conn.send([(pack(b"MULTI") + change + pack(b"EXEC"), 3, told)])
    finally:
        keys.release()


async def slow_transaction(who: Who) -> None:
    """MULTI, SET and EXEC one by one: on a link of its own, with time between them."""
    keys = who.keys
    key = keys.free(shape="string")
    if key is None:
        return
    keys.take(key)
    written = Written(who, key, "MULTI..SET..EXEC")
    begin = 0
    over = False

    def queued(replies: Any, at: int, end: int) -> None:
        nonlocal begin
        begin = begin or at

    def told(replies: Any, at: int, end: int) -> None:
        nonlocal over
        over = True
        done = replies if replies is None or isinstance(replies[-1], list) else None
        written.told(done, begin, end)

    try:
        await who.conn.send([(pack(b"MULTI"), 1, queued)])
        await who.conn.send([(pack(b"SET", key.name, key.next_text), 1, queued)])
        await who.conn.send([(pack(b"EXEC"), 1, told)])
    finally:
        if not over:
            keys.release(key)  # EXEC was not sent: nothing has happened


READING: Sequence[tuple[Callable[[Who], Step | None], int]] = (
    (read, 80), (read_many, 12), (read_past, 3),
)  # fmt: skip
WRITING: Sequence[tuple[Callable[[Who], Step | None], int]] = (
    (write, 40), (increment, 30), (delete, 10), (expire, 12), (rename, 6), (write_two, 6),
)  # fmt: skip
EXCHANGES: Sequence[Callable[[Who], Awaitable[None]]] = (compare_and_set, slow_transaction)
