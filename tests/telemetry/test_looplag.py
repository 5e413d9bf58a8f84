"""The lag of the event loop: the longest of the last window and of the one before."""

import asyncio
import time

import pytest

from sidecar.telemetry.looplag import WINDOW, LoopLag


def late(lag: LoopLag, by: float, now: float) -> None:
    lag.note(now - by, now)


def test_the_longest_is_kept_for_one_window_at_least_and_two_at_most() -> None:
    lag = LoopLag()
    start = time.monotonic()
    lag.begin(start)
    late(lag, 0.3, start + 1)
    late(lag, 0.1, start + 2)
    assert lag.longest() == pytest.approx(0.3)
    late(lag, 0.01, start + WINDOW + 1)
    assert lag.longest() == pytest.approx(0.3)
    late(lag, 0.02, start + 2 * WINDOW + 2)
    assert lag.longest() == pytest.approx(0.02)


def test_silence_longer_than_two_windows_forgets_all() -> None:
    lag = LoopLag()
    start = time.monotonic()
    lag.begin(start)
    late(lag, 0.3, start + 1)
    late(lag, 0.05, start + 10 * WINDOW)
    assert lag.longest() == pytest.approx(0.05)


def test_what_happens_before_clients_are_served_does_not_count() -> None:
    lag = LoopLag()
    start = time.monotonic()
    late(lag, 0.3, start)
    assert lag.longest() == 0
    lag.begin(start + 1)
    late(lag, 0.25, start + 1.125)
    assert lag.longest() == pytest.approx(0.125)


async def test_a_loop_that_is_kept_busy_is_late() -> None:
    lag = LoopLag()
    called = asyncio.Event()
    lag.also.append(lambda now: called.set())
    watching = asyncio.create_task(lag.watch())
    lag.begin(time.monotonic())
    await asyncio.sleep(0)
    busy = time.monotonic() + 0.3
    while time.monotonic() < busy:
        pass
    await called.wait()
    watching.cancel()
    assert 0.15 < lag.longest() < 5.0
