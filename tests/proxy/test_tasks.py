"""Tasks end with their data plane; the ticker calls in order."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from sidecar.proxy.tasks import Tasks, Ticker, for_each, stop_task


async def test_all_end_at_the_end() -> None:
    tasks = Tasks()
    endless = [tasks.spawn(asyncio.Event().wait()) for _ in range(3)]  # type: ignore[arg-type]
    assert not tasks.closing
    await tasks.close()
    assert tasks.closing
    assert all(task.cancelled() for task in endless)


async def test_an_error_is_logged_and_ends_nothing_else() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError("wrong")

    with capture_logs() as logged:
        other = tasks.spawn(asyncio.Event().wait())  # type: ignore[arg-type]
        failed = tasks.spawn(fail())
        await asyncio.wait({failed})
        await asyncio.sleep(0)
    assert [entry["error"] for entry in logged] == ["ValueError('wrong')"]
    assert not other.done()
    await tasks.close()


async def test_the_ticker_keeps_the_order() -> None:
    """What has been added while it runs is called, too, after the others; all with one time."""
    tasks, ticker = Tasks(), Ticker()
    called: list[tuple[str, float]] = []
    done = asyncio.Event()

    def first(now: float) -> None:
        called.append(("first", now))
        if len(called) == 1:
            ticker.add(third)

    def third(now: float) -> None:
        called.append(("third", now))
        done.set()

    ticker.add(first)
    ticker.add(lambda now: called.append(("second", now)))
    tasks.spawn(ticker.run(tasks))
    await asyncio.wait_for(done.wait(), 5)
    await tasks.close()
    assert [name for name, _ in called[:3]] == ["first", "second", "third"]
    assert len({now for _, now in called[:3]}) == 1


async def test_a_task_may_stop_itself() -> None:
    """Then it is over by itself, and not cancelled in the middle."""
    reached: list[str] = []

    async def ends_itself() -> None:
        stop_task(asyncio.current_task())
        await asyncio.sleep(0)
        reached.append("the end")

    await asyncio.create_task(ends_itself())
    other = asyncio.create_task(asyncio.sleep(60))
    stop_task(other)  # type: ignore[arg-type]
    stop_task(None)
    with pytest.raises(asyncio.CancelledError):
        await other
    assert reached == ["the end"]


def test_each_is_seen_to_whatever_one_does() -> None:
    """A member may fail, or change the set that is gone through."""
    members = {1, 2, 3}
    seen: list[int] = []

    def see(member: int) -> None:
        seen.append(member)
        members.discard(member)
        raise ValueError(member)

    with capture_logs() as logged:
        for_each(members, see)
    assert sorted(seen) == [1, 2, 3]
    assert len(logged) == 3
    assert not members


async def test_a_failing_call_does_not_stop_the_ticker() -> None:
    tasks, ticker = Tasks(), Ticker()
    ticks = 0
    done = asyncio.Event()

    def fail(now: float) -> None:
        raise ValueError(now)

    def count(now: float) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            done.set()

    ticker.add(fail)
    ticker.add(count)
    with capture_logs() as logged:
        tasks.spawn(ticker.run(tasks))
        await asyncio.wait_for(done.wait(), 5)
        await tasks.close()
    assert len(logged) >= 3
