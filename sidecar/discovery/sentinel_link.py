"""One connection to a Sentinel, and in words what can be wrong with it.

`Link` speaks RESP3: questions are answered in order, each to its handler, and messages of the
channels subscribed to come in between. Handlers and messages are called while the bytes are being
read, so the order on the wire is the order of the calls. It knows no service and keeps no state
of a Sentinel: that is sentinel.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, cast

import hiredis

from sidecar.policy.topology import Address
from sidecar.tls.faults import fault_of

Kind = Literal["unreachable", "credentials", "idle", "service"]
Reply: TypeAlias = object
Handler = Callable[[Reply], None]

MAX_UNREAD = 1 << 20  # bytes of one reply; the longest we ask for has under 1 KiB a Sentinel

_MORE = object()


class Fault(Exception):
    """Why a Sentinel gives no answer: a few words that follow its address and a colon."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Link(asyncio.Protocol):
    """From `open` to `close`. `within` seconds are for the opening, and for each answer.

    `on_message` gets the channel and the text of each message. `lost` becomes the Fault that
    ended the connection.
    """

    def __init__(self, within: float, on_message: Callable[[str, str], None] | None = None) -> None:
        self._within = within
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(encoding="utf-8", errors="replace", notEnoughData=_MORE)
        self._waiting: deque[tuple[float, Handler]] = deque()
        self._transport: asyncio.Transport | None = None
        self._fault: Fault | None = None
        self._unread = 0
        self._asked = 0.0
        self.lost: asyncio.Future[Fault] = self._loop.create_future()
        self._connected = False

    async def open(
        self, address: Address, tls: ssl.SSLContext | None, name: str, user: str, password: str
    ) -> None:
        """Connect, with `tls` to a host of that `name`, and log in when there is a password.

        Raises Fault. `close` is to be called all the same.
        """
        login = ("AUTH", user, password) if password else ()
        try:
            async with asyncio.timeout(self._within):
                await self._loop.create_connection(
                    lambda: self, *address, ssl=tls, server_hostname=name if tls else None
                )
                self._connected = True
                await self.call("HELLO", 3, *login)
        except TimeoutError:
            raise Fault("unreachable", f"no answer within {self._within:g} s") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that can be no name
            raise Fault("unreachable", _in_words(error)) from error

    async def close(self) -> None:
        """Close it at once; no handler is called any more."""
        if self._transport is not None:
            self._transport.abort()
        # uvloop has a transport before create_connection returns, but says nothing of its end when
        # create_connection is cancelled.
        if self._connected:
            await asyncio.wait((self.lost,))

    @property
    def overdue(self) -> bool:
        """Whether the oldest question has waited for too long."""
        return bool(self._waiting) and self._loop.time() - self._waiting[0][0] > self._within

    @property
    def idle_for(self) -> float:
        """Seconds since the last question; 0 while one is unanswered."""
        return 0.0 if self._waiting else self._loop.time() - self._asked

    def send(self, handler: Handler, *command: str | int) -> None:
        """Ask; `handler` gets the reply, an error as hiredis.ReplyError."""
        if self._transport is not None and not self.lost.done():
            self._asked = self._loop.time()
            self._waiting.append((self._asked, handler))
            self._transport.write(hiredis.pack_command(command))

    async def call(self, *command: str | int) -> Reply:
        """Ask and wait. Raises Fault, for an error reply too."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self.send(lambda reply: None if answer.done() else answer.set_result(reply), *command)
        await asyncio.wait(
            (answer, self.lost), timeout=self._within, return_when=asyncio.FIRST_COMPLETED
        )
        if answer.done():
            reply = answer.result()
            if isinstance(reply, hiredis.ReplyError):
                raise refusal(reply)
            return reply
        if self.lost.done():
            raise self.lost.result()
        raise Fault("unreachable", f"no answer within {self._within:g} s")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio.Protocol."""
        if self._fault is None:
            words = _in_words(error) if isinstance(error, OSError) else "closed the connection"
            self._fault = Fault("unreachable", words)
            self._fault.__cause__ = error
        if not self.lost.done():
            self.lost.set_result(self._fault)

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol: hand on whatever is complete."""
        self._unread += len(data)
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not _MORE:
                self._unread = 0
                self._take(reply)
        except hiredis.ProtocolError as error:
            self._give_up(f"speaks no Redis protocol ({error})")
        if self._unread > MAX_UNREAD:
            self._give_up("sends a reply without end")

    def _take(self, reply: Reply) -> None:
        # None of the answers to what we ask begins with these words, so pushes need no type.
        kind = reply[0] if isinstance(reply, list) and reply else None
        if kind == "pmessage" and isinstance(reply, list) and len(reply) == 4:
            if self._on_message is not None:
                self._on_message(str(reply[2]), str(reply[3]))
        elif self._waiting:  # a subscription is answered by a push, in its turn
            self._waiting.popleft()[1](reply)

    def _give_up(self, words: str) -> None:
        self._fault = self._fault or Fault("unreachable", words)
        if self._transport is not None:
            self._transport.abort()


def refusal(error: hiredis.ReplyError) -> Fault:
    """The Fault that an error reply stands for."""
    text = str(error)
    code = text.partition(" ")[0]
    if code == "NOAUTH":
        return Fault("credentials", "wants a password (NOAUTH)")
    if code in ("WRONGPASS", "NOPERM"):
        return Fault("credentials", text)
    if "No such master" in text:
        return Fault("service", "does not know it")
    if "unknown command" in text:
        plain = "sentinel" in text.lower()
        why = "is a server, not a Sentinel" if plain else "is older than Redis 6 (no HELLO)"
        return Fault("unreachable", why)
    return Fault("unreachable", f"answers {text[:200]!r}")


def table_of(reply: Reply) -> dict[str, str]:
    """A description of an instance as name → value; empty when it is none."""
    if isinstance(reply, Mapping):
        return {str(name): str(value) for name, value in reply.items()}
    return {}


def rows_of(reply: Reply) -> list[dict[str, str]]:
    """Several descriptions; none for an error."""
    return [table_of(row) for row in reply] if isinstance(reply, list) else []


def _in_words(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {fault_of(error).words}"
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return "closed the connection"
    # asyncio puts words of its own beside the number, or several errors into one.
    if (number := re.search(r"\[Errno (\d+)\]", str(error))) is not None:
        return os.strerror(int(number[1])).lower()
    words = error.strerror if isinstance(error, OSError) else None
    return (words or str(error) or type(error).__name__).lower()
