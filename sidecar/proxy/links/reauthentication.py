"""Logs links in again when the sidecar's own credentials have changed.

A token that expires ends the connections that it opened. So the newest credentials are proved on a
connection of its own, and then sent down every link that was opened with older ones, between two
requests. A pinned link is left alone: its client's replies are not matched with requests, so a
reply of the sidecar's own could not be kept apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from hiredis import pack_command

from sidecar.credentials import Credentials
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.tasks import Tasks, for_each

log = structlog.get_logger()

RETRY = 1.0  # seconds


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
        connection, told = None, ""
        while connection is None:
            try:
                connection = await self._own.open(urgent=True)
            except Unreachable:
                await asyncio.sleep(RETRY)
            except Refused as error:
                # The server may take them a little later: what is there must not expire by then.
                if told != (told := str(error)):
                    log.error("credentials refused", error=told)
                await asyncio.sleep(RETRY)
            if self._credentials.now.same_login(given):
                continue
            if connection is not None:
                connection.close()
            return  # that change has its own turn
        connection.close()
        request = pack_command(self._own.identity.login.auth)
        links = [up for up in self._plane.upstreams if up.owner.identity.login.source is not None]
        for_each(links, lambda up: up.log_in(request))
        log.info("links logged in again", links=len(links) + self._tracked(request))
