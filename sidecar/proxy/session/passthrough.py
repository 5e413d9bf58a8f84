"""One request put to the server on a connection made for it, for a client on a shared link."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import ServerConnection

if TYPE_CHECKING:
    from sidecar.proxy.links.pool import Pool


def unchanged(reply: bytes, _: ServerConnection) -> bytes:
    """The reply as the server gave it."""
    return reply


async def pass_through(
    pool: Pool,
    client: Client,
    request: bytes,
    change: Callable[[bytes, ServerConnection], bytes] = unchanged,
) -> None:
    """Answer the request at the client's head with the server's reply to `request`, changed.

    `change` runs while the connection is still open. It is not called when there was no reply.
    """
    try:
        connection = await pool.open(client.identity)
        try:
            reply = change((await connection.ask(request))[0], connection)
        finally:
            connection.close()
    except (Refused, Unreachable) as error:
        client.task = None
        client.refuse(reply_for(error))
    else:
        client.task = None
        client.answer(reply)
