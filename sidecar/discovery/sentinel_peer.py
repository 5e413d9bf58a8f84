"""One Sentinel: a connection that is made again and again, and what was said on it last.

`Peer` subscribes, polls, and hands on events; it decides nothing. What concerns several Sentinels
(who else there is, whom most of them name) is for its owner, SentinelWatcher in sentinel.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext, SSLError

import hiredis
import structlog

from sidecar.credentials import Credentials, fixed
from sidecar.discovery.sentinel_link import Fault, Link, Reply, refusal, rows_of, table_of
from sidecar.policy.backoff import Backoff
from sidecar.policy.topology import (
    Address,
    Event,
    FailoverBegun,
    MasterDown,
    MasterNamed,
    SentinelFound,
    address_of,
    event_of,
)
from sidecar.settings.addresses import join_host_port
from sidecar.settings.sections.upstream import Sentinel
from sidecar.telemetry import facts
from sidecar.telemetry.handshakes import Handshakes

BACKOFF = Backoff(0.1, 2.0)
HEARTBEAT = 1.0  # seconds; a Sentinel that was asked nothing for so long gets a PING

log = structlog.get_logger()


@dataclass
class Access:
    """How the Sentinels of one service are reached. `name` replaces their hosts in TLS; `context`
    may change, for connections that are made from then on. `credentials` replace those of the
    settings. `handshakes` counts those that fail."""

    service: str
    settings: Sentinel
    context: SSLContext | None = None
    name: str = ""
    credentials: Credentials | None = None
    handshakes: Handshakes = field(default_factory=lambda: Handshakes("sentinel"))

    @asynccontextmanager
    async def connect(
        self, address: Address, on_message: Callable[[str, str], None] | None = None
    ) -> AsyncIterator[Link]:
        """A connection that speaks RESP3, closed at the end. Raises Fault."""
        link = Link(self.settings.connect_timeout, on_message)
        given = self.credentials.now if self.credentials is not None else fixed(self.settings)
        user = given.user.decode() or "default"
        try:
            try:
                await link.open(
                    address, self.context, self.name or address[0], user, given.password.decode()
                )
            except Fault as fault:
                if isinstance(fault.__cause__, SSLError):
                    self.handshakes.failed(join_host_port(*address), fault.__cause__)
                # The next attempt, a moment later, has the newest.
                if self.credentials is not None and fault.kind == "credentials":
                    await self.credentials.renewed(given)
                raise
            yield link
        finally:
            await link.close()


class Peer:
    """One Sentinel at `address`, watched from `start` until its task is cancelled.

    `configured` tells those of the URL from those learnt. `on_event` gets what it says as soon as
    it is read; `on_change` is called when its id or its list of Sentinels is news.
    """

    def __init__(
        self,
        address: Address,
        configured: bool,
        access: Access,
        on_event: Callable[[Event], None],
        on_change: Callable[[Peer], None],
    ) -> None:
        self.address = address
        self.configured = configured
        self.link: Link | None = None
        self.error = ""  # what is wrong now, empty when nothing is
        self.id = ""  # its own, while connected and if it may be asked
        self.facts: Mapping[str, str] = {}  # its latest SENTINEL MASTER, of the same round as
        self.master: Address | None = None
        self.sees: Mapping[Address, str] = {}  # the others it lists, with their ids
        self._access = access
        self._on_event = on_event
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._told: Mapping[str, str] = {}  # of a round whose address is still to come
        self._answered = False  # on this connection
        self._asking = False
        self._again = False  # one more round when the present one is answered

    def __str__(self) -> str:
        return join_host_port(*self.address)

    @property
    def epoch(self) -> int | None:
        """The configuration epoch of the master it names."""
        return number(self.facts.get("config-epoch"))

    def shown(self) -> facts.Sentinel:
        """What is known of it now, for the admin page."""
        return facts.Sentinel(
            address=str(self),
            configured=self.configured,
            connected=self.link is not None,
            error=self.error,
            master=None if self.master is None else join_host_port(*self.master),
            epoch=self.epoch,
        )

    def start(self) -> None:
        """Begin to watch, if that was not done."""
        self._task = self._task or asyncio.create_task(self._watch())

    def stop(self) -> asyncio.Task[None] | None:
        """Stop watching. The task returned, if any, ends when the connection is closed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    def ask(self) -> None:
        """Ask who is master, if connected. Asked during a round, there is one more after it."""
        if self.link is None:
            return
        if self._asking:
            self._again = True
            return
        self._asking = True
        # Address after epoch: see sentinel.py.
        for handler, command in (
            (self._described, "MASTER"),
            (self._named, "GET-MASTER-ADDR-BY-NAME"),
            (self._listed, "SENTINELS"),
        ):
            self.link.send(handler, "SENTINEL", command, self._access.service)

    def borrow(self) -> AbstractAsyncContextManager[Link]:
        """The connection it has, or a new one for the moment. Raises Fault."""
        return _lent(self.link) if self.link is not None else self._access.connect(self.address)

    async def _watch(self) -> None:
        """Connection after connection, with pauses that grow, until cancelled."""
        attempt = 0
        while True:
            try:
                await self._attend()
            except Fault as fault:
                self._note(str(fault))
            except Exception as error:  # a mistake of ours, which the others need not suffer from
                log.exception("sentinel watch failed", sentinel=str(self))
                self._note(repr(error))
            attempt = 0 if self._answered else attempt + 1
            await asyncio.sleep(BACKOFF.delay(attempt, random.random()))

    async def _attend(self) -> None:
        """One connection: subscribe, ask, go on asking. Ends with the Fault that ended it."""
        settings = self._access.settings
        pause = min(HEARTBEAT, settings.poll_interval, settings.connect_timeout) / 2
        loop = asyncio.get_running_loop()
        self._answered = self._asking = self._again = False
        async with self._access.connect(self.address, self._heard) as link:
            self.link = link
            try:
                link.send(self._subscribed, "PSUBSCRIBE", "*")
                link.send(self._identified, "SENTINEL", "MYID")
                late, next_poll = 0, 0.0
                while not link.lost.done():
                    # Twice: after a stall of our own the answer may be there, still unread.
                    late = late + 1 if link.overdue else 0
                    if late > 1:
                        raise Fault("unreachable", "no longer answers")
                    if loop.time() >= next_poll:
                        next_poll = loop.time() + settings.poll_interval
                        self.ask()
                    elif link.idle_for >= HEARTBEAT:
                        link.send(_nothing, "PING")
                    await asyncio.wait((link.lost,), timeout=pause)
                raise link.lost.result()
            finally:
                self.link, self.id = None, ""

    def _heard(self, channel: str, payload: str) -> None:
        event = event_of(channel, payload, self._access.service)
        if event is None:
            return
        self._on_event(event)
        if isinstance(event, MasterNamed | SentinelFound):
            self.ask()  # the one came without its epoch, the other without its id

    def _subscribed(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            fix = "allow its user +psubscribe and allchannels"
            log.warning(
                "sentinel subscription refused", sentinel=str(self), reason=f"{reply}; {fix}"
            )

    def _identified(self, reply: Reply) -> None:
        if isinstance(reply, str):  # an error when it is older than 6.2 or the user may not ask
            self.id = reply
            self._on_change(self)

    def _described(self, reply: Reply) -> None:
        self._told = table_of(reply)
        if isinstance(reply, hiredis.ReplyError):
            self.facts, self.master = {}, None
            self._note(str(refusal(reply)))
        elif not self._answered:
            # What was announced before we subscribed.
            flags = self._told.get("flags", "").split(",")
            if "failover_in_progress" in flags:
                self._on_event(FailoverBegun())
            if "o_down" in flags or "s_down" in flags:
                self._on_event(MasterDown("objective" if "o_down" in flags else "subjective"))

    def _named(self, reply: Reply) -> None:
        if self._told and (address := address_of(reply)) is not None:
            self.facts, self.master = self._told, address
            self._answered = True
            self._note("")
            self._on_event(MasterNamed(address, switched=False, epoch=self.epoch))

    def _listed(self, reply: Reply) -> None:
        """The end of a round."""
        rows = rows_of(reply)
        self.sees = {
            address: row.get("runid", "")
            for row in rows
            if (address := address_of([row.get("ip", ""), row.get("port", "")])) is not None
        }
        self._on_change(self)
        again, self._asking, self._again = self._again, False, False
        if again:
            self.ask()

    def _note(self, error: str) -> None:
        """Keep what is wrong; the log hears of it once."""
        if error == self.error:
            return
        self.error = error
        service = self._access.service
        if error:
            log.warning("sentinel failed", sentinel=str(self), service=service, reason=error)
        else:
            log.info("sentinel recovered", sentinel=str(self), service=service)


def number(text: str | None) -> int | None:
    """A field's text as a number, or None."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


@asynccontextmanager
async def _lent(link: Link) -> AsyncIterator[Link]:
    yield link


def _nothing(reply: Reply) -> None:
    """A PING's answer: that it came is all."""
