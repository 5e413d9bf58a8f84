"""Looking after links: silence, links that are held up, identities nobody uses any more.

Runs every TICK on the loop. What a link is, and how one is made, is the pool's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from sidecar.proxy.io.upstream import NOT_MASTER, Upstream
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.identity import Identity

if TYPE_CHECKING:
    from sidecar.proxy.links.pool import Pool

log = structlog.get_logger()

UNUSED_IDENTITY = 60.0
# How often links are looked after, and after how much silence others are led past one.
TICK = 0.05
STALLED = 0.1
# A server that is busy as a whole holds up every link: more of them would not help.
MAX_RETIRED = 2


class LinkMaintenance:
    """Looks after the links of one pool. `on_tick` is called with the time at each tick."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.limit = pool.settings.upstream.silence_timeout
        self.on_tick: list[Callable[[float], None]] = []
        self._silent: dict[Upstream, tuple[int, float]] = {}

    async def run(self) -> None:
        """Until the pool closes."""
        while not self.pool.closing:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for identity in list(self.pool.identities.values()):
                for up in (identity.link, *identity.retired):
                    self._watch_silence(identity, up, now)
                self._trim(identity, now)
            self.pool.count_held()
            for call in self.on_tick:
                call(now)

    def forget(self, up: Upstream) -> None:
        """This link is no more."""
        self._silent.pop(up, None)

    def _watch_silence(self, identity: Identity, up: Upstream, now: float) -> None:
        """Look whether a shared link owes replies and says nothing.

        After STALLED seconds others are led past it: a paused write, a long script or a request
        the server holds back would make them wait for what is not theirs. After
        `upstream.silence_timeout` the link is given up. One whose server has said that it is no
        master is not waited for.
        """
        if not up.up or not up.outstanding:
            self._silent.pop(up, None)
            return
        received, since = self._silent.get(up, (-1, now))
        silent = now - since
        if received != up.received:
            self._silent[up] = (up.received, now)
        elif up.demoted:
            if silent >= STALLED:
                up.break_off(NOT_MASTER)
        elif self.limit and silent >= self.limit:
            self._silent.pop(up, None)
            up.break_off(f"it owes {up.outstanding} replies and was silent for {self.limit:g} s")
        elif silent >= STALLED and up is identity.link:
            self._lead_past(identity)

    def _lead_past(self, identity: Identity) -> None:
        """Lead clients past the identity's link, unless that is being done."""
        if identity.diverting or self.pool.closing or len(identity.retired) >= MAX_RETIRED:
            return
        identity.diverting = True
        self.pool.spawn(self._replace_link(identity))

    async def _replace_link(self, identity: Identity) -> None:
        """A second shared link in the place of one that is held up."""
        try:
            connection = await self.pool.open(identity)
        except (Refused, Unreachable):
            return
        finally:
            identity.diverting = False
        old = identity.link
        if self.pool.closing or not old.up or old.demoted or old not in self._silent:
            connection.close()
            return
        up = Upstream(self.pool.plane, identity, True)
        identity.link = up
        identity.retired.append(old)
        self.pool.attach(up, connection, identity)
        old.divert_to(up)
        log.info("led clients past a link that is held up", outstanding=old.outstanding)

    def _trim(self, identity: Identity, now: float) -> None:
        for up in [up for up in identity.retired if not up.outstanding]:
            identity.retired.remove(up)
            self._silent.pop(up, None)
            for client in identity.clients:
                if client.is_on(up):
                    client.use_shared(identity.link)  # idle since before it was replaced
            up.close()
        self.pool.dedicated.trim(identity, now)
        unused = identity.unused_since
        if (
            identity is not self.pool.default
            and unused is not None
            and now - unused > UNUSED_IDENTITY
            and not identity.clients
            and not identity.link.outstanding
        ):
            self.pool.forget(identity)
