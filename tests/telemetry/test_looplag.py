"""The lag of the event loop: the longest of the last window and of the one before."""

import asyncio
import time

from sidecar.telemetry.looplag import WINDOW, LoopLag


def test_the_longest_is_kept_for_one_window_at_least_and_two_at_most() -> None:
    lag = LoopLag()
    start = time.monotonic()
    lag.note(0.3, start + 1)
    lag.note(0.1, start + 2)
    assert lag.longest() == 0.3
    lag.note(0.01, start + WINDOW + 1)
    assert lag.longest() == 0.3
    lag.note(0.02, start + 2 * WINDOW + 2)
    assert lag.longest() == 0.02


def test_silence_longer_than_two_windows_forgets_all() -> None:
    lag = LoopLag()
    start = time.monotonic()
    lag.note(0.3, start + 1)
    lag.note(0.05, start + 10 * WINDOW)
    assert lag.longest() == 0.05


async def test_a_loop_that_is_kept_busy_is_late() -> None:
    lag = LoopLag()
    called = asyncio.Event()
    lag.also.append(lambda now: called.set())
    watching = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    busy = time.monotonic() + 0.3
    while time.monotonic() < busy:
        pass
    await called.wait()
    watching.cancel()
    assert 0.15 < lag.longest() < 5.0
