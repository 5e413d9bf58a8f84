"""CLIENT TRACKING through the sidecar: a client's own client-side cache keeps working."""

from __future__ import annotations

import re

import pytest

from tests.harness.pair import Pair, Session, masked, pipeline, unordered
from tests.harness.process import wait_until
from tests.harness.wire import Wire

_NUMBER = masked(rb":\d+")


@pytest.mark.parametrize("options", ["", " NOLOOP", " OPTOUT", " OPTIN"])
def test_invalidations_in_resp3(pair: Pair, options: str) -> None:
    """Pushes for foreign and own writes, each time in the same place of the stream."""

    def script(session: Session) -> None:
        client, other = session.open(3), session.open()
        client.run("CLIENT TRACKING ON" + options, "CLIENT TRACKINGINFO", "CLIENT GETREDIR")
        client.run("GET k", "MGET k l")
        other.run("SET k 1")
        client.drain()
        client.run("CLIENT CACHING YES")
        client.run("GET k")
        other.run("SET k 2", "SET x 1")
        client.drain()
        client.send(pipeline(["GET k", "SET k 3", "GET k"]))
        client.drain()
        other.run("FLUSHALL")
        client.drain()
        client.run("CLIENT TRACKING OFF", "GET k")
        other.run("SET k 4")
        client.drain()

    pair.same(script)


@pytest.mark.parametrize("options", ["BCAST", "BCAST PREFIX k PREFIX l", "BCAST NOLOOP"])
def test_broadcast_in_resp3(pair: Pair, options: str) -> None:
    """Broadcast pushes come at the end of the server's loop, so they are waited for."""

    def script(session: Session) -> None:
        client, other = session.open(3), session.open()
        client.run("CLIENT TRACKING ON " + options, "CLIENT TRACKINGINFO")
        other.run("SET k 1")
        client.read()
        other.run("MSET l 1 m 1", "SET k 2")
        client.read(2 if "PREFIX" in options else 1, mask=unordered)
        client.send(pipeline(["SET k 3", "GET k"]))
        client.read(2)
        if "NOLOOP" not in options:
            client.read()
        client.run("CLIENT TRACKING OFF", "GET k")
        other.run("SET k 4")
        client.drain()

    pair.same(script)


