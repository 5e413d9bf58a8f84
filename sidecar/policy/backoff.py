"""How long to wait before the next attempt to connect. Randomness is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential delays with full jitter between `floor` and `ceiling` seconds."""

    floor: float
    ceiling: float

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (0 is the first).

        `chance` in [0, 1) spreads the attempts of many processes; half of the delay is certain,
        so that a loop never spins.
        """
        top = min(self.ceiling, self.floor * 2.0 ** min(attempt, 32))
        return top * (0.5 + 0.5 * chance)
