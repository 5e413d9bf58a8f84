"""When a certificate is late."""

from __future__ import annotations

import pytest

from sidecar.policy.expiry import State, state_of, words

DAY, HOUR = 86400.0, 3600.0


@pytest.mark.parametrize(
    ("life", "left", "state", "text"),
    [
        (90 * DAY, 30 * DAY, "valid", ""),
        (90 * DAY, 14 * DAY, "valid", ""),
        (90 * DAY, 14 * DAY - 1, "soon", "ends in 14 days"),
        (90 * DAY, 5 * HOUR, "soon", "ends in 5 hours"),
        (90 * DAY, 1, "soon", "ends in 1 seconds"),
        (90 * DAY, 0, "over", "has ended 0 seconds ago"),
        (90 * DAY, -3 * DAY, "over", "has ended 3 days ago"),
        (90 * DAY, 91 * DAY, "early", "is valid only in 24 hours"),
        # Short-lived ones are renewed every few hours.
        (DAY, 9 * HOUR, "valid", ""),
        (DAY, 8 * HOUR - 1, "soon", "ends in 8 hours"),
    ],
)
def test_states(life: float, left: float, state: State, text: str) -> None:
    now = 1_800_000_000.0
    begins, ends = now + left - life, now + left
    assert (state_of(begins, ends, now), words(begins, ends, now)) == (state, text)
