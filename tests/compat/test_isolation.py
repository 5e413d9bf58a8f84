"""A client that dies, stalls or misbehaves is nobody else's business."""

from __future__ import annotations

import random

import pytest

from tests.harness.faults import FaultProxy
from tests.harness.pair import Pair, Session, pipeline
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire, pack


def test_dies_with_outstanding_replies(valkey_pair: Pair) -> None:
    """The dead client's replies are swallowed; the survivor's are its own, in order."""
    port = valkey_pair.sidecar.port
    with Wire(port) as survivor:
        for turn in range(60):
            victim = Wire(port)
            victim.send(b"".join(pack("ECHO", f"dead {turn}.{n}") for n in range(200)))
            tokens = [f"alive {turn}.{n}" for n in range(20)]
            survivor.send(b"".join(pack("ECHO", token) for token in tokens))
            if turn % 2:
                victim.reset()
            else:
                victim.close()
            assert survivor.read_replies(20) == [pack(token)[4:] for token in tokens]


def test_dies_in_the_middle_of_a_reply(valkey_pair: Pair) -> None:
    """A large reply to a dead client does not spill into another's."""
    port = valkey_pair.sidecar.port
    with Wire(port) as survivor:
        assert survivor.cmd("SET", "big", b"x" * 3_000_000) == b"+OK\r\n"
        for turn in range(10):
            victim = Wire(port, receive_buffer=4096)
            victim.send(pack("GET", "big") * 3)
            assert victim.read_until_bytes(1000)
            survivor.send(pack("ECHO", turn) + pack("STRLEN", "big"))
            victim.reset()
            assert survivor.read_replies(2) == [pack(turn)[4:], b":3000000\r\n"]


HALVES = [
    b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nab",
    b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nabcde",
    b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n",
    b"*3\r\n$3\r\nSET\r\n",
    b"*3\r",
    b"SET half inline",
    pack("MULTI") + b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1\r\n",
    pack("MULTI") + pack("SET", "half", "1"),
    pack("WATCH", "k") + pack("MULTI") + pack("SET", "half", "1"),
    b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$2000000\r\n" + b"x" * 100_000,
]


@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
@pytest.mark.parametrize("half", HALVES)
def test_dies_with_a_half_sent_request(pair: Pair, half: bytes, how: str) -> None:
    """Nothing of it is done, and others go on."""

    def script(session: Session) -> None:
        victim, other = session.open(), session.open()
        other.run("SET k 1")
        victim.send(pack("SET", "whole", "1") + half)
        other.run("GET k")
        getattr(victim.wire, how)()
        if how == "half_close":
            victim.wire.read_to_end()
        wait_until(lambda: session.observe("EXISTS", "whole") == b":1\r\n", "the whole one done")
        other.run("GET k", "EXISTS half", "INCR k")
        again = session.open()
        again.run("EXISTS half", "GET whole")

    pair.same(script)


def test_half_close_gets_all_replies(pair: Pair) -> None:
    """`printf ... | nc`: the sending side is shut after a pipeline, the replies still come.

    The server sleeps first, so that they cannot be there before the end of the stream is.
    """

    def script(session: Session) -> None:
        client = session.open()
        client.send(pipeline(["DEBUG SLEEP 0.2"]))
        client.send(pipeline(f"INCR n{number % 7}" for number in range(2000)))
        client.wire.half_close()
        client.to_end()

    record = pair.same(script)
    assert record[-1][2].count(b"\r\n") == 2001


def test_half_close_before_there_is_a_link(plain_server: Server) -> None:
    """A client sends all that it has to say, and its end, at once, and the first link is not up
    yet: it is answered as soon as that is."""
    settings: dict[str, str | int | float] = {
        "upstream.start": "wait",
        "upstream.start_timeout": 0.3,
        "upstream.wait": 20,
    }
    with FaultProxy(plain_server.port) as way:
        way.to_client.blackhole = True
        with Sidecar(way.url, settings=settings, ready=False) as sidecar:
            wait_until(lambda: Wire(sidecar.port).close() or True, "it listens", 20, (OSError,))
            with Wire(sidecar.port, deadline=20) as client:
                client.send(pipeline(["SET k v", "GET k"]))
                client.half_close()
                client.expect_silence()
                way.heal()
                way.cut()
                assert client.read_to_end() == b"+OK\r\n$1\r\nv\r\n"


def test_stopped_reader_does_not_slow_others(valkey_pair: Pair) -> None:
    """One client asks for much and reads nothing; another's commands are answered as ever."""
    port = valkey_pair.sidecar.port
    with Wire(port) as other, Wire(port, receive_buffer=4096) as stalled:
        assert other.cmd("SET", "big", b"x" * 100_000) == b"+OK\r\n"
        stalled.send(pack("GET", "big") * 200)
        for number in range(500):
            assert other.cmd("ECHO", number) == pack(number)[4:]
        expected = pack(b"x" * 100_000)[4:]
        for _ in range(200):
            assert stalled.read_reply() == expected


@pytest.mark.parametrize("seed", range(3))
def test_churn(valkey_pair: Pair, seed: int) -> None:
    """Clients come and go at random in every state; survivors see only what is theirs."""
    rng = random.Random(seed)
    port = valkey_pair.sidecar.port
    states = [
        pack("BLPOP", "never", 0),
        pack("SUBSCRIBE", "c"),
        pack("MULTI") + pack("SET", "x", "y"),
        pack("WATCH", "k") + pack("GET", "k"),
        pack("ECHO", "dead") * 50,
        b"*2\r\n$3\r\nGET\r\n",
        pack("CLIENT", "REPLY", "OFF") + pack("INCR", "n") * 10,
        pack("HELLO", 3) + pack("CLIENT", "TRACKING", "ON") + pack("GET", "k"),
        pack("SELECT", 3) + pack("GET", "k"),
        b"*x\r\n",
        b"",
    ]
    survivors = [Wire(port) for _ in range(4)]
    crowd: list[Wire] = []
    try:
        for turn in range(250):
            wire = Wire(port)
            wire.send(rng.choice(states))
            crowd.append(wire)
            if len(crowd) > 10:
                gone = crowd.pop(rng.randrange(len(crowd)))
                rng.choice([gone.reset, gone.close])()
            for number, survivor in enumerate(survivors):
                survivor.send(pack("ECHO", f"{turn}.{number}") + pack("PUBLISH", "c", turn))
            for number, survivor in enumerate(survivors):
                assert survivor.read_reply() == pack(f"{turn}.{number}")[4:]
                assert survivor.read_reply().startswith(b":")
    finally:
        for wire in survivors + crowd:
            wire.close()
