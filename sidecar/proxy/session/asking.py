"""Asks the server something for a client, down the link that the client has, before it is answered.

That way the server judges what the sidecar answers by itself: whether the user may do it, now.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.protocol.reply import ReplyDecoder
from sidecar.proxy.io.client import Client
from sidecar.proxy.links.greeting import is_error


def ask(client: Client, request: bytes, then: Callable[[bytes], None]) -> None:
    """Call `then` with the reply, while the client's own request waits at the head. Pushes that
    came before it, on a link of the client's own, are given to the client."""

    def answered(data: bytes) -> None:
        if data[:1] != b">":
            then(data)
            return
        reply = b""
        for kind, raw in ReplyDecoder().feed(data):
            if kind == "reply":
                reply = raw
            else:
                client.say(raw)
        then(reply)

    client.ask(request, answered)


def answer_if_allowed(client: Client, request: bytes, answer: Callable[[], bytes]) -> None:
    """Answer with `answer()` if the server does not refuse the request, else with its error."""
    ask(client, request, lambda said: client.answer(said if is_error(said) else answer()))
