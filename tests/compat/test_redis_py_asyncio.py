"""redis-py's asyncio client through the sidecar, in both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError, WatchError

from tests.harness.pair import Pair


@pytest_asyncio.fixture(params=[2, 3], ids=["resp2", "resp3"])
async def client(request: pytest.FixtureRequest, pair: Pair) -> AsyncIterator[redis.Redis]:
    """A client of the sidecar."""
    client = redis.Redis(
        port=pair.sidecar.port,
        protocol=request.param,
        socket_timeout=5,
        max_connections=600,
        retry=Retry(NoBackoff(), 0),
    )
    yield client
    await client.aclose()


async def test_values_and_errors(client: redis.Redis) -> None:
    """Ordinary commands, and an error that leaves the connection usable."""
    assert await client.set("k", "v")
    assert await client.get("k") == b"v"
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await client.lpush("k", 1)
    assert await client.hset("h", mapping={"a": 1}) == 1
    assert await client.hgetall("h") == {b"a": b"1"}
    assert await client.blpop(["nothing"], timeout=0.05) is None


async def test_many_at_once(client: redis.Redis) -> None:
    """500 coroutines on as many connections as they need, each with its own answer."""

    async def work(number: int) -> bytes:
        await client.set(f"k{number}", number)
        assert await client.incr(f"k{number}") == number + 1
        return await client.get(f"k{number}")

    results = await asyncio.gather(*(work(number) for number in range(500)))
    assert results == [b"%d" % (number + 1) for number in range(500)]


async def test_pipeline_and_watch(client: redis.Redis) -> None:
    """Pipelines, transactions, conflicts."""
    async with client.pipeline(transaction=False) as pipe:
        for _ in range(200):
            pipe.incr("n").get("n")
        result = await pipe.execute()
    assert result[-1] == b"200"
    async with client.pipeline() as pipe:
        await pipe.watch("n")
        await client.set("n", 1)
        pipe.multi()
        pipe.set("n", 2)
        with pytest.raises(WatchError):
            await pipe.execute()
    assert await client.get("n") == b"1"


async def test_pubsub(client: redis.Redis) -> None:
    """A reader task gets what is published, in order."""
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("c")
        await pubsub.psubscribe("p*")
        for number in range(100):
            await client.publish("c" if number % 2 else "px", number)
        data = []
        while len(data) < 100:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            if message:
                data.append(int(message["data"]))
        assert data == list(range(100))


async def test_lock_and_scan(client: redis.Redis) -> None:
    """The lock recipe, and scan_iter."""
    async with client.lock("lock", timeout=5):
        other = client.lock("lock", blocking=False)
        assert await other.acquire() is False
    await asyncio.gather(*(client.set(f"k{n}", 1) for n in range(100)))
    found = {key async for key in client.scan_iter("k*")}
    assert found == {b"k%d" % n for n in range(100)}


async def test_cancelled_commands(client: redis.Redis) -> None:
    """Cancelled requests do not shift the replies of those that follow."""
    for number in range(12):
        task = asyncio.create_task(client.blpop(["nothing"], timeout=0.2))
        await asyncio.wait([task], timeout=0.001 * (number % 4))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await client.echo(f"x{number}") == b"x%d" % number


def _entries(reply: dict | list) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of XREADGROUP's only stream; RESP3 gives a map and nests them once more."""
    if isinstance(reply, dict):
        return [entry for batches in reply.values() for batch in batches for entry in batch]
    return [entry for _, entries in reply for entry in entries]


async def test_stream_consumer_group(client: redis.Redis) -> None:
    """Producers and blocking consumers of a group share the work without loss."""
    await client.xgroup_create("x", "g", mkstream=True)
    seen: list[bytes] = []

    async def consume(name: str) -> None:
        while len(seen) < 100:
            reply = await client.xreadgroup("g", name, {"x": ">"}, count=5, block=100)
            for entry, fields in _entries(reply):
                seen.append(fields[b"n"])
                await client.xack("x", "g", entry)

    consumers = [asyncio.create_task(consume(f"c{n}")) for n in range(3)]
    for number in range(100):
        await client.xadd("x", {"n": number})
    await asyncio.wait_for(asyncio.gather(*consumers), 5)
    assert sorted(seen, key=int) == [b"%d" % n for n in range(100)]
    assert (await client.xpending("x", "g"))["pending"] == 0
