"""Looking after links: silence, links that are held up, identities nobody uses any more.

Runs at every tick on the loop. Connects nothing by itself but the link that takes the place of one
that is held up.
"""

from __future__ import annotations

import structlog

from sidecar.proxy.io.upstream import NOT_MASTER, Upstream
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.identity import Identities, Identity, NodeLinks
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.tasks import Tasks

log = structlog.get_logger()

UNUSED_IDENTITY = 60.0
# After how much silence others are led past a link.
STALLED = 0.1
# A server that is busy as a whole holds up every link: more of them would not help.
MAX_RETIRED = 2


class LinkMaintenance:
    """Looks after the links of all identities. A shared link that owes replies is given up after
    `silence_timeout` seconds of silence (0: never)."""

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
        self._limit = silence_timeout

    def tick(self, now: float) -> None:
        """Look at every link."""
        for identity in self._identities:
            for links in identity.links:
                for up in (links.shared, *links.retired):
                    self._watch_silence(links, up, now)
                self._trim(links, now)
            self._forget_unused(identity, now)

    def _watch_silence(self, links: NodeLinks, up: Upstream, now: float) -> None:
        """Look whether a shared link owes replies and says nothing.

        After STALLED seconds others are led past it: a paused write, a long script or a request
        the server holds back would make them wait for what is not theirs. After the limit the link
        is given up. One whose server has said that it is no master is not waited for.
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
        elif self._limit and silent >= self._limit:
            links.silent.pop(up, None)
            up.break_off(f"it owes {up.outstanding} replies and was silent for {self._limit:g} s")
        elif silent >= STALLED and up is links.shared:
            self._lead_past(links)

    def _lead_past(self, links: NodeLinks) -> None:
        """Lead clients past the shared link, unless that is being done."""
        if links.diverting or self._tasks.closing or len(links.retired) >= MAX_RETIRED:
            return
        links.diverting = True
        self._tasks.spawn(self._replace_link(links))

    async def _replace_link(self, links: NodeLinks) -> None:
        """A second shared link in the place of one that is held up."""
        try:
            connection = await links.open()
        except (Refused, Unreachable):
            return
        finally:
            links.diverting = False
        old = links.shared
        if self._tasks.closing or not old.up or old.demoted or old not in links.silent:
            connection.close()
            return
        up = links.another(shared=True)
        links.shared = up
        links.retired.append(old)
        self._shared.attach(links, up, connection)
        old.divert_to(up)
        log.info("led clients past a link that is held up", outstanding=old.outstanding)

    def _trim(self, links: NodeLinks, now: float) -> None:
        for up in [up for up in links.retired if not up.outstanding]:
            links.retired.remove(up)
            links.silent.pop(up, None)
            for client in links.identity.clients:
                if client.is_on(up):
                    client.use_shared(links.shared)  # idle since before it was replaced
            up.close()
        self._dedicated.trim(links, now)

    def _forget_unused(self, identity: Identity, now: float) -> None:
        unused = identity.unused_since
        if (
            identity is not self._identities.default
            and unused is not None
            and now - unused > UNUSED_IDENTITY
            and not identity.clients
            and not any(links.shared.outstanding for links in identity.links)
        ):
            self._identities.forget(identity)
