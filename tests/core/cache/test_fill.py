"""What the near cache reads: how much room that takes, and how often one read asks."""

from __future__ import annotations

import pytest

from sidecar.core.cache.near_cache import NearCache
from tests.core.cache.scripted import MS, VALUE_MAX, Scripted
from tests.native.cached_clients import Client, Identity
from tests.native.cached_loopback import buffers_in_use
from tests.native.cached_shell import CachedShell
from tests.native.oracle import Terms
from tests.native.shell import request

BUDGET = 64 * 1024
SECOND = 1_000_000


def make(
    budget: int = BUDGET, *, ttl: float = 10.0, value_max: int = 16384
) -> tuple[CachedShell, NearCache, Client]:
    """A sidecar whose near cache takes every key, with one client."""
    cache = NearCache(
        1,
        mode="rules",
        budget=budget,
        value_max=value_max,
        staleness=5.0,
        ttl_max=ttl,
        ttl_missing=ttl,
    )
    cache.rule(b"")
    terms = Terms(
        5 * SECOND,
        ttl_max=int(ttl * SECOND),
        ttl_missing=int(ttl * SECOND),
        serves=True,
        never=lambda key: False,
        staleness_of=lambda key: None,
        ttl_of=lambda key: None,
    )
    who = Identity(b"ann", 0, 2)
    shell = CachedShell(cache, terms, [who])
    shell.tick(SECOND)
    client = shell.connect(who)
    shell.run()
    return shell, cache, client


def fill_server(shell: CachedShell, count: int, pad: int) -> list[bytes]:
    """So many keys at the server, whose values have `pad` bytes beside their number."""
    keys = [b"%d" % number for number in range(count)]
    for key in keys:
        shell.server.pads[key] = pad
        shell.server.outside.up += request(b"SET", key, b"v")
    shell.server.outside.take()
    return keys


def asked(shell: CachedShell, tracked: int) -> int:
    """Values that have been asked for on the tracked link, and lie at the server's door."""
    return shell.connections[tracked].up.count(b"PTTL")


@pytest.mark.parametrize("size", [8, 300])
def test_values_being_read_are_within_the_budget(size: int) -> None:
    """A tracked link that is slow: what waits on it is counted, and beyond the budget reads go past
    the cache."""
    shell, cache, _ = make()
    (tracked,) = shell.tracked
    clients = [shell.connect(shell.identities[0]) for _ in range(1000)]
    for number, client in enumerate(clients):
        shell.say(client, (b"GET", b"%0*d" % (size, number)))
        assert cache.snapshot()["bytes"] <= BUDGET
    waiting = asked(shell, tracked)
    assert BUDGET // (4 * size + 600) < waiting < 1000
    assert shell.core.tracked_pending(tracked) == waiting
    shell.drain()


def test_a_value_being_read_holds_no_buffer() -> None:
    shell, cache, _ = make(1 << 20)
    (tracked,) = shell.tracked
    before = buffers_in_use()
    count = 0
    while shell.core.load(tracked, request(b"GET", b"%d" % count)):
        count += 1
    assert count > 1000
    assert buffers_in_use() - before < 1 << 20
    assert cache.snapshot()["bytes"] <= 1 << 20


def test_values_make_room_for_what_is_read() -> None:
    shell, cache, client = make()
    for key in fill_server(shell, 200, 1000):
        shell.say(client, (b"GET", key))
        shell.run()
    found = cache.snapshot()
    assert found["stored"] == 200
    assert found["evicted"] > 100
    assert found["bytes"] <= BUDGET


def test_an_mget_larger_than_the_budget_ends() -> None:
    """Its values push each other out: they are asked for once more at most, then it passes."""
    shell, _, client = make()
    keys = fill_server(shell, 100, 4000)
    (tracked,) = shell.tracked
    shell.say(client, (b"MGET", *keys))
    total = 0
    for _ in range(1000):
        if client.answered == 1:
            break
        total += asked(shell, tracked)
        for link in list(shell.connections):
            shell.flush(link)
            shell.serve(link)
            shell.arrive(link)
    assert client.answered == 1
    assert total <= 2 * len(keys)


