"""The first of a name's addresses that takes a connection.

A name may have several addresses, of both families, and one of them may be dead: it swallows what
is sent to it, and only time tells. So the next address is tried after a moment while the ones
before it are still being tried, and the first that connects is used (RFC 8305 calls it happy
eyeballs). All addresses have been tried within half of the time that there is.

Knows sockets and nothing of what is said on them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
from typing import Any

Address = tuple[int, int, int, str, Any]
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]

STAGGER = 0.25


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses that the system knows for a name; asked beside the loop. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """One of each family in turn, the family of the first first."""
    if not addresses:
        return []
    first = addresses[0][0]
    same = [address for address in addresses if address[0] == first]
    others = [address for address in addresses if address[0] != first]
    turns = chain.from_iterable(zip_longest(same, others))
    return [address for address in turns if address is not None]


async def first_to_connect(addresses: Sequence[Address], within: float) -> socket.socket:
    """A non-blocking socket, connected to one of these. Raises OSError: what the last one said.

    The caller sets the deadline, of `within` seconds.
    """
    waiting = interleaved(addresses)
    if len(waiting) == 1:
        return await _connect(waiting[0])
    stagger = min(STAGGER, within / (2 * max(1, len(waiting))))
    attempts: set[asyncio.Task[socket.socket]] = set()
    error = OSError("the name has no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.ensure_future(_connect(waiting.pop(0))))
            done, _ = await asyncio.wait(
                attempts,
                timeout=stagger if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                attempts.discard(attempt)
                failure = attempt.exception()
                if failure is None:
                    return attempt.result()
                if not isinstance(failure, OSError):
                    raise failure
                error = failure
        raise error
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_unused)


def _close_unused(attempt: asyncio.Task[socket.socket]) -> None:
    """It connected, and another one had been first."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(address: Address) -> socket.socket:
    family, kind, proto, _, where = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock
