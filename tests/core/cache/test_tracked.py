"""What the tracked link tells the near cache, and in which order, as transcripts."""

from __future__ import annotations

import pytest

from tests.core.cache.scripted import MS, PROVED, STALENESS, Scripted
from tests.native.loopback import LinkError


def test_a_push_drops_its_key() -> None:
    s = Scripted()
    s.reads(b"k", b"j")
    s.elsewhere(b"SET", b"k", b"v")
    s.run([s.values])
    assert not s.read(b"GET", b"k")
    assert s.read(b"GET", b"j")


def test_a_push_drops_its_key_in_every_space() -> None:
    s = Scripted()
    others = [s.enter(b"bob"), s.enter(db=1)]
    s.reads(b"k")
    for client in others:
        s.read(b"GET", b"k", by=client)
        assert s.read(b"GET", b"k", by=client)
    s.elsewhere(b"SET", b"k", b"v")
    s.run([s.values])
    assert not any(s.read(b"GET", b"k", by=client) for client in others)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_push_of_several_keys(size: int) -> None:
    s = Scripted()
    s.reads(b"a", b"b", b"c")
    push = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nc\r\n"
    for at in range(0, len(push), size):
        s.core.tracked_receive(s.values, push[at : at + size])
    assert [s.read(b"GET", key) for key in (b"a", b"b", b"c")] == [False, True, False]


def test_a_push_of_nothing_drops_everything() -> None:
    s = Scripted()
    s.reads(b"a", b"b")
    s.elsewhere(b"FLUSHALL")
    s.run([s.values])
    assert not s.read(b"GET", b"a")
    assert not s.read(b"GET", b"b")


def test_values_go_with_their_connection() -> None:
    """The key changes while nobody is told of it; a new connection is there soon."""
    s = Scripted()
    s.reads(b"k")
    s.untrack(s.values)
    s.elsewhere(b"SET", b"k", b"v")
    assert not s.read(b"GET", b"k")
    s.values = s.track(s.client.identity.space, b"ann", 0)  # type: ignore[union-attr]
    s.run()
    assert not s.read(b"GET", b"k")
    assert s.read(b"GET", b"k")


def test_a_proof_counts_from_when_it_was_asked_for() -> None:
    """Its answer is on its way for most of the lease, and behind it is news of the key."""
    s = Scripted()
    s.reads(b"k")
    s.beat()
    s.execute(s.values, (b"PING",))
    s.elsewhere(b"SET", b"k", b"v")
    s.tick(STALENESS - MS)
    s.arrive(s.values, PROVED)
    s.ask(b"GET", b"k")
    assert s.served == 1
    s.tick(MS)
    s.ask(b"GET", b"k")
    s.run([s.link])
    assert s.served == 1
    assert s.client.answered == len(s.client.due)


def test_what_a_message_told_a_read_shows() -> None:
    """A subscriber has heard of the change; its invalidation is still on its way. Reads wait for an
    answer to what was asked for after the message, not for any answer."""
    s = Scripted()
    s.reads(b"k")
    listener = s.enter(proto=3)
    s.ask(b"SUBSCRIBE", b"c", by=listener)
    s.run()
    s.beat()
    s.execute(s.values, (b"PING",))
    s.elsewhere(b"SET", b"k", b"v")
    s.server.publish()
    own = s.core.link_of(listener.session)
    assert own is not None
    s.arrive(own)
    s.ask(b"GET", b"k")
    assert s.served == 0
    s.arrive(s.values, PROVED)
    assert s.served == 0
    s.run()
    assert s.client.answered == len(s.client.due)


def test_an_answer_that_nobody_asked_for_ends_the_link() -> None:
    s = Scripted()
    with pytest.raises(LinkError):
        s.core.tracked_receive(s.values, b"+OK\r\n")