@pytest.mark.parametrize("command", [(b"GET", b"k"), (b"MGET", b"k", b"j")])
def test_a_value_that_lives_shorter_than_the_way_to_the_server(command: tuple[bytes, ...]) -> None:
    shell, cache, client = make(ttl=0.05)
    (tracked,) = shell.tracked
    shell.say(client, command)
    asks = 0
    for _ in range(10):
        if client.answered == 1:
            break
        asks += asked(shell, tracked)
        shell.serve(tracked)
        shell.tick(100_000)
        shell.arrive(tracked)
        shell.run([shell.identities[0].link])
    assert client.answered == 1
    assert asks <= 2 * (len(command) - 1)
    assert cache.snapshot()["misses"]["barred"] == 0


def test_waits_are_counted_for_each_read_anew() -> None:
    """A read that had to pass leaves nothing behind for the next."""
    shell, _, client = make(ttl=0.05)
    (tracked,) = shell.tracked
    shell.say(client, (b"GET", b"k"))
    while client.answered < 1:
        shell.serve(tracked)
        shell.tick(100_000)
        shell.arrive(tracked)
        shell.run([shell.identities[0].link])
    shell.say(client, (b"GET", b"j"))
    assert asked(shell, tracked) == 1
    shell.run([tracked])
    assert client.answered == 2


@pytest.mark.parametrize("wanted", ["by rule", "before", "afterwards"])
def test_a_read_under_way_bars_what_is_read_meanwhile(wanted: str) -> None:
    """A client's read passes, and tells of what was written after the value was read here. If its
    key is known before, or wanted by a rule, the read sets a barrier; else it is only counted."""
    s = Scripted("rules" if wanted == "by rule" else "hot")
    if wanted == "before":
        s.near.want(b"k", True)
    s.elsewhere(b"SET", b"k", b"v")
    s.ask(b"GET", b"k", by=s.enter(fresh=True))
    if wanted == "afterwards":
        s.near.want(b"k", True)
    s.ask(b"GET", b"k")
    s.execute(s.values, (b"PTTL", b"k"), (b"GET", b"k"))
    answer = len(s.connections[s.values].down)
    s.elsewhere(b"SET", b"k", b"v")
    s.run([s.link])
    s.arrive(s.values, answer)
    s.ask(b"GET", b"k", by=s.enter())
    assert s.served == 0
    s.run()
    assert s.client.answered == 1


def test_a_read_that_begins_bars_what_is_being_read() -> None:
    """The same, where the value was asked for first."""
    s = Scripted()
    s.elsewhere(b"SET", b"k", b"v")
    s.ask(b"GET", b"k")
    s.execute(s.values, (b"PTTL", b"k"), (b"GET", b"k"))
    answer = len(s.connections[s.values].down)
    s.elsewhere(b"SET", b"k", b"v")
    s.ask(b"GET", b"k", by=s.enter(fresh=True))
    s.run([s.link])
    s.arrive(s.values, answer)
    s.ask(b"GET", b"k", by=s.enter())
    assert s.served == 0
    s.run()
    assert s.client.answered == 1


def test_a_key_that_changes_between_its_ttl_and_its_value() -> None:
    """What is read then would be kept for longer than it lives; expiry is not announced."""
    s = Scripted()
    s.elsewhere(b"SET", b"k", b"v")
    s.ask(b"GET", b"k")
    s.execute(s.values, (b"PTTL", b"k"))
    s.elsewhere(b"SET", b"k", b"v", b"PX", b"30")
    s.run()
    assert s.client.answered == 1
    s.tick(30 * MS)
    assert not s.read(b"GET", b"k")


def test_a_value_lives_as_long_as_its_key() -> None:
    s = Scripted()
    s.elsewhere(b"SET", b"k", b"v", b"PX", b"30")
    s.read(b"GET", b"k")
    s.tick(30 * MS - 1)
    assert s.read(b"GET", b"k")
    s.tick(1)
    assert not s.read(b"GET", b"k")


def test_an_error_is_not_kept() -> None:
    s = Scripted()
    s.ask(b"GET", b"k")
    s.connections[s.values].up.clear()
    s.connections[s.values].say(b":-1\r\n-WRONGTYPE no\r\n")
    s.run()
    assert s.client.answered == 1
    assert s.near.snapshot()["misses"]["error"] == 1
    assert not s.read(b"GET", b"k")
    assert s.read(b"GET", b"k")


def test_a_value_that_is_too_large_is_not_kept() -> None:
    s = Scripted()
    s.server.pads[b"k"] = VALUE_MAX
    s.elsewhere(b"SET", b"k", b"v")
    for _ in range(3):
        assert not s.read(b"GET", b"k")
    assert s.stored == 0
