"""What Sentinels say, turned into events; and one connection to a Sentinel, byte by byte.

The messages are as Valkey 9.1 and Redis 7.0 publish them. Real Sentinels are in
tests/compat/test_sentinel_watch.py.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.discovery.sentinel_link import MAX_UNREAD, Fault, Link, Reply, refusal
from sidecar.policy.topology import (
    Event,
    FailoverAborted,
    FailoverBegun,
    MasterDown,
    MasterNamed,
    MasterUp,
    PromotionAwaited,
    PromotionSeen,
    ReplicasChanged,
    SentinelFound,
    address_of,
    event_of,
)
from sidecar.settings.sections.upstream import Sentinel
from sidecar.settings.urls import parse_upstream

ID = "9d7b8b0f4fa79497e40171264e48cc175c220745"
MASTER = "master mymaster 127.0.0.1 6379"
ONE = "slave 127.0.0.1:6380 127.0.0.1 6380 @ mymaster 127.0.0.1 6379"
OTHER = "slave 127.0.0.1:6381 127.0.0.1 6381 @ mymaster 127.0.0.1 6379"
LATER = "slave 127.0.0.1:6379 127.0.0.1 6379 @ mymaster 127.0.0.1 6380"
SWITCH = "mymaster 127.0.0.1 6379 127.0.0.1 6380"
SENTINEL = f"sentinel {ID} 127.0.0.1 26380 @ mymaster 127.0.0.1 6379"
SWITCHED = MasterNamed(("127.0.0.1", 6380), switched=True)

LEADER: list[tuple[str, str, Event | None]] = [
    ("+odown", f"{MASTER} #quorum 2/2", MasterDown("objective")),
    ("+new-epoch", "1", None),
    ("+try-failover", MASTER, FailoverBegun()),
    ("+vote-for-leader", f"{ID} 1", None),
    ("+elected-leader", MASTER, FailoverBegun()),
    ("+failover-state-select-slave", MASTER, FailoverBegun()),
    ("+selected-slave", ONE, FailoverBegun()),
    ("+failover-state-send-slaveof-noone", ONE, FailoverBegun()),
    ("+failover-state-wait-promotion", ONE, PromotionAwaited(("127.0.0.1", 6380))),
    ("-role-change", f"{ONE} new reported role is master", ReplicasChanged()),
    ("+promoted-slave", ONE, PromotionSeen(("127.0.0.1", 6380))),
    ("+failover-state-reconf-slaves", MASTER, None),
    ("+slave-reconf-sent", OTHER, ReplicasChanged()),
    ("+slave-reconf-inprog", OTHER, ReplicasChanged()),
    ("+slave-reconf-done", OTHER, ReplicasChanged()),
    ("-odown", MASTER, MasterUp(rebooted=False)),
    ("+failover-end", MASTER, None),
    ("+switch-master", SWITCH, SWITCHED),
    ("+slave", LATER, ReplicasChanged()),
    ("+convert-to-slave", LATER, ReplicasChanged()),
]
OTHERS: list[tuple[str, str, Event | None]] = [
    ("+sdown", MASTER, MasterDown("subjective")),
    ("-sdown", MASTER, MasterUp(rebooted=False)),
    ("+reboot", MASTER, MasterUp(rebooted=True)),
    ("+sdown", ONE, ReplicasChanged()),
    ("-sdown", ONE, ReplicasChanged()),
    ("+reboot", ONE, ReplicasChanged()),
    ("+fix-slave-config", ONE, ReplicasChanged()),
    ("+sdown", SENTINEL, None),
    ("+sentinel", SENTINEL, SentinelFound(("127.0.0.1", 26380))),
    ("+config-update-from", SENTINEL, None),
    ("-failover-abort-not-elected", MASTER, FailoverAborted()),
    ("-failover-abort-no-good-slave", MASTER, FailoverAborted()),
    ("-failover-abort-slave-timeout", MASTER, FailoverAborted()),
    ("-failover-abort-master-timeout", MASTER, FailoverAborted()),
    ("+monitor", f"{MASTER} quorum 2", None),
    ("+set", f"{MASTER} quorum 2", None),
    ("+tilt", "#tilt mode entered", None),
    (
        "+switch-master",
        "mymaster fd00::1 6379 redis-1.example 6380",
        MasterNamed(("redis-1.example", 6380), switched=True),
    ),
    (
        "+failover-state-wait-promotion",
        "slave [fd00::2]:6380 fd00::2 6380 @ mymaster fd00::1 6379",
        PromotionAwaited(("fd00::2", 6380)),
    ),
]


@pytest.mark.parametrize(("channel", "payload", "event"), LEADER + OTHERS)
def test_what_a_message_means(channel: str, payload: str, event: Event | None) -> None:
    """To its service; to any other, also to one whose name begins or ends alike, nothing."""
    assert event_of(channel, payload, "mymaster") == event
    for service in ("master", "mymaster2", "mymas", "", "127.0.0.1:6380", ID):
        assert event_of(channel, payload, service) is None


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        ("+switch-master", "mymaster 127.0.0.1 6379 127.0.0.1"),
        ("+switch-master", "mymaster 127.0.0.1 6379 127.0.0.1 0"),
        ("+switch-master", "mymaster 127.0.0.1 6379 127.0.0.1 65536"),
        ("+switch-master", "mymaster 127.0.0.1 6379 127.0.0.1 6380 6381"),
        ("+switch-master", "mymaster 127.0.0.1 6379  6380"),
        ("+sdown", "master mymaster 127.0.0.1"),
        ("+sdown", "master mymaster 127.0.0.1 ６３７９"),  # noqa: RUF001 - digits, but not ASCII
        ("+failover-state-wait-promotion", "slave 127.0.0.1:6380 127.0.0.1 6380"),
        ("+failover-state-wait-promotion", "slave 127.0.0.1:6380 127.0.0.1 6380 @"),
        ("+failover-state-wait-promotion", "slave mymaster 127.0.0.1 6380 # mymaster"),
    ],
)
def test_a_malformed_message_is_nothing(channel: str, payload: str) -> None:
    """Nor an error."""
    assert event_of(channel, payload, "mymaster") is None


CHANNELS = st.sampled_from([channel for channel, _, _ in LEADER + OTHERS]) | st.text(max_size=9)
WORDS = st.sampled_from([*SWITCH.split(), *ONE.split(), "master", "", "-1", "99999"])


@given(CHANNELS, st.lists(WORDS, max_size=9).map(" ".join) | st.text())
def test_no_message_is_an_error(channel: str, payload: str) -> None:
    """Whatever is published, an address that comes out can be connected to."""
    event = event_of(channel, payload, "mymaster")
    for field in ("address", "replica"):
        host, port = getattr(event, field, ("host", 1))
        assert host
        assert 0 < port < 65536


@pytest.mark.parametrize("parts", [None, [], ["h"], ["h", "1", "2"], ["", "1"], ["h", "x"], "h1"])
def test_what_is_no_address(parts: object) -> None:
    """Replies of other shapes than a host and a port."""
    assert address_of(parts) is None


class Wire(asyncio.Transport):
    """Where a link writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def connected() -> tuple[Link, Wire, list[object]]:
    """A link as after `open`, what it writes, and what it hands on, in order."""
    handed: list[object] = []
    link = Link(1.0, lambda channel, text: handed.append((channel, text)))
    wire = Wire()
    link.connection_made(wire)
    return link, wire, handed


