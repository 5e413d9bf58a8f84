"""Whether replies are overdue: a command that is lost or late shows here, whatever link it is on.

Every tick looks at all links (core/link/silence.pyx tells how long they have owed replies) and at
the identities whose shared link is lost. Being LATE is worth a warning; OVERDUE means that the
upstream is down, whatever else works. What may block is no sign by itself: while such a command
waits, the server is asked (pulse.py), and only its silence counts.

Judges and logs; ends no link: maintenance.py does.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec
import structlog

from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identities
from sidecar.proxy.pulse import Pulse
from sidecar.telemetry.snapshots import Due, Unanswered, waiting

log = structlog.get_logger()

# Seconds. A silence is in doubt, worth a warning, and a failure.
IN_DOUBT = 0.25
LATE = 0.5
OVERDUE = 2.5
# Between two questions to the server while only commands wait that may block.
PATIENT = 0.4
# A tick that is late by this says that the sidecar itself stood still: what has come meanwhile has
# not been read yet.
STOOD_STILL = 0.3

NOTHING = Unanswered(oldest=0.0, silent=0.0, requests=0, state="ok", why="", since=0.0)


class _Found(NamedTuple):
    """For how long, how many commands, and why, without the figures. `lost`: there is no link,
    which shared.py logs."""

    seconds: float
    requests: int
    why: str
    lost: bool = False


class Overdue:
    """Looks after the silence of one data plane's links."""

    def __init__(self, plane: Plane, identities: Identities, pulse: Pulse) -> None:
        self._plane = plane
        self._identities = identities
        self._pulse = pulse
        self._ticked = time.monotonic()
        self._skipped = False
        self._most = 0
        self._logged = False
        self.now = NOTHING

    @property
    def is_down(self) -> bool:
        """Whether somebody's command is lost or overdue."""
        return self.now.state == "overdue"

    def tick(self, now: float) -> None:
        """Look at every link."""
        stood_still, self._ticked = now - self._ticked > STOOD_STILL, now
        if stood_still and not self._skipped:
            self._skipped = True
            return
        self._skipped = False
        oldest, silent, requests, may_block, blocking = self._plane.silence()
        self._doubt(now, silent, may_block)
        found = max(
            self._silent(now, silent, requests, may_block, blocking),
            self._lost(now),
            key=lambda found: found.seconds,
        )
        oldest = max(oldest, found.seconds if found.seconds >= LATE else 0.0)
        self._judge(found, round(oldest, 3))

    def _doubt(self, now: float, silent: float, may_block: float) -> None:
        """Ask the server, or stop that."""
        pulse = self._pulse
        if max(silent, may_block) < IN_DOUBT:
            pulse.rest()
        elif now - pulse.answered >= (IN_DOUBT if silent >= IN_DOUBT else PATIENT):
            pulse.ask(now)

    def _silent(
        self, now: float, silent: float, requests: int, may_block: float, blocking: int
    ) -> _Found:
        """What the links that owe replies tell."""
        pulse = self._pulse
        if pulse.silent_for(now) >= IN_DOUBT:
            silent = max(silent, min(may_block, pulse.silent_for(now)))
            return _Found(silent, requests + blocking, "the server has not answered for {}")
        if pulse.said.startswith(b"-BUSY"):
            return _Found(silent, requests, "the server has been busy with a script for {}")
        if pulse.said.startswith(b"-LOADING"):
            return _Found(silent, requests, "the server has been loading its data for {}")
        held = "the server answers, but has held commands back (CLIENT PAUSE, or a slow one) for {}"
        return _Found(silent, requests, held)

    def _lost(self, now: float) -> _Found:
        """The identities whose shared link is lost while clients need it."""
        found = _Found(0.0, 0, "")
        for links in self._identities.links:
            refused = (links.shared.refusal or b"").startswith(b"-UNAVAILABLE")
            clients = len(links.waiting) or (len(links.identity.clients) if refused else 0)
            if links.connecting and clients:
                login = links.identity.login
                user = login.user.decode("utf-8", "replace") if login.user else "default"
                why = f"the link of user {user}, db {login.db}, has been lost for {{}}"
                seconds = now - links.connecting_since
                found = max(found, _Found(seconds, clients, why, True))
        return found

    def _judge(self, found: _Found, oldest: float) -> None:
        before, logged = self.now, self._logged
        if found.seconds < LATE:
            self.now = msgspec.structs.replace(NOTHING, oldest=oldest)
            self._logged = False
            if logged:
                lasted = round(time.time() - before.since, 3)
                log.info("upstream answers again", seconds=lasted, commands=self._most)
            return
        state: Due = "overdue" if found.seconds >= OVERDUE else "late"
        self._most = max(self._most if before.state != "ok" else 0, found.requests)
        seconds = f"{found.seconds:.{0 if found.seconds >= 10 else 1}f} s"
        why = f"{found.why.format(seconds)}; {waiting(found.requests)}"
        self.now = Unanswered(
            oldest=oldest,
            silent=round(found.seconds, 3),
            requests=found.requests,
            state=state,
            why=why,
            since=before.since or round(time.time() - found.seconds, 3),
        )
        if state == "overdue" and not found.lost and not logged:
            self._logged = True
            log.error("upstream overdue", reason=why, commands=found.requests)
