"""The control channel: calls both ways, deadlines, an end that goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from sidecar.app.channel import CallError, Channel, SilentError

Ends = tuple[Channel, Channel, list[str]]


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    """Both ends, and which of them was told that the other is gone."""
    ours, theirs = socket.socketpair()
    lost: list[str] = []
    one = await Channel.on(ours, lambda: lost.append("one"))
    other = await Channel.on(theirs, lambda: lost.append("other"))
    yield one, other, lost
    one.close()
    other.close()


async def echo(content: msgspec.Raw) -> object:
    return msgspec.msgpack.decode(content)


async def test_both_call(ends: Ends) -> None:
    one, other, _ = ends
    other.answer("echo", echo)
    one.answer("echo", echo)
    assert await one.call("echo", {"a": [1, b"2"]}, within=5, type=dict) == {"a": [1, b"2"]}
    assert await other.call("echo", "x" * 3_000_000, within=5, type=str) == "x" * 3_000_000


async def test_many_at_once_each_get_their_own(ends: Ends) -> None:
    one, other, _ = ends

    async def slowly(content: msgspec.Raw) -> object:
        number = msgspec.msgpack.decode(content, type=int)
        await asyncio.sleep((10 - number) / 1000)
        return number

    other.answer("slowly", slowly)
    said = await asyncio.gather(*(one.call("slowly", n, within=5, type=int) for n in range(10)))
    assert said == list(range(10))


async def test_a_refusal(ends: Ends) -> None:
    one, other, _ = ends

    async def refuse(content: msgspec.Raw) -> object:
        raise CallError("no")

    async def fail(content: msgspec.Raw) -> object:
        raise ValueError("a bug")

    other.answer("refuse", refuse)
    other.answer("fail", fail)
    with pytest.raises(CallError, match=r"^no$"):
        await one.call("refuse", within=5)
    with pytest.raises(CallError, match="a bug"):
        await one.call("fail", within=5)


async def test_no_answer_in_time(ends: Ends) -> None:
    """And one that comes later disturbs nobody."""
    one, other, _ = ends
    go = asyncio.Event()

    async def wait(content: msgspec.Raw) -> object:
        await go.wait()
        return "late"

    other.answer("wait", wait)
    other.answer("echo", echo)
    with pytest.raises(SilentError):
        await one.call("wait", within=0.01)
    go.set()
    assert await one.call("echo", 1, within=5, type=int) == 1


async def test_the_other_end_goes(ends: Ends) -> None:
    one, other, lost = ends

    async def never(content: msgspec.Raw) -> object:
        await asyncio.Event().wait()
        return None

    other.answer("never", never)
    asked = asyncio.ensure_future(one.call("never", within=5))
    await asyncio.sleep(0)
    other.close()
    with pytest.raises(SilentError, match="gone"):
        await asked
    assert lost == ["one"]  # who closes it is not told
    with pytest.raises(SilentError):
        await one.call("echo", within=5)


async def test_a_message_that_is_too_long_ends_it() -> None:
    ours, theirs = socket.socketpair()
    gone = asyncio.Event()
    channel = await Channel.on(ours, gone.set)
    theirs.sendall(b"\xff\xff\xff\xff")
    async with asyncio.timeout(5):
        await gone.wait()
    channel.close()
    theirs.close()


async def test_an_end_that_finishes_answers_first(ends: Ends) -> None:
    """All that it has been asked, and all of each answer."""
    one, other, lost = ends
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(content: msgspec.Raw) -> object:
        asked.set()
        await go_on.wait()
        return "x" * 3_000_000

    other.answer("slowly", slowly)
    call = asyncio.create_task(one.call("slowly", within=10, type=str))
    await asked.wait()
    finishing = asyncio.create_task(other.finish(10))
    await asyncio.sleep(0)
    go_on.set()
    assert len(await call) == 3_000_000
    await finishing
    with pytest.raises(SilentError):
        await one.call("slowly", within=10)
    await asyncio.sleep(0)  # the end is told in the next turn of the loop
    assert lost == ["one"]


async def test_an_end_that_finishes_does_not_wait_for_ever(ends: Ends) -> None:
    one, other, _ = ends
    asked = asyncio.Event()

    async def never(content: msgspec.Raw) -> object:
        asked.set()
        await asyncio.Event().wait()
        return None

    other.answer("never", never)
    call = asyncio.create_task(one.call("never", within=10))
    await asked.wait()
    await other.finish(0.01)
    with pytest.raises(SilentError):
        await call
