"""Every data type's common commands and their error texts, one by one and pipelined."""

from __future__ import annotations

import pytest

from tests.harness.pair import Mask, Pair, Session, masked, pipeline, unordered, words
from tests.harness.wire import pack

from .commands import GROUPS, UNORDERED, lines


def mask_for(line: str) -> Mask | None:
    """How the reply to a line is compared."""
    if words(line)[0].upper() in UNORDERED or line.startswith(("HRANDFIELD h 100", "COMMAND LIST")):
        return unordered
    if line.startswith("ROLE"):
        return masked(rb":\d+")
    return None


def compare_pipelined(pair: Pair, group: str, protocol: int) -> None:
    """Send all commands of a group in one write."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.send(pipeline(lines(group)))
        for line in lines(group):
            client.read(mask=mask_for(line))
        client.drain()

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("group", GROUPS)
def test_one_by_one(pair: Pair, group: str, protocol: int) -> None:
    """Each command sent after the reply to the one before."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        for line in lines(group):
            client.cmd(*words(line), mask=mask_for(line))

    record = pair.same(script)
    assert sum(what == "got" for _, what, _ in record) == len(lines(group))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("group", GROUPS)
def test_pipelined(pair: Pair, group: str, protocol: int) -> None:
    """All commands of a group in one write, blocking and dedicated ones among them."""
    compare_pipelined(pair, group, protocol)


PROTOCOL_TYPES = [
    *("string", "integer", "double", "null", "array", "set", "map", "attrib"),
    *("verbatim", "true", "false", "bignum"),
]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("kind", [*PROTOCOL_TYPES, "push"])
def test_every_reply_type(pair: Pair, kind: str, protocol: int) -> None:
    """`DEBUG PROTOCOL` makes the server send each RESP3 type; nothing is lost around it."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.send(pack("ECHO", "before") + pack("DEBUG", "PROTOCOL", kind))
        client.send(pack("ECHO", "after"))
        client.drain()

    record = pair.same(script)
    assert any(b"before" in data for _, what, data in record if what == "got")
    assert any(b"after" in data for _, what, data in record if what == "got")


def test_case_and_whitespace_of_names(pair: Pair) -> None:
    """Names are matched whatever their case; nothing is trimmed."""

    def script(session: Session) -> None:
        client = session.open()
        client.cmd("sEt", "k", " v ")
        client.cmd("gEt", "k")
        client.cmd("GET ", "k")
        client.cmd("", "k")
        client.cmd("config get", "maxmemory")
        client.cmd("CoNfIg", "gEt", "maxmemory")
        client.cmd("config|get", "maxmemory")
        client.cmd(b"G\x00T", "k")
        client.cmd(b"\r\n", "k\r\nx")
        client.cmd("x" * 300, "y" * 300)

    pair.same(script)


def test_binary_keys_and_values(pair: Pair) -> None:
    """All 256 byte values and protocol look-alikes in keys, values and fields."""
    every = bytes(range(256))
    looks = b"*1\r\n$4\r\nPING\r\n+OK\r\n-ERR x\r\n$-1\r\n"

    def script(session: Session) -> None:
        client = session.open()
        for blob in (every, looks, b"", b"\r\n", b"\x00", b"\xff" * 100):
            client.cmd("SET", blob + b"k", blob)
            client.cmd("GET", blob + b"k")
            client.cmd("HSET", b"h", blob, blob)
            client.cmd("HGET", b"h", blob)
            client.cmd("RPUSH", b"l", blob)
            client.cmd("ECHO", blob)
        client.cmd("LRANGE", "l", 0, -1)
        client.cmd("HGETALL", "h", mask=unordered)

    pair.same(script)


def test_dump_and_restore(pair: Pair) -> None:
    """DUMP's binary payload is the same and restores on either side."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("SET s hello", "RPUSH l a b c", "HSET h f v", "ZADD z 1 a 2.5 b", "SADD i 1 2")
        for key in ("s", "l", "h", "z", "i"):
            reply = client.cmd("DUMP", key)
            payload = reply[reply.index(b"\r\n") + 2 : -2]
            client.cmd("RESTORE", key + "2", 0, payload)
            client.cmd("RESTORE", key + "2", 0, payload)
            client.cmd("RESTORE", key + "2", 0, payload, "REPLACE", "IDLETIME", 10)
            client.cmd("RESTORE", key + "3", 0, payload[:-1] + bytes([payload[-1] ^ 1]))
            client.cmd("TYPE", key + "2")
        client.cmd("DUMP", "missing")

    pair.same(script)
