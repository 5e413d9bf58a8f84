"""The log lines of slow commands: one when they begin, with the first of them, one when they end.

When a server is slow every command is: a line for each would say the same thousands of times. The
traces (span_recorder.py) have each of them.
"""

from __future__ import annotations

from collections import Counter

import structlog

log = structlog.get_logger()

# Seconds without a slow command after which they have ended.
QUIET = 10.0


class SlowCommands:
    """Tells of one data plane's slow commands."""

    def __init__(self) -> None:
        self._names: Counter[str] = Counter()
        self._began = self._latest = self._worst = 0.0

    def add(self, now: float, command: str, ms: float, **facts: object) -> None:
        """A command was slow; `facts` tell which."""
        if not self._names:
            self._began, self._worst = now, 0.0
            told = {name: fact for name, fact in facts.items() if fact or name == "db"}
            log.warning("command slow", command=command, ms=ms, **told)
        self._names[command] += 1
        self._latest = now
        self._worst = max(self._worst, ms)

    def tick(self, now: float) -> None:
        """Tell if they have ended. One that stayed alone needs no second line."""
        if not self._names or now - self._latest < QUIET:
            return
        names, self._names = self._names, Counter()
        if names.total() > 1:
            log.info(
                "slow commands ended",
                commands=names.total(),
                seconds=round(self._latest - self._began, 3),
                worst_ms=self._worst,
                by_command=dict(names.most_common(5)),
            )
