"""Those who come and go, and those who mean no good: short connections, half requests, garbage,
what is denied.

None of them waits for much. What must not happen: that one gets anything but an error for garbage,
or that the sidecar keeps something of it when it has gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from bench.soak.client import Door, Ledger

STAY = 0.02, 1.5
"""Seconds that a silent guest stays."""
ANSWER = 10.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GARBAGE = (
    b"*1\r\n$-5\r\nx",
    b"*3\r\n$3\r\nSET\r\n$99999999999\r\n",
    b"*2147483648\r\n",
    b"*1\r\n:3\r\n",
    b"GET / HTTP/1.1\r\nHost: sidecar\r\n\r\n",
    b"\x00\xff\x16\x03\x01\x02\x00\x01\x00\r\n",
    b'set "unbalanced\r\n',
    b"A" * 70_000,
)


async def _connect(door: Door) -> Streams:
    if isinstance(door.where, str):
        return await asyncio.open_unix_connection(door.where, ssl=door.tls)
    name = "localhost" if door.tls else None
    return await asyncio.open_connection(
        "127.0.0.1", door.where, ssl=door.tls, server_hostname=name
    )


async def _once(streams: Streams, chance: random.Random) -> None:
    """Asks once, and goes in good order."""
    streams[1].write(b"PING\r\n")
    if await streams[0].readline() not in (b"+PONG\r\n", b""):
        raise AssertionError("PING was not answered with PONG")
    if chance.random() < 0.5:
        streams[1].write(b"QUIT\r\n")
        await streams[0].read()


async def _silent(streams: Streams, chance: random.Random) -> None:
    """Says nothing."""
    await asyncio.sleep(chance.uniform(*STAY))


async def _half(streams: Streams, chance: random.Random) -> None:
    """Half a request; the rest never comes."""
    whole = b"*3\r\n$3\r\nSET\r\n$5\r\nguest\r\n$1000000\r\n" + b"x" * 200_000
    streams[1].write(whole[: chance.choice((1, 7, 30, 60, len(whole)))])
    await asyncio.sleep(chance.uniform(*STAY))


async def _rude(streams: Streams, chance: random.Random) -> None:
    """Asks for much and goes without reading."""
    streams[1].write(b"GET large:0\r\nLRANGE queue:0 0 -1\r\n" * 5)
    await asyncio.sleep(chance.uniform(0, 0.05))


async def _waiting(streams: Streams, chance: random.Random) -> None:
    """Waits on the server, in a transaction, or for messages; and goes."""
    begun = (b"BLPOP nobody 0\r\n", b"MULTI\r\nINCR guest\r\n", b"SUBSCRIBE nobody\r\n")
    streams[1].write(chance.choice(begun))
    await asyncio.sleep(chance.uniform(*STAY))


async def _garbage(streams: Streams, chance: random.Random) -> None:
    """Gets an error, and nothing else."""
    streams[1].write(chance.choice(GARBAGE))
    streams[1].write_eof() if streams[1].can_write_eof() else None
    answer = await streams[0].read(4096)
    if answer and not answer.startswith(b"-"):
        raise AssertionError(f"garbage was answered with {answer!r:.60}")


async def _trespassing(streams: Streams, chance: random.Random) -> None:
    """Asks for what the policy denies, and gets refusals in their turn."""
    denied = [b"SET forbidden:x 1\r\n", b"DEBUG SLEEP 0\r\n", b"GET forbidden:y\r\n"]
    chance.shuffle(denied)
    streams[1].write(b"".join(denied) + b"PING\r\n")
    for request in denied:
        answer = await streams[0].readline()
        if answer and not answer.startswith(b"-NOPERM "):
            raise AssertionError(f"{request!r} was answered with {answer!r:.60}")
    await streams[0].readline()


Guest = Callable[[Streams, random.Random], Awaitable[None]]
GUESTS: Sequence[Guest] = (
    *(_once, _once, _silent, _half, _rude),
    *(_waiting, _garbage, _trespassing),
)


async def _wrong_door(door: Door, chance: random.Random) -> None:
    """Speaks plain where TLS is due, or stops within the handshake."""
    _, writer = await asyncio.open_connection("127.0.0.1", door.where)
    writer.write(chance.choice((b"PING\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"")))
    await asyncio.sleep(chance.uniform(*STAY))
    writer.transport.abort()


async def visit(doors: Sequence[Door], ledger: Ledger, chance: random.Random) -> None:
    """One guest, from its coming to its going."""
    door, guest = chance.choice(doors), chance.choice(GUESTS)
    with suppress(OSError, TimeoutError):
        if door.tls and chance.random() < 0.3:
            await _wrong_door(door, chance)
            return
        streams = await _connect(door)
        try:
            async with asyncio.timeout(ANSWER):
                await guest(streams, chance)
        except AssertionError as error:
            ledger.note_wrong(f"guest at {door.name}: {error}")
        finally:
            streams[1].transport.abort()
    ledger.done["guest"] += 1


async def come_and_go(
    doors: Sequence[Door], ledger: Ledger, seed: int, think: float, ending: asyncio.Event
) -> None:
    """One after the other, until the end."""
    chance = random.Random(seed)
    while not ending.is_set():
        await visit(doors, ledger, chance)
        await asyncio.sleep(chance.uniform(0, 2 * think))


async def look_on(admin: str, ledger: Ledger, seed: int, ending: asyncio.Event) -> None:
    """An operator: reads metrics and answers, and keeps the live stream open for a while."""
    chance = random.Random(seed)
    host, port = admin.split(":")
    while not ending.is_set():
        path = chance.choice(("/metrics", "/api/hotkeys", "/api/health/redis", "/api/events"))
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n".encode())
            try:
                async with asyncio.timeout(chance.uniform(0.5, 4)):
                    status = await reader.readline()
                    if status and status.split()[1] not in (b"200", b"503"):
                        ledger.note_wrong(f"admin: {path} was answered with {status!r}")
                    await reader.read()
            finally:
                writer.transport.abort()
        ledger.done["operator"] += 1
        await asyncio.sleep(chance.uniform(0.1, 1))
