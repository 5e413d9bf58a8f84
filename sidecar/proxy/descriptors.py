"""Open files: raises the limit, keeps some in reserve, and warns if there are too few.

Each client takes a descriptor, and so does each link. The system gives out the lowest that is free,
so the number of a new one tells how many are in use. Clients get none of the last ones: without a
link to the server, or an answer of the admin port, being connected is worth nothing.

When there is none at all, a client that waits to be accepted would wait for ever. One descriptor is
kept open for nothing; it is closed for a moment, so that such a client can be told.
"""

from __future__ import annotations

import os
import resource
import socket
from contextlib import suppress

import structlog

from sidecar.settings.schema import Settings

log = structlog.get_logger()

# What the process needs beside clients and links: listeners, logs, Sentinels, its own questions.
OTHERS = 64
# The share of all descriptors that clients do not get, and the most that is.
RESERVED_SHARE = 1 / 16
RESERVED_MOST = 256


def raise_limit() -> int:
    """Allow as many open files as the system lets us; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def warn_if_short(limit: int, settings: Settings) -> None:
    """Say at start if the settings allow more connections than there are descriptors."""
    admin = settings.admin.max_connections
    wanted = settings.listen.max_clients + settings.upstream.max_links + admin + OTHERS
    if limit < wanted:
        log.warning(
            "open files limit too low",
            limit=limit,
            wanted=wanted,
            advice="raise it, or lower listen.max_clients and upstream.max_links",
        )


def taken(settings: Settings, *, alone: bool) -> Descriptors:
    """All descriptors that the system lets us have. Of several workers, who are not `alone`, none
    has the admin port."""
    limit = raise_limit()
    warn_if_short(limit, settings)
    admin = settings.admin
    return Descriptors(limit, admin.most_connections(limit) if alone and admin.listen else 0)


class Descriptors:
    """The descriptors of a process that may have `limit` of them. The admin port may take so many
    of them as `admin` says."""

    def __init__(self, limit: int, admin: int = 0) -> None:
        self._last_for_clients = limit - min(RESERVED_MOST, int(limit * RESERVED_SHARE)) - admin
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def has_room(self, client: socket.socket) -> bool:
        """Whether this client, which has just been accepted, may stay."""
        return client.fileno() < self._last_for_clients

    def accept_one(self, listener: socket.socket) -> socket.socket | None:
        """Accept a client when there is no descriptor left; it cannot stay. None: not even so."""
        self._let_go()
        try:
            return listener.accept()[0]
        except OSError:
            return None

    def keep_one(self) -> None:
        """Take the spare descriptor again, after the client of `accept_one` was closed."""
        if self._spare < 0:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """Give everything back."""
        self._let_go()

    def _let_go(self) -> None:
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)
