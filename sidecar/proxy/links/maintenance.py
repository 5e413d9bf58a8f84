"""Looks after links at each tick: silent and held-up links, the pool, unused identities.

Connects nothing except the link that replaces a held-up one.
"""

from __future__ import annotations

import time

import structlog
from hiredis import pack_command

from sidecar.proxy.io.upstream import NOT_MASTER, Upstream
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import REPLICATION, ServerConnection, is_error
from sidecar.proxy.links.identity import Identities, Identity, NodeLinks
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.tasks import Tasks

log = structlog.get_logger()

# How long links are kept that lead to the server for nobody: usually, and while links are short.
UNUSED_IDENTITY = 60.0
UNUSED_WHEN_SHORT = 1.0
# Seconds for which a new link is not closed to make room: it was opened for somebody.
FRESH = 0.1
# Seconds of silence after which a link counts as held up.
STALLED = 0.1
# If the server as a whole is busy, every link is held up, and more links do not help.
MAX_RETIRED = 2
PING = pack_command((b"PING",))
# In the answer to INFO replication; something else stands there from FAILOVER until it is done.
HANDING_OVER = b"master_failover_state:"
NOT_HANDING_OVER = HANDING_OVER + b"no-failover"


class LinkMaintenance:
    """Looks after the links of all identities. A shared link that owes replies and is silent for
    `silence_timeout` seconds is given up (0: never)."""

    def __init__(
        self,
        identities: Identities,
        shared: SharedLinks,
        dedicated: DedicatedLinks,
        tasks: Tasks,
        silence_timeout: float,
    ) -> None:
        self._identities = identities
        self._shared = shared
        self._dedicated = dedicated
        self._tasks = tasks
        self.silence_timeout = silence_timeout

    def tick(self, now: float) -> None:
        """Look after every link once."""
        for identity in self._identities:
            for links in identity.links:
                for up in (links.shared, *links.retired):
                    self._watch_silence(links, up, now)
                self._trim(links, now)
            self._forget_unused(identity, now)

    def _watch_silence(self, links: NodeLinks, up: Upstream, now: float) -> None:
        """Check whether a shared link owes replies and is silent.

        After STALLED seconds it is replaced: clients must not wait for a request of somebody else
        that the server holds back, such as a paused write or a long script. After the limit it is
        given up. A demoted link is given up after STALLED seconds.
        """
        if not up.up or not up.outstanding:
            links.silent.pop(up, None)
            return
        received, since = links.silent.get(up, (-1, now))
        silent = now - since
        if received != up.received:
            links.silent[up] = (up.received, now)
        elif up.demoted:
            if silent >= STALLED:
                up.break_off(NOT_MASTER)
        elif self._is_dead(links, silent, now):
            links.silent.pop(up, None)
            up.break_off(
                f"it owes {up.outstanding} replies and was silent for {self.silence_timeout:g} s"
            )
        elif silent >= STALLED and up is links.shared:
            self._replace(links)

    def _is_dead(self, links: NodeLinks, silent: float, now: float) -> bool:
        within = self.silence_timeout
        return 0 < within <= silent and now >= links.node.patient_until

    def _replace(self, links: NodeLinks) -> None:
        """Replace a held-up shared link, unless that is under way."""
        if links.diverting or self._tasks.closing or len(links.retired) >= MAX_RETIRED:
            return
        links.diverting = True
        self._tasks.spawn(self._replace_link(links))

    async def _replace_link(self, links: NodeLinks) -> None:
        """Connect a second shared link and retire the held-up one.

        The server has answered the new connection. If not a byte has come on the old one meanwhile,
        the server is not busy: it holds back what that link owes, as CLIENT PAUSE does.

        A server that hands its role over pauses writes as well, and refuses them in the end. On
        this link that is nobody's error (demotion.pyx). On dedicated links, which is where writes
        go beside a held-up link, their clients would be told.
        """
        old, received = links.shared, links.shared.received
        connection: ServerConnection | None = None
        state = b""
        try:
            connection = await links.open()
            # What a busy server had for the old link came with the answers to the greeting. It has
            # been read here once two more questions are answered.
            await connection.ask(PING)
            state = (await connection.ask(REPLICATION))[0]
        except Refused as error:
            if connection is not None or not is_error(error.reply, b"BUSY"):
                return
        except Unreachable:
            return
        finally:
            links.diverting = False
        held_up = old is links.shared and old.up and old.outstanding and old.received == received
        if self._tasks.closing or not held_up or old.demoted or _hands_over(state):
            if connection is not None:
                connection.close()
            return
        up = self._successor(links, connection)
        if up is None:
            return
        links.retired.append(old)
        old.divert_to(up)
        log.info("held-up link replaced", outstanding=old.outstanding)

    def _successor(self, links: NodeLinks, connection: ServerConnection | None) -> Upstream | None:
        """Make this connection the shared link. Without one it is a spare link, if there is any: a
        server that is busy with a script refuses SELECT, and spare links have done that."""
        if connection is not None:
            up = links.shared = links.new_link(shared=True)
            self._shared.attach(links, up, connection)
            return up
        spare = links.take_spare()
        if spare is not None:
            spare.become_shared()
            links.shared = spare
            links.up_since = time.monotonic()
        return spare

    def _trim(self, links: NodeLinks, now: float) -> None:
        for up in [up for up in links.retired if not up.outstanding]:
            links.retired.remove(up)
            links.silent.pop(up, None)
            for client in links.identity.clients:
                if client.is_on(up):
                    client.use_shared(links.shared)  # it has sent nothing since the replacement
            up.close()
        if not links.retired:
            links.shared.cautious = False
        self._dedicated.trim(links, now)

    def _forget_unused(self, identity: Identity, now: float) -> None:
        unused = identity.unused_since
        if unused is None or now - unused <= UNUSED_WHEN_SHORT or not self._is_unused(identity):
            return
        # Those of an era (session/admission.py) are made for a moment of doubt, as a rule.
        short = identity.login.era or any(links.node.room.short for links in identity.links)
        if short or now - unused > UNUSED_IDENTITY:
            self._identities.forget(identity)

    def _is_unused(self, identity: Identity) -> bool:
        return identity is not self._identities.default and not identity.in_use

    def let_go(self) -> bool:
        """Somebody needs room for a connection: whether a link could be closed for it.

        First one that is kept for later, then those of an identity without clients, then the shared
        link of clients that ask for nothing now: they get it again when they do.
        """
        kept = [links for links in self._identities.links if links.idle]
        if kept:
            min(kept, key=lambda links: links.idle[0].idle_since).idle.popleft().close()
            return True
        unused = [identity for identity in self._identities if self._is_unused(identity)]
        if unused:
            self._identities.forget(min(unused, key=lambda identity: identity.unused_since or 0.0))
            return True
        asleep = [links for links in self._identities.links if self._is_asleep(links)]
        if asleep:
            min(asleep, key=lambda links: links.up_since).shared.close()
        return bool(asleep)

    def _is_asleep(self, links: NodeLinks) -> bool:
        return (
            links.identity is not self._identities.default
            and links.shared.up
            and not links.shared.outstanding
            and not links.retired
            and not links.diverting
            and time.monotonic() - links.up_since > FRESH
        )


def _hands_over(info: bytes) -> bool:
    """Whether a server that answers this to INFO replication is handing its role over."""
    return HANDING_OVER in info and NOT_HANDING_OVER not in info
