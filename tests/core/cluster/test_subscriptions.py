"""What a client has subscribed to, as it is read from what passes."""

from __future__ import annotations

import pytest

from sidecar.core.cluster.subscriptions import Subscriptions
from tests.harness.resp import Arg, bulk, pack
from tests.native.shell import table


def told(word: str, *rest: str | int | None, push: bool = False) -> bytes:
    """A confirmation or a message."""
    parts = [bulk(word.encode())]
    for each in rest:
        if each is None:
            parts.append(b"_\r\n" if push else b"$-1\r\n")
        else:
            parts.append(b":%d\r\n" % each if isinstance(each, int) else bulk(each.encode()))
    return b"%c%d\r\n%b" % (b">" if push else b"*", len(parts), b"".join(parts))


class Client:
    """A client, and what is known of it."""

    def __init__(self, protocol: int = 2) -> None:
        self.push = protocol == 3
        self.has = Subscriptions(table(), self.push)

    def asks(self, *args: Arg) -> None:
        self.has.asks(pack(*args))

    def told(self, word: str, *rest: str | int | None) -> bool:
        return self.has.gives(told(word, *rest, push=self.push))

    def subscribes(self, word: str, *names: str) -> None:
        self.asks(word, *names)
        for count, name in enumerate(names, 1):
            assert self.told(word, name, count)


@pytest.fixture(params=[2, 3])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


def test_what_is_confirmed_is_what_it_has(client: Client) -> None:
    client.asks("SUBSCRIBE", "a", "b")
    assert client.has.channels == set()
    assert client.told("subscribe", "a", 1)
    assert client.has.due_requests == [[b"SUBSCRIBE", b"b"]]
    assert client.told("subscribe", "b", 2)
    client.subscribes("psubscribe", "p*")
    client.subscribes("ssubscribe", "s")
    client.asks("UNSUBSCRIBE", "a", "none")
    assert client.told("unsubscribe", "a", 1)
    assert client.told("unsubscribe", "none", 1)
    assert client.has.due_requests == []
    assert (client.has.channels, client.has.patterns, client.has.sharded) == (
        {b"b"},
        {b"p*"},
        {b"s"},
    )


def test_as_many_confirmations_as_there_are_subscriptions(client: Client) -> None:
    """UNSUBSCRIBE without a name, behind what is not confirmed yet."""
    client.asks("SUBSCRIBE", "a", "b")
    client.asks("UNSUBSCRIBE")
    client.asks("PUNSUBSCRIBE")
    client.asks("PING")
    for name in "ab":
        assert client.told("subscribe", name, 1)
    for name in "ab":
        assert client.told("unsubscribe", name, 1)
    assert client.has.due_requests == [[b"PUNSUBSCRIBE"], [b"PING"]]
    assert client.told("punsubscribe", None, 0)
    assert client.has.due_requests == [[b"PING"]]
    assert client.has.gives(b"+PONG\r\n")
    assert client.has.due_requests == []


