"""Publish/subscribe in both protocols, with everything that may stand around it."""

from __future__ import annotations

import pytest

from tests.harness.pair import Pair, Session, masked, pipeline
from tests.harness.process import wait_until
from tests.harness.wire import pack

FAMILIES = {
    "SUBSCRIBE": ("UNSUBSCRIBE", "PUBLISH"),
    "PSUBSCRIBE": ("PUNSUBSCRIBE", "PUBLISH"),
    "SSUBSCRIBE": ("SUNSUBSCRIBE", "SPUBLISH"),
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(pair: Pair, family: str, protocol: int) -> None:
    """Subscribe to several, receive, unsubscribe one, then all, then go on as before."""
    leave, publish = FAMILIES[family]

    def script(session: Session) -> None:
        client, other = session.open(protocol), session.open()
        client.send_command(family, "a", "b", "c")
        client.read(3)
        for channel in ("a", "b", "nobody"):
            other.cmd(publish, channel, f"to {channel}")
        client.read(2)
        client.send_command(leave, "a")
        client.read()
        other.cmd(publish, "a", "lost")
        other.cmd(publish, "b", "found")
        client.read()
        client.send_command(leave)
        client.read(2, mask=masked(rb"\r\n[bc]\r\n"))  # the order follows the server's hash seed
        other.cmd(publish, "b", "lost")
        client.run("GET k", "SET k v", "ECHO x")
        client.send_command(leave)
        client.read()
        client.send_command(leave, "never", "had")
        client.read(2)
        client.run("GET k")

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_is_allowed_while_subscribed(pair: Pair, protocol: int) -> None:
    """RESP2 answers PING in its own form and refuses the rest; RESP3 allows everything."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.run("SET k v", "SUBSCRIBE c", "PING", "PING hello", "PING a b", "GET k")
        client.run("NOSUCH", "GET", "ECHO x", "MULTI", "DISCARD")
        client.drain()
        client.run("PSUBSCRIBE p*", "SUBSCRIBE", "SELECT 1", "CLIENT ID x", "HELLO 9")
        client.drain()

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
def test_one_write(pair: Pair, protocol: int) -> None:
    """Commands before, between and behind the subscriptions, all in one write."""

    def script(session: Session) -> None:
        client, other = session.open(protocol), session.open()
        lines = ["SET k 1", "INCR k", "SUBSCRIBE a b", "PING x", "UNSUBSCRIBE a b", "INCR k"]
        lines += ["PSUBSCRIBE p*", "PUNSUBSCRIBE", "GET k", "SUBSCRIBE c"]
        client.send(pipeline(lines))
        client.drain()
        other.cmd("PUBLISH", "c", "last")
        client.read()

    pair.same(script)


def test_both_a_channel_and_its_pattern(pair: Pair) -> None:
    """A message that matches several subscriptions comes as often."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.send(pipeline(["SUBSCRIBE news.a", "PSUBSCRIBE news.*", "PSUBSCRIBE *a"]))
        client.read(3)
        other.cmd("PUBLISH", "news.a", b"\x00\r\n*1\r\n\xff")
        client.read()
        client.read(2, mask=masked(rb"\r\n\$\d\r\n(\*a|news\.\*)"))  # so does this one
        client.send_command("UNSUBSCRIBE")
        client.read()
        other.cmd("PUBLISH", "news.a", "second")
        client.read(2, mask=masked(rb"\r\n\$\d\r\n(\*a|news\.\*)"))
        other.run("PUBSUB CHANNELS", "PUBSUB NUMPAT", "PUBSUB NUMSUB news.a x")

    pair.same(script)


def test_publish_to_oneself_in_resp3(pair: Pair) -> None:
    """A RESP3 client publishes on the connection it is subscribed with."""

    def script(session: Session) -> None:
        client = session.open(3)
        client.cmd("SUBSCRIBE", "c")
        client.send_command("PUBLISH", "c", "me")
        client.drain()
        client.send(pipeline(["GET k", "PUBLISH c 1", "MULTI", "PUBLISH c 2", "EXEC", "GET k"]))
        client.drain()

    pair.same(script)


@pytest.mark.parametrize("how", ["RESET", "QUIT", "close"])
def test_leaving_while_subscribed(pair: Pair, how: str) -> None:
    """Every way of going ends the subscription on the server."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.send_command("SUBSCRIBE", "c", "d")
        client.read(2)
        other.run("PUBSUB NUMSUB c d")
        if how == "close":
            client.wire.reset()
        else:
            client.run(how)
        if how == "RESET":
            client.run("PING", "GET k", "ECHO back")
        if how == "QUIT":
            client.to_end()
        wait_until(lambda: session.observe("PUBSUB", "CHANNELS") == b"*0\r\n", "no subscription")
        other.run("PUBLISH c x")

    pair.same(script)


def test_many_messages_in_order(pair: Pair) -> None:
    """10,000 messages from two publishers arrive whole and in each one's order."""

    def script(session: Session) -> None:
        client, one, two = session.open(), session.open(), session.open()
        client.cmd("SUBSCRIBE", "c")
        for start in range(0, 5000, 500):
            for name, publisher in (("one", one), ("two", two)):
                numbers = range(start, start + 500)
                publisher.send(b"".join(pack("PUBLISH", "c", f"{name}-{n}") for n in numbers))
            one.read(500)
            two.read(500)
            messages = [client.wire.read_reply() for _ in range(1000)]
            for name in (b"one", b"two"):
                mine = [message for message in messages if b"\r\n" + name + b"-" in message]
                session.log.append(("a", "got", b"".join(mine)))

    pair.same(script)


def test_subscribers_do_not_disturb_others(pair: Pair) -> None:
    """Messages never land in the replies of clients who did not subscribe."""

    def script(session: Session) -> None:
        listeners = [session.open(2 + number % 2) for number in range(4)]
        workers = [session.open(2 + number % 2) for number in range(4)]
        for listener in listeners:
            listener.cmd("SUBSCRIBE", "c")
        for round_number in range(50):
            for number, worker in enumerate(workers):
                worker.send(pack("PUBLISH", "c", f"{round_number}") + pack("ECHO", f"w{number}"))
            for worker in workers:
                worker.read(2)
        for listener in listeners:
            listener.wire.read_replies(199)
            listener.wire.read_reply()
            listener.wire.expect_silence()

    pair.same(script)


def test_keyspace_notifications(pair: Pair) -> None:
    """Notifications are ordinary messages."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        other.run("CONFIG SET notify-keyspace-events KEA")
        client.cmd("PSUBSCRIBE", "__key*__:*")
        other.run("SET k v", "DEL k")
        client.read(4)
        other.cmd("CONFIG", "SET", "notify-keyspace-events", "")

    pair.same(script)
