"""The history of interruptions and switches, for the timeline of the web page.

An interruption begins when requests cannot be passed on (or are held) and ends with the first that
can. It has the addresses before and after. Only the latest are kept. Times are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.telemetry import facts

KEPT = 200


@dataclass
class Interruption:
    """`seconds` is None while it lasts; `switched` distinguishes a switch from an outage."""

    began: float
    before: str
    after: str
    switched: bool = False
    seconds: float | None = None


class Interruptions:
    """The latest KEPT interruptions, newest last."""

    def __init__(self) -> None:
        self._entries: deque[Interruption] = deque(maxlen=KEPT)

    @property
    def lasting(self) -> Interruption | None:
        """The interruption that has not ended, if any."""
        last = self._entries[-1] if self._entries else None
        return last if last is not None and last.seconds is None else None

    def began(self, now: float, where: str) -> None:
        """Requests cannot be passed on. A second call while this lasts changes nothing."""
        if self.lasting is None:
            self._entries.append(Interruption(now, where, where))

    def switched(self, now: float, before: str, after: str) -> None:
        """Another server is the master now."""
        entry = self.lasting
        if entry is None:
            entry = Interruption(now, before, after)
            self._entries.append(entry)
        entry.after, entry.switched = after, True

    def ended(self, now: float) -> None:
        """Requests are passed on again."""
        if (entry := self.lasting) is not None:
            entry.seconds = max(0.0, now - entry.began)

    def snapshot(self, shard: int | None = None) -> Sequence[facts.Interruption]:
        """For the web page, newest first; those of this `shard`, if they are a shard's."""
        return [
            facts.Interruption(
                at=round(entry.began, 3),
                before=entry.before,
                after=entry.after,
                switched=entry.switched,
                seconds=None if entry.seconds is None else round(entry.seconds, 4),
                shard=shard,
            )
            for entry in reversed(self._entries)
        ]


class LinkOutages:
    """Records the interruptions of a plain upstream, as the sidecar's own link shows them.

    `clock` returns the time of day, `where` the upstream's address.
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

    def link_down(self, demoted: bool) -> None:
        """The link was lost, or its server is a replica now."""
        self._interruptions.began(self._clock(), self._where())

    def link_up(self) -> None:
        """The link is up."""
        self._interruptions.ended(self._clock())
