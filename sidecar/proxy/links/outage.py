"""The log lines of an outage: one when the first shared link is lost, one when all are back.

However many identities lose theirs, and however often attempts fail in between, the operator reads
when it began and why, when commands began to fail, and how long it took and what it cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from sidecar.proxy.links.identity import NodeLinks

log = structlog.get_logger()


class Outage:
    """`errors` counts the error replies that the sidecar has made so far."""

    def __init__(self, errors: Callable[[], int]) -> None:
        self._errors = errors
        self._lost: set[NodeLinks] = set()
        self._most = 0
        self._began = 0.0
        self._errors_before = 0
        self._gave_up = False

    def lost(self, links: NodeLinks, reason: str) -> None:
        """A shared link was lost."""
        if not self._lost:
            log.warning("upstream link lost", upstream=str(links.shared.target), reason=reason)
        self._add(links)

    def gave_up(self, links: NodeLinks, why: str) -> None:
        """Commands get errors from now on."""
        self._add(links)
        if not self._gave_up:
            self._gave_up = True
            log.error("upstream down", error=why)

    def _add(self, links: NodeLinks) -> None:
        if not self._lost:
            self._began, self._errors_before = time.monotonic(), self._errors()
            self._most, self._gave_up = 0, False
        self._lost.add(links)
        self._most = max(self._most, len(self._lost))

    def over(self, links: NodeLinks) -> None:
        """A shared link is up, or nobody needs it any more."""
        if links not in self._lost:
            return
        self._lost.discard(links)
        if not self._lost:
            seconds = round(time.monotonic() - self._began, 3)
            errors = self._errors() - self._errors_before
            log.info("upstream link back", seconds=seconds, links=self._most, errors=errors)