STREAM = (
    b">3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n"
    b"%1\r\n$4\r\nname\r\n$8\r\nmymaster\r\n"
    b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$6\r\n+sdown\r\n$1\r\na\r\n"
    b"-ERR no\r\n"
    b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$6\r\n-sdown\r\n$1\r\nb\r\n"
    b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n"
)


async def test_messages_and_answers_keep_their_order_at_any_split() -> None:
    """Handed on while the bytes are read: nothing waits for a task to be woken."""
    expected = [
        (0, ["psubscribe", "*", 1]),
        (1, {"name": "mymaster"}),
        ("+sdown", "a"),
        (2, "ERR no"),
        ("-sdown", "b"),
        (3, ["127.0.0.1", "6379"]),
    ]
    for step in range(1, len(STREAM) + 1):
        link, wire, handed = connected()

        def hand(number: int, handed: list[object], reply: Reply) -> None:
            failed = isinstance(reply, hiredis.ReplyError)
            handed.append((number, str(reply) if failed else reply))

        for number in range(4):
            link.send(partial(hand, number, handed), "PING", number)
        assert wire.written.count(b"PING") == 4
        for at in range(0, len(STREAM), step):
            link.data_received(STREAM[at : at + step])
        assert handed == expected
        assert link.idle_for >= 0.0
        assert not link.overdue


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks no Redis protocol"),
        (b"$%d\r\n" % (2 * MAX_UNREAD) + b"x" * (MAX_UNREAD + 1), "sends a reply without end"),
    ],
)
async def test_what_no_sentinel_sends_ends_the_connection(data: bytes, words: str) -> None:
    """And the reason is what waits for an answer gets."""
    link, wire, _ = connected()
    answer = asyncio.create_task(link.call("PING"))
    await asyncio.sleep(0)
    link.data_received(data)
    assert wire.aborted
    link.connection_lost(None)
    with pytest.raises(Fault, match=words):
        await answer


