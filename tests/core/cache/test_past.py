"""What commands that pass the near cache do to it, as transcripts."""

from __future__ import annotations

import pytest

from tests.core.cache.scripted import Scripted


def test_an_own_command_drops_its_key_when_it_is_queued() -> None:
    s = Scripted()
    s.reads(b"k", b"j")
    s.ask(b"SET", b"k", b"v", by=s.enter())
    assert not s.read(b"GET", b"k")
    assert s.read(b"GET", b"j")


def test_an_own_command_drops_all_of_its_keys() -> None:
    s = Scripted()
    s.reads(b"a", b"b", b"c", b"d")
    s.ask(b"MSET", b"a", b"v", b"b", b"v", b"c", b"v", by=s.enter())
    assert [s.read(b"GET", key) for key in (b"a", b"b", b"c", b"d")] == [False] * 3 + [True]


@pytest.mark.parametrize("command", [(b"FLUSHALL",), (b"FLUSHDB",), (b"SWAPDB", b"0", b"1")])
def test_a_command_that_means_all_keys(command: tuple[bytes, ...]) -> None:
    """While it is under way nothing is served from here; when it is over, nothing of before. What
    comes on the tracked link, if anything does, comes late."""
    s = Scripted()
    s.elsewhere(b"SET", b"k", b"v")
    s.reads(b"k")
    s.ask(*command, by=s.enter())
    s.ask(b"GET", b"k")
    assert s.served == 0
    s.run([s.link])
    s.ask(b"GET", b"k")
    assert s.served == 0
    s.run()
    assert s.client.answered == len(s.client.due)


def test_a_flush_that_is_refused_drops_nothing() -> None:
    s = Scripted()
    s.reads(b"k")
    s.ask(b"FLUSHALL", by=s.enter())
    s.flush(s.link)
    s.connections[s.link].up.clear()
    s.connections[s.link].say(b"-NOPERM no\r\n")
    s.arrive(s.link)
    assert s.read(b"GET", b"k")


def test_permissions_that_change() -> None:
    """ACL is not announced: bob may not read any more, and is not served what he read before."""
    s = Scripted()
    bob = s.enter(b"bob")
    s.read(b"GET", b"k", by=bob)
    assert s.read(b"GET", b"k", by=bob)
    s.ask(b"ACL", b"SETUSER", b"bob")
    s.run([s.link])
    before = s.served
    s.read(b"GET", b"k", by=bob)
    assert s.served == before


def test_a_script_tells_when_it_is_answered() -> None:
    """Whoever asks after its reply sees what it did, though nobody knows which keys it wrote."""
    s = Scripted()
    s.reads(b"k")
    s.ask(b"EVAL", b"k", b"0", by=s.enter())
    s.run([s.link])
    s.ask(b"GET", b"k")
    assert s.served == 0
    s.run()
    assert s.client.answered == len(s.client.due)


def test_what_a_transaction_bars_stays_barred_until_exec() -> None:
    """Its SET is queued at the server, and EXEC is not there yet: a value read now would be old."""
    s = Scripted("hot")
    s.near.want(b"k", True)
    writer = s.enter()
    s.say(writer, (b"MULTI",), (b"SET", b"k", b"v"), (b"EXEC",))
    s.execute(s.link, (b"MULTI",), (b"SET", b"k", b"v"))
    s.arrive(s.link)
    s.ask(b"GET", b"k")
    s.run([s.values])
    s.run([s.link])
    s.ask(b"GET", b"k")
    assert s.served == 0
    s.run()
    assert s.client.answered == len(s.client.due)


def test_a_request_that_comes_in_pieces_drops_its_key() -> None:
    """It is larger than what is kept of a request, and is passed on as it comes."""
    s = Scripted()
    s.reads(b"k")
    writer = s.enter()
    s.ask(b"SET", b"k", b"v" * 5000, by=writer)
    own = s.core.link_of(writer.session)
    assert own is not None
    s.run([own])
    assert writer.answered == 1
    assert not s.read(b"GET", b"k")
