"""What happened to the upstream and when: interruptions, and changes of the master.

One entry is one interruption: from the moment that requests could not be passed on (or were held)
to the first that could, with the addresses before and after. The latest are kept, for the admin
page's timeline. Times of day and durations are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.telemetry import facts

KEPT = 200


@dataclass
class Interruption:
    """`seconds` is None while it lasts; `switched` tells a change of the master from an outage."""

    began: float
    before: str
    after: str
    switched: bool = False
    seconds: float | None = None


class Interruptions:
    """The latest KEPT of them, the newest last."""

    def __init__(self) -> None:
        self._entries: deque[Interruption] = deque(maxlen=KEPT)

    @property
    def lasting(self) -> Interruption | None:
        """The one that has not ended."""
        last = self._entries[-1] if self._entries else None
        return last if last is not None and last.seconds is None else None

    def began(self, now: float, where: str) -> None:
        """Requests cannot be passed on; told again while it lasts, it changes nothing."""
        if self.lasting is None:
            self._entries.append(Interruption(now, where, where))

    def switched(self, now: float, before: str, after: str) -> None:
        """The upstream is another server from now on."""
        entry = self.lasting
        if entry is None:
            entry = Interruption(now, before, after)
            self._entries.append(entry)
        entry.after, entry.switched = after, True

    def ended(self, now: float) -> None:
        """Requests are passed on again."""
        if (entry := self.lasting) is not None:
            entry.seconds = max(0.0, now - entry.began)

    def snapshot(self) -> Sequence[facts.Interruption]:
        """The latest, the newest first."""
        return [
            facts.Interruption(
                at=round(entry.began, 3),
                before=entry.before,
                after=entry.after,
                switched=entry.switched,
                seconds=None if entry.seconds is None else round(entry.seconds, 4),
            )
            for entry in reversed(self._entries)
        ]


class LinkOutages:
    """Notes interruptions where no master is followed: the sidecar's own link alone tells of them.

    `clock` gives the time of day, `where` the upstream's address.
    """

    def __init__(
        self,
        interruptions: Interruptions,
        where: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._interruptions = interruptions
        self._where = where
        self._clock = clock

    def link_down(self) -> None:
        """The link was lost."""
        self._interruptions.began(self._clock(), self._where())

    def link_up(self) -> None:
        """The link has come up."""
        self._interruptions.ended(self._clock())
