"""One request put to the server on a connection made for it, for a client on a shared link."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.proxy.client import Client
from sidecar.proxy.errors import Refused, Unreachable, reply_for
from sidecar.proxy.greeting import Talk

if TYPE_CHECKING:
    from sidecar.proxy.pool import Pool


def unchanged(reply: bytes, _: Talk) -> bytes:
    """The reply as the server gave it."""
    return reply


async def put_aside(
    pool: Pool,
    client: Client,
    request: bytes,
    change: Callable[[bytes, Talk], bytes] = unchanged,
) -> None:
    """Answer the request at the client's head with the server's reply to `request`, changed.

    `change` runs while the connection is still open. It is not called when there was no reply.
    """
    try:
        talk = await pool.open(client.identity)
        try:
            reply = change((await talk.ask(request))[0], talk)
        finally:
            talk.close()
    except (Refused, Unreachable) as error:
        client.task = None
        client.refuse(reply_for(error))
    else:
        client.task = None
        client.answer(reply)