def test_redirection_to_another_client(pair: Pair) -> None:
    """RESP2: invalidations go to the connection whose CLIENT ID was named."""

    def script(session: Session) -> None:
        listener, client, other = session.open(), session.open(), session.open()
        number = listener.cmd("CLIENT", "ID", mask=_NUMBER)[1:-2]
        listener.run("SUBSCRIBE __redis__:invalidate")
        client.unrecorded("CLIENT", "TRACKING", "ON", "REDIRECT", number)
        client.cmd("CLIENT", "GETREDIR", mask=_NUMBER)
        client.run("GET k")
        other.run("SET k 1")
        listener.read()
        other.run("FLUSHALL")
        client.run("GET k")
        other.run("SET k 2")
        listener.read()

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
def test_whom_it_names_is_told_by_its_number(pair: Pair, protocol: int) -> None:
    """In every reply that tells of it."""
    for port in (pair.direct.port, pair.sidecar.port):
        with Wire(port) as target, Wire(port) as client, Wire(port) as other:
            number = target.cmd("CLIENT", "ID")[1:-2]
            client.cmd("HELLO", protocol)
            own = client.cmd("CLIENT", "ID")[1:-2]
            assert client.cmd("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
            assert client.cmd("CLIENT", "GETREDIR") == b":%b\r\n" % number
            assert b"redirect\r\n:%b\r\n" % number in client.cmd("CLIENT", "TRACKINGINFO")
            for reply in (
                client.cmd("CLIENT", "INFO"),
                client.cmd("CLIENT", "LIST", "ID", own),
                other.cmd("CLIENT", "LIST", "ID", own),
            ):
                assert b" redir=%b " % number in reply
            assert b" redir=-1 " in other.cmd("CLIENT", "INFO")


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("more", ["", "MULTI", "SUBSCRIBE c"])
def test_a_target_that_has_gone_is_told_by_its_number(pair: Pair, protocol: int, more: str) -> None:
    """In the push that says that it has gone, and in every reply afterwards."""
    if protocol == 2 and more == "SUBSCRIBE c":
        pytest.skip("a subscriber in RESP2 may not do that")
    for port in (pair.direct.port, pair.sidecar.port):
        with Wire(port) as client, Wire(port) as other, Wire(pair.behind.port) as behind:
            observer = behind if port == pair.sidecar.port else other
            client.cmd("HELLO", protocol)
            own = client.cmd("CLIENT", "ID")[1:-2]
            with Wire(port) as target:
                number = target.cmd("CLIENT", "ID")[1:-2]
                if more:
                    client.cmd(*more.split())
                client.cmd("CLIENT", "TRACKING", "ON", "REDIRECT", number)
                if more == "MULTI":
                    assert client.cmd("EXEC") == b"*1\r\n+OK\r\n"
                client.cmd("GET", "k")
                assert _redirected(observer)
            wait_until(lambda who=observer: not _redirected(who), "the target has gone")  # type: ignore[misc]
            assert other.cmd("SET", "k", "1") == b"+OK\r\n"
            if protocol == 3:
                broken = b">2\r\n$21\r\ntracking-redir-broken\r\n:%b\r\n"
                assert client.read_reply() == broken % number
            if not more.startswith("SUBSCRIBE"):
                assert client.cmd("CLIENT", "GETREDIR") == b":%b\r\n" % number
                info = client.cmd("CLIENT", "TRACKINGINFO")
                assert b"redirect\r\n:%b\r\n" % number in info
                assert b"broken_redirect" in info
            assert b" redir=%b " % number in other.cmd("CLIENT", "LIST", "ID", own)


def _redirected(wire: Wire) -> bool:
    """Whether the client is there to which another's tracking is redirected."""
    text = wire.cmd("CLIENT", "LIST")
    return any(b"id=%b " % i in text for i in re.findall(rb" redir=(\d+) ", text))


LINES = ["CLIENT TRACKING", "CLIENT TRACKING MAYBE", "CLIENT TRACKING ON", "CLIENT TRACKING OFF"]
LINES += ["CLIENT TRACKING ON PREFIX a", "CLIENT TRACKING ON OPTIN OPTOUT"]
LINES += ["CLIENT TRACKING ON REDIRECT 999999999", "CLIENT TRACKING ON REDIRECT x"]
LINES += ["CLIENT TRACKING ON BCAST PREFIX a PREFIX ab", "CLIENT CACHING YES"]
LINES += ["CLIENT CACHING MAYBE"]


@pytest.mark.parametrize("line", LINES)
def test_error_texts(pair: Pair, line: str) -> None:
    """The server's own words, in both protocols."""

    def script(session: Session) -> None:
        for protocol in (2, 3):
            client = session.open(protocol)
            client.run(line, "GET k", "CLIENT TRACKINGINFO")

    pair.same(script)


def test_reset_ends_tracking(pair: Pair) -> None:
    """After RESET no invalidation comes; others keep theirs."""

    def script(session: Session) -> None:
        client, keeper, other = session.open(3), session.open(3), session.open()
        client.run("CLIENT TRACKING ON", "GET k")
        keeper.run("CLIENT TRACKING ON", "GET k")
        client.run("RESET")
        other.run("SET k 1")
        client.drain()
        assert re.search(rb"invalidate", b"".join(keeper.drain()))

    pair.same(script)


@pytest.mark.parametrize("before", [("WATCH", "k"), ("CLIENT", "NO-EVICT", "ON")])
@pytest.mark.parametrize("how", ["subscribes", "sends a large request"])
def test_redirection_by_a_client_that_is_pinned_later(
    pair: Pair, before: tuple[str, ...], how: str
) -> None:
    """It names the other client by the number that one was told, however it got its own link."""
    prefixes = [word for n in range(10_000) for word in ("PREFIX", f"{n:05}-{'x' * 30}")]
    for port in (pair.direct.port, pair.sidecar.port):
        with Wire(port) as target, Wire(port) as client:
            number = int(target.call("CLIENT", "ID"))
            target.cmd("SUBSCRIBE", "__redis__:invalidate")
            client.cmd("HELLO", 3)
            assert client.cmd(*before) == b"+OK\r\n"
            if how == "subscribes":
                assert client.cmd("SUBSCRIBE", "news")[:1] == b">"
            else:
                assert client.cmd("CLIENT", "TRACKING", "ON", "BCAST", *prefixes) == b"+OK\r\n"
                assert client.cmd("CLIENT", "TRACKING", "OFF") == b"+OK\r\n"
            assert client.cmd("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
