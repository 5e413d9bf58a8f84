"""Who is served what from the near cache: the contract of sidecar/core/cache/serve.pxd, as
transcripts."""

from __future__ import annotations

import pytest

from tests.core.cache.scripted import MS, SHORT, STALENESS, Scripted


def test_what_was_read_once_is_here() -> None:
    s = Scripted()
    assert not s.read(b"GET", b"k")
    assert s.read(b"GET", b"k")
    assert s.stored == 1


@pytest.mark.parametrize(("key", "bound"), [(b"k", STALENESS), (b"short:k", SHORT)])
def test_a_lease_ends_unless_it_is_proved(key: bytes, bound: int) -> None:
    """Nothing arrives on the tracked link, and the key has changed elsewhere."""
    s = Scripted()
    s.reads(key)
    s.elsewhere(b"SET", key, b"v")
    s.tick(bound - 1)
    s.ask(b"GET", key)
    assert s.served == 1
    s.tick(1)
    s.ask(b"GET", key)
    s.run([s.link])
    assert s.served == 1


def test_a_lease_goes_on_with_a_proof() -> None:
    s = Scripted()
    s.reads(b"k")
    for _ in range(3):
        s.tick(STALENESS - MS)
        s.beat()
        s.run([s.values])
    assert s.read(b"GET", b"k")


@pytest.mark.parametrize(("user", "db"), [(b"bob", 0), (b"ann", 1)])
def test_another_user_or_database_is_served_nothing(user: bytes, db: int) -> None:
    s = Scripted()
    s.reads(b"k")
    other = s.enter(user, db)
    assert not s.read(b"GET", b"k", by=other)
    assert s.read(b"GET", b"k", by=other)
    assert s.stored == 2


@pytest.mark.parametrize(
    "command", [(b"SMEMBERS", b"k"), (b"ZSCORE", b"k", b"m"), (b"HGETALL", b"k")]
)
def test_each_protocol_has_its_form(command: tuple[bytes, ...]) -> None:
    """The judge compares each reply with the server's."""
    s = Scripted()
    s.elsewhere(b"SET", b"k", b"v")
    three = s.enter(proto=3)
    s.read(*command, by=three)
    assert s.read(*command, by=three)
    assert s.read(*command)
    assert s.stored == 1


def test_a_client_named_fresh_asks_the_server() -> None:
    s = Scripted()
    s.reads(b"k")
    assert not s.read(b"GET", b"k", by=s.enter(fresh=True))


def test_a_key_that_is_never_cached() -> None:
    s = Scripted()
    for _ in range(3):
        assert not s.read(b"GET", b"never:k")
    assert s.stored == 0


def test_one_reading_serves_all_who_wait() -> None:
    s = Scripted()
    others = [s.enter() for _ in range(5)]
    for client in others:
        s.ask(b"GET", b"k", by=client)
    assert s.core.tracked_pending(s.values) == 1
    s.run([s.values])
    assert all(client.answered == 1 for client in others)


def test_reads_behind_a_script_pass() -> None:
    """What it does is not known before it is answered; its own client is to see it."""
    s = Scripted()
    s.reads(b"k")
    s.say(s.client, (b"EVAL", b"k", b"0"), (b"GET", b"k"))
    assert s.served == 0
    s.run([s.link])
    assert s.client.answered == len(s.client.due)
