"""The list of interruptions: when, how long, from which master to which."""

from __future__ import annotations

from sidecar.proxy.interruptions import KEPT as KEPT_INTERRUPTIONS
from sidecar.proxy.interruptions import Interruptions


def test_an_interruption_and_a_switch() -> None:
    history = Interruptions()
    history.began(100.0, "a:1")
    history.began(100.5, "a:1")
    (entry,) = history.snapshot()
    assert (entry.at, entry.seconds, entry.switched) == (100.0, None, False)
    history.switched(101.0, "a:1", "b:1")
    history.ended(101.25)
    history.ended(999.0)
    (entry,) = history.snapshot()
    assert (entry.before, entry.after, entry.switched) == ("a:1", "b:1", True)
    assert entry.seconds == 1.25
    history.switched(200.0, "b:1", "c:1")
    history.ended(200.125)
    assert [each.after for each in history.snapshot()] == ["c:1", "b:1"]
    for number in range(KEPT_INTERRUPTIONS + 10):
        history.began(float(number), "c:1")
        history.ended(float(number))
    assert len(history.snapshot()) == KEPT_INTERRUPTIONS
