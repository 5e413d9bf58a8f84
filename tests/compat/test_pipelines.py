"""Depth, size and slicing: long pipelines, big values, every byte split."""

from __future__ import annotations

import threading

import pytest

from tests.harness.pair import Pair, Session, pipeline
from tests.harness.wire import Wire, pack

DEEP = 10_000
MIB = 1 << 20


def test_deep_pipeline(pair: Pair) -> None:
    """10,000 commands of many kinds, written before anything is read."""
    kinds = [
        "SET k{n} {n}",
        "GET k{n}",
        "INCR n",
        "LPUSH l {n}",
        "HSET h f{n} v",
        "NOSUCH {n}",
        "ECHO {n}",
        "MGET k{n} n",
        "GET l",
        "SELECT 0",
    ]

    def script(session: Session) -> None:
        client = session.open()
        client.send(pipeline(kinds[n % len(kinds)].format(n=n // 10) for n in range(DEEP)))
        client.read(DEEP)
        client.run("PING")

    pair.same(script)


def test_deep_pipeline_with_long_replies(pair: Pair) -> None:
    """10,000 replies of 1 KiB to a client that reads only after its last write."""

    def script(session: Session) -> None:
        client = session.open()
        client.cmd("SET", "k", b"x" * 1024)
        client.send(pack("GET", "k") * DEEP)
        replies = client.wire.read_replies(DEEP)
        session.log.append(("a", "got", b"%d" % len(set(replies))))
        client.run("STRLEN k")

    pair.same(script)


@pytest.mark.parametrize("size", [16_384, 65_535, 65_536, 65_537, MIB, 8 * MIB])
def test_big_values(pair: Pair, size: int) -> None:
    """Large arguments and replies, alone and between small ones, in one write."""
    blob = bytes(range(256)) * (size // 256) + b"\r" * (size % 256)

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        data = pack("SET", "small", "1") + pack("SET", "big", blob) + pack("INCR", "small")
        client.send(data + pack("GET", "big") + pack("STRLEN", "big") + pack("GET", "small"))
        client.read(6)
        other.run("GET small", "STRLEN big")
        client.cmd("MSET", "a", blob, "b", blob)
        client.cmd("MGET", "a", "small", "b")
        client.cmd("ECHO", blob)
        client.cmd("NOSUCH", blob)

    pair.same(script)


@pytest.mark.slow
def test_hundred_megabytes(valkey_pair: Pair) -> None:
    """100 MB up and down again; the process does not keep them."""
    blob = b"0123456789" * 10_000_000
    sidecar = valkey_pair.sidecar
    with Wire(sidecar.port, deadline=60) as wire:
        before = sidecar.rss()
        assert wire.cmd("SET", "huge", blob) == b"+OK\r\n"
        assert wire.cmd("GET", "huge") == b"$100000000\r\n" + blob + b"\r\n"
        assert wire.cmd("DEL", "huge") == b":1\r\n"
        assert wire.cmd("PING") == b"+PONG\r\n"
        assert sidecar.rss() - before < 400 * MIB


def test_long_arrays(pair: Pair) -> None:
    """A request with 100,000 arguments and a reply with as many elements."""

    def script(session: Session) -> None:
        client = session.open()
        client.cmd("RPUSH", "l", *range(100_000))
        client.cmd("LRANGE", "l", 0, -1)
        client.cmd("MGET", *(f"k{n}" for n in range(100_000)))
        client.cmd("LLEN", "l")

    pair.same(script)


SHORT = ["SET k v", "GET k", "NOSUCH x", "INCR n", "MGET k n", "PING hello", "GET missing"]
INLINE = b"SET i 'a b'\r\nGET i\nPING\r\n"


def test_one_byte_at_a_time(pair: Pair) -> None:
    """Each byte of a pipelined transcript in a write of its own."""

    def script(session: Session) -> None:
        client = session.open()
        for byte in pipeline(SHORT) + INLINE:
            client.wire.send(bytes([byte]))
        client.read(len(SHORT) + 3)
        client.drain()

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_split(valkey_pair: Pair, protocol: int) -> None:
    """Two writes, cut at every byte. A reply to another client in between proves that the first
    piece was read on its own."""
    data = pipeline(SHORT) + INLINE
    with Wire(valkey_pair.sidecar.port) as wire, Wire(valkey_pair.sidecar.port) as other:
        wire.cmd("HELLO", protocol)
        for cut in range(1, len(data)):
            assert other.cmd("DEL", "n") in (b":0\r\n", b":1\r\n")
            wire.send(data[:cut])
            assert other.cmd("PING") == b"+PONG\r\n"
            wire.send(data[cut:])
            got = wire.read_replies(len(SHORT) + 3)
            nothing = b"_\r\n" if protocol == 3 else b"$-1\r\n"
            assert got[:2] == [b"+OK\r\n", b"$1\r\nv\r\n"], cut
            assert got[3:7] == [
                b":1\r\n",
                b"*2\r\n$1\r\nv\r\n$1\r\n1\r\n",
                b"$5\r\nhello\r\n",
                nothing,
            ]
            assert got[7:] == [b"+OK\r\n", b"$3\r\na b\r\n", b"+PONG\r\n"], cut


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_sliced_big_value(valkey_pair: Pair, size: int) -> None:
    """A value that arrives in slices; other clients go on between them."""
    blob = b"\r\n$5*" * (100 * size)
    data = pack("SET", "k", blob) + pack("GET", "k")
    with Wire(valkey_pair.sidecar.port) as wire, Wire(valkey_pair.sidecar.port) as other:
        for start in range(0, len(data), size):
            wire.send(data[start : start + size])
            if start % (size * 50) == 0:
                assert other.cmd("ECHO", start) == pack(start)[4:]
        assert wire.read_replies(2) == [b"+OK\r\n", pack(blob)[4:]]


def test_no_reply_goes_to_the_wrong_client(pair: Pair) -> None:
    """Eight clients at once, 2,500 commands each in pipelines of changing depth; every reply holds
    its own client's token."""
    failures: list[str] = []

    def work(number: int) -> None:
        with Wire(pair.sidecar.port, deadline=20) as wire:
            done = 0
            while done < 2500:
                depth = 1 + (done * 7 + number) % 60
                tokens = [f"client {number} command {done + n}".encode() for n in range(depth)]
                wire.send(b"".join(pack("ECHO", token) for token in tokens))
                for token in tokens:
                    reply = wire.read_reply()
                    if reply != pack(token)[4:]:
                        failures.append(f"{number} expected {token!r}, got {reply[:200]!r}")
                        return
                done += depth

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads)


def test_interleaved_writes_and_reads_keep_each_clients_order(pair: Pair) -> None:
    """Read-your-writes for each client while all write the same keys."""

    def script(session: Session) -> None:
        clients = [session.open(2 + number % 2) for number in range(6)]
        for turn in range(100):
            for number, client in enumerate(clients):
                key = f"k{(turn + number) % 10}.{number}"
                client.send(pipeline([f"SET {key} {turn}", f"GET {key}", "SELECT 0", f"DEL {key}"]))
            for client in clients:
                client.read(4)

    pair.same(script)