async def test_unasked_for_replies_are_dropped() -> None:
    """They answer nothing that comes later."""
    link, _, handed = connected()
    link.data_received(b"+OK\r\n+OK\r\n")
    link.send(handed.append, "PING")
    link.data_received(b"+PONG\r\n")
    assert handed == ["PONG"]


async def test_an_answer_that_does_not_come() -> None:
    """`call` gives up by itself, the link is overdue."""
    link = Link(0.01)
    link.connection_made(Wire())
    with pytest.raises(Fault, match=r"no answer within 0\.01 s"):
        await link.call("PING")
    assert link.overdue
    assert link.idle_for == 0.0


def of_openssl(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (None, "closed the connection"),
        (ConnectionResetError(104, "Connection reset by peer"), "closed the connection"),
        (TimeoutError(110, "Connection timed out"), "connection timed out"),
        (
            of_openssl("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            "TLS: the server wants a client certificate",
        ),
    ],
)
async def test_a_lost_connection_says_why(error: OSError | None, cause: str) -> None:
    """What is asked later fails alike."""
    link, _, _ = connected()
    link.connection_lost(error)
    for _ in range(2):
        with pytest.raises(Fault, match=cause):
            await link.call("PING")


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("NOAUTH HELLO must be called with …", "credentials", "wants a password (NOAUTH)"),
        ("WRONGPASS invalid …", "credentials", "WRONGPASS invalid …"),
        ("NOPERM this user has no …", "credentials", "NOPERM this user has no …"),
        ("ERR No such master with that name", "service", "does not know it"),
        ("ERR unknown command 'HELLO', …", "unreachable", "is older than Redis 6 (no HELLO)"),
        ("ERR unknown command `SENTINEL`, …", "unreachable", "is a server, not a Sentinel"),
        ("DENIED Redis is running …", "unreachable", "answers 'DENIED Redis is running …'"),
        ("ERR " + "x" * 999, "unreachable", "answers '" + ("ERR " + "x" * 999)[:200] + "'"),
    ],
)
def test_refusals_in_words(text: str, kind: str, words: str) -> None:
    """Each error reply belongs to one kind of trouble."""
    fault = refusal(hiredis.ReplyError(text))
    assert (fault.kind, str(fault)) == (kind, words)


async def test_a_host_that_can_be_no_name() -> None:
    """Is one more Sentinel out of reach."""
    endpoint = parse_upstream(f"redis+sentinel://{'x' * 64}.example/mymaster")
    watcher = SentinelWatcher(endpoint, Sentinel(), None, print)
    with pytest.raises(
        DiscoveryError, match=r"no Sentinel of 'mymaster' can be asked: x+\.example"
    ):
        await watcher.find_master()
