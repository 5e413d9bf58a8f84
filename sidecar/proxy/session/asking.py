"""Asks the server something for a client, down the link that the client has, before it is answered.

That way the server judges what the sidecar answers by itself: whether the user may do it, now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiredis import pack_command

from sidecar.core.protocol.reply import ReplyDecoder
from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.greeting import is_error


def ask(client: Client, request: bytes, then: Callable[[bytes], None]) -> None:
    """Call `then` with the reply, while the client's own request waits at the head. Pushes that
    came before or behind it, on a link of the client's own, are given to the client there; the last
    one may have come in part."""

    def answered(data: bytes) -> None:
        reply, end = b"", 0
        for kind, raw in ReplyDecoder().feed(data):
            end += len(raw)
            if kind == "reply":
                reply = raw
                break
            client.say(raw)
        then(reply)
        if end < len(data) and not client.closed:
            client.say(data[end:])

    client.ask(request, answered)


def answer_if_allowed(client: Client, request: bytes, answer: Callable[[], bytes]) -> None:
    """Answer with `answer()` if the server does not refuse the request, else with its error."""
    ask(client, request, lambda said: client.answer(said if is_error(said) else answer()))


def send_instead(client: Client, words: Sequence[bytes]) -> None:
    """Send this in the place of the client's request; the server's reply is the client's, in its
    turn."""
    if client.closed:
        return
    request = pack_command(tuple(words))
    if client.mode == PINNED_MODE:
        client.pass_on(request)
    else:
        ask(client, request, client.answer)
