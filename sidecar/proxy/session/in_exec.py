"""Changes replies inside of the reply to EXEC: those that tell ids and lists of clients.

A command in a transaction is answered when EXEC is, in one array. What the sidecar changes outside
of transactions it changes at the command's place in that array. Such a transaction has a link of
its own, and its EXEC comes here. Other transactions never do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from sidecar.core.protocol.reply import ReplyDecoder
from sidecar.proxy.io.client import Client
from sidecar.proxy.links.greeting import is_error
from sidecar.proxy.session.asking import ask

QUEUED = b"+QUEUED\r\n"
Change: TypeAlias = Callable[[bytes], bytes]
# By the place of a command in its transaction: what is made of its reply; and whether it is made of
# the reply behind it instead, which the client does not get.
Changes: TypeAlias = "dict[int, tuple[Change, bool]]"


def queue(client: Client, request: bytes, change: Change, instead: bytes = b"") -> None:
    """Have the server queue a request. If it is executed and not refused, `change` makes the
    client's reply of the server's; or of that to the request `instead`, which goes into the
    transaction behind it, where the client's own request is only judged."""
    place = client.queued

    def judged(said: bytes) -> None:
        if said != QUEUED or place is None:
            client.answer(said)
        elif instead:
            ask(client, instead, lambda also: queued(also == QUEUED))
        else:
            queued(False)

    def queued(behind: bool) -> None:
        if place is not None:
            _changes_of(client)[place] = change, behind
        client.answer(QUEUED)

    ask(client, request, judged)


def run(client: Client, request: bytes) -> None:
    """Serve EXEC of such a transaction."""

    def answered(said: bytes) -> None:
        said = changed(said, client.in_exec)
        client.in_exec = None
        client.answer(said)

    ask(client, request, answered)


def run_pinned(client: Client) -> None:
    """Serve EXEC of such a transaction, in which the client was pinned meanwhile: it has queued
    SUBSCRIBE, AUTH, CLIENT REPLY. No reply is matched any more, so none is changed. A request of
    the sidecar's own would be answered in the array: then the transaction ends with the link.
    """
    spoilt = any(behind for _, behind in (client.in_exec or {}).values())
    client.in_exec = None
    client.rewrite_exec(False)
    if spoilt:
        client.close("upstream")
    else:
        client.resume()


def added(client: Client) -> int:
    """How many requests of the sidecar's own are in the client's transaction."""
    outdated = client.queued is not None and not client.rewrites_exec
    if client.in_exec is None or outdated:
        return 0
    return sum(behind for _, behind in client.in_exec.values())


def changed(reply: bytes, changes: Mapping[int, tuple[Change, bool]]) -> bytes:
    """The reply to EXEC, with these changes."""
    head, _, rest = reply.partition(b"\r\n")
    if head[:1] != b"*" or head[1:2] == b"-":
        return reply  # nothing was executed
    replies = [raw for _, raw in ReplyDecoder().feed(rest)]
    out = []
    places = iter(range(len(replies)))
    for place in places:
        one = replies[place]
        change, behind = changes.get(place, (None, False))
        if behind:
            next(places, None)
        if change is not None and not is_error(one):
            one = change(replies[place + 1] if behind else one)
        out.append(one)
    return b"*%d\r\n" % len(out) + b"".join(out)


def _changes_of(client: Client) -> Changes:
    """Those of the client's present transaction."""
    if not client.rewrites_exec:
        client.rewrite_exec(True)
        client.in_exec = {}
    changes: Changes = client.in_exec
    return changes