def test_messages_answer_nothing(client: Client) -> None:
    client.subscribes("subscribe", "a")
    client.subscribes("psubscribe", "*")
    client.asks("PING")
    assert client.told("message", "a", "x")
    assert client.told("pmessage", "*", "a", "x")
    assert client.told("smessage", "a", "x")
    assert client.has.due_requests == [[b"PING"]]
    assert client.has.gives(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
    assert client.has.due_requests == []


def test_an_array_that_looks_like_a_confirmation() -> None:
    """A RESP3 client gets such a reply from LRANGE, and so does a RESP2 client without any."""
    for client in (Client(2), Client(3)):
        if client.push:
            client.subscribes("subscribe", "a")
        client.asks("LRANGE", "k", 0, -1)
        assert client.has.gives(told("subscribe", "b", 1))
        assert client.has.due_requests == []
        assert b"b" not in client.has.channels


def test_a_server_that_unsubscribes_by_itself(client: Client) -> None:
    client.subscribes("ssubscribe", "a", "b")
    client.asks("PING")
    assert not client.told("sunsubscribe", "a", 1)
    assert not client.told("sunsubscribe", "b", 0)
    assert client.has.taken == {b"a", b"b"} == client.has.sharded
    assert client.has.movable
    assert client.has.put_away() == client.has.away == {b"a", b"b"}
    assert client.has.taken == set()


def test_its_own_sunsubscribe_is_told(client: Client) -> None:
    client.subscribes("ssubscribe", "a")
    client.asks("SUNSUBSCRIBE", "a")
    assert client.told("sunsubscribe", "a", 0)
    assert client.has.sharded == client.has.taken == set()


REDIRECTIONS = ["-MOVED 1 h:1", "-ASK 1 h:1", "-TRYAGAIN x", "-CLUSTERDOWN x"]


@pytest.mark.parametrize("error", REDIRECTIONS)
@pytest.mark.parametrize("word", ["SSUBSCRIBE", "SUNSUBSCRIBE"])
def test_a_redirection_is_dealt_with_first(client: Client, word: str, error: str) -> None:
    line = error.encode() + b"\r\n"
    client.asks(word, "a")
    client.asks("SSUBSCRIBE", "a2")
    assert client.has.is_new == (word == "SSUBSCRIBE")
    assert not client.has.gives(line)
    assert client.has.refusal == line
    assert client.has.due_requests == [[word.encode(), b"a"], [b"SSUBSCRIBE", b"a2"]]
    assert client.has.resolve() == b""
    assert client.has.refusal is None
    assert client.has.due_requests == [[b"SSUBSCRIBE", b"a2"]]


def test_other_errors_are_told(client: Client) -> None:
    client.asks("SUBSCRIBE", "a")
    assert client.has.gives(b"-NOPERM x\r\n")
    assert client.has.gives(b"-MOVED 1 h:1\r\n"), "nobody has asked"
    assert client.has.refusal is None


def test_a_redirection_of_another_command(client: Client) -> None:
    """In RESP2 a server would have refused it."""
    client.subscribes("subscribe", "a")
    client.asks("GET", "k")
    client.asks("SET", "k", "v")
    assert not client.has.gives(b"-MOVED 1 h:1\r\n")
    assert len(client.has.due_requests) == (2 if client.push else 1)
    assert client.has.may_repeat == client.push
    assert (client.has.refusal is None) == (not client.push)


def test_what_is_away_counts(client: Client) -> None:
    """And ends with SUNSUBSCRIBE of all."""
    client.subscribes("ssubscribe", "a", "b", "c")
    client.asks("PING")
    assert not client.told("sunsubscribe", "b", 2)
    assert client.has.put_away() == {b"b"}
    assert client.has.gives(b"+PONG\r\n")
    client.asks("SSUBSCRIBE", "d")
    assert not client.told("ssubscribe", "d", 3)
    assert client.has.confirmation(b"ssubscribe", b"d") == told(
        "ssubscribe", "d", 4, push=client.push
    )
    client.asks("SUNSUBSCRIBE")
    for count, name in ((2, "a"), (1, "c"), (0, "d")):
        assert client.has.away == {b"b"}
        assert not client.told("sunsubscribe", name, count)
    assert client.has.away == client.has.sharded == set()
    assert client.has.due_requests == []


def test_a_link_without_any_of_its_own(client: Client) -> None:
    client.subscribes("ssubscribe", "a", "b")
    client.asks("SUNSUBSCRIBE", "a")
    assert client.told("sunsubscribe", "a", 1)
    assert not client.has.is_hollow
    assert not client.told("sunsubscribe", "b", 0)
    client.has.put_away()
    assert client.has.is_hollow == (not client.push)
    client.asks("SUNSUBSCRIBE")
    assert not client.told("sunsubscribe", None, 0)
    assert client.has.sharded == set()


def test_what_may_be_sent_again(client: Client) -> None:
    client.subscribes("subscribe", "a")
    client.asks("PING")
    assert client.has.movable
    client.asks("PUBLISH", "a", "x")
    assert not client.has.movable
    assert client.has.gives(b"+PONG\r\n")
    assert client.has.gives(b":1\r\n")
    assert client.has.movable
    client.has.asks(pack("SUBSCRIBE", "b")[:-3])
    assert not client.has.movable


@pytest.mark.parametrize(
    "request_", [("AUTH", "x"), ("SELECT", 1), ("MULTI",), ("MONITOR",), ("QUIT",), ("CLIENT", "X")]
)
def test_what_changes_more_than_subscriptions(client: Client, request_: tuple[Arg, ...]) -> None:
    client.asks(*request_)
    assert client.has.strange
    assert not client.has.movable


def test_requests_that_are_too_large_or_too_many(client: Client) -> None:
    client.asks("SUBSCRIBE", "x" * 70_000)
    assert client.has.strange
    many = Client()
    for _ in range(2000):
        many.asks("GET", "x" * 1000)
    assert many.has.strange


def test_another_link_begins_with_what_is_confirmed(client: Client) -> None:
    client.subscribes("ssubscribe", "a")
    client.asks("SSUBSCRIBE", "b")
    assert not client.told("sunsubscribe", "a", 0)
    client.has.begin_again()
    assert (client.has.due_requests, client.has.taken) == ([], set())
    assert client.has.sharded == {b"a"}
