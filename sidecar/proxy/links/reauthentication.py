"""Logs links in again when the sidecar's own credentials have changed.

A token that expires ends the connections that it opened. So the newest credentials are proved on a
connection of its own, and then sent down every link that was opened with older ones, between two
requests. A pinned link is left alone: its client's replies are not matched with requests, so a
reply of the sidecar's own could not be kept apart.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from hiredis import pack_command

from sidecar.credentials import Credentials
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.tasks import Tasks, for_each

log = structlog.get_logger()


class Reauthentication:
    """For all links that were opened with `credentials`. `own` are the sidecar's own links;
    `tracked` sends a request down the near cache's links, and returns to how many."""

    def __init__(
        self,
        plane: Plane,
        own: NodeLinks,
        credentials: Credentials,
        tasks: Tasks,
        tracked: Callable[[bytes], int],
    ) -> None:
        self._tracked = tracked
        self._plane = plane
        self._own = own
        self._credentials = credentials
        self._tasks = tasks
        credentials.on_change(self._changed)

    def _changed(self) -> None:
        if not self._tasks.closing:
            self._tasks.spawn(self._log_in())

    async def _log_in(self) -> None:
        given = self._credentials.now
        try:
            connection = await self._own.open(urgent=True)
        except Unreachable:
            return  # links that come up later have the newest
        except Refused as error:
            log.error("credentials refused", error=str(error))
            return
        connection.close()
        if given is not self._credentials.now:
            return  # that change has its own turn
        request = pack_command(self._own.identity.login.auth)
        links = [up for up in self._plane.upstreams if up.owner.identity.login.source is not None]
        for_each(links, lambda up: up.log_in(request))
        log.info("links logged in again", links=len(links) + self._tracked(request))
