"""The load that failovers are tested with: its judge notices what it is there for."""

from __future__ import annotations

import pytest

from tests.harness.checker.outcomes import judge_counter, judge_list
from tests.harness.checker.records import Told
from tests.harness.failover import SERVED_DEADLINE, Load
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire


def test_a_load_without_faults(plain_server: Server) -> None:
    """Everybody is served, and nothing is wrong."""
    with Sidecar(plain_server.url) as sidecar, Load(sidecar.port) as load:
        load.until_served(50)
        load.stop()
        assert not load.errors
        assert load.acknowledged >= 250
        assert not load.judge(plain_server.port)


def test_what_is_lost_or_done_twice_is_seen(plain_server: Server) -> None:
    """The server's data is changed behind the clients' backs."""
    with Sidecar(plain_server.url) as sidecar, Load(sidecar.port) as load:
        load.until_served()
        load.stop()
    with Wire(plain_server.port) as wire:
        wire.cmd("LPOP", "load:list:0")
        assert load.judge(plain_server.port) == {"lost": 1}
        wire.cmd("LPUSH", "load:list:0", 1, 1)
        assert load.judge(plain_server.port) == {"twice": 1}
        wire.cmd("INCR", "load:count:0")
        assert load.judge(plain_server.port) == {"twice": 2}
        wire.cmd("DEL", "load:count:0", "load:list:0")
        assert load.judge(plain_server.port)["lost"] == len(load.lists[0].acknowledged) + 1


def test_errors_and_stale_reads_are_seen(plain_server: Server) -> None:
    """A counter that goes back while it is read; a key of the wrong type."""
    with Sidecar(plain_server.url) as sidecar, Load(sidecar.port) as load:
        load.until_served(100)
        with Wire(plain_server.port) as wire:
            wire.cmd("SET", "load:list:0", "x")

            def seen() -> bool:
                wire.cmd("SET", "load:count:0", 1)
                return bool(load.stale)

            wait_until(seen, "a stale read", SERVED_DEADLINE)
            wait_until(lambda: load.errors["WRONGTYPE"], "an error")


@pytest.mark.parametrize(
    ("told", "found", "wrong"),
    [
        ([(1, ""), (2, "")], [1, 2], {}),
        ([(1, ""), (2, "")], [2], {"lost": 1}),
        ([(1, ""), (2, "")], [2, 1], {"out of order": 1}),
        ([(1, ""), (2, "UNCERTAIN"), (3, "")], [1, 3], {}),
        ([(1, ""), (2, "UNCERTAIN"), (3, "")], [1, 2, 3], {}),
        ([(1, ""), (2, "UNCERTAIN"), (3, "")], [1, 2, 2, 3], {"twice": 1}),
        ([(1, ""), (2, "UNAVAILABLE"), (3, "")], [1, 2, 3], {"done though refused": 1}),
        ([(1, "")], [1, 7], {"unasked": 1}),
    ],
)
def test_lists(told: list[tuple[int, str]], found: list[int], wrong: dict[str, int]) -> None:
    """What the judge makes of a list."""
    assert judge_list(Told(told), found) == wrong


@pytest.mark.parametrize(
    ("told", "found", "wrong"),
    [
        ([(1, ""), (2, "")], 2, {}),
        ([(1, ""), (2, "")], 3, {"twice": 1}),
        ([(1, ""), (0, "UNCERTAIN"), (3, "")], 3, {}),
        ([(1, ""), (0, "UNCERTAIN"), (2, "")], 2, {}),
        ([(1, ""), (0, "UNAVAILABLE"), (3, "")], 3, {"twice": 2}),
        ([(1, ""), (1, "")], 1, {"lost": 1}),
        ([(1, ""), (2, "")], 1, {"lost": 1}),
    ],
)
def test_counters(told: list[tuple[int, str]], found: int, wrong: dict[str, int]) -> None:
    """What the judge makes of a counter."""
    assert judge_counter(Told(told), found) == wrong
