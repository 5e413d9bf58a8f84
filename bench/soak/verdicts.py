"""What a soak must show, as targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.report.verdict import Verdict
from bench.soak.samples import Rest

LISTED = {
    "UNCERTAIN": "a write was under way when its connection was lost",
    "UNAVAILABLE": "no server could be reached in time; not executed",
    "EXECABORT": "a command of a transaction was refused",
    "NOSCRIPT": "the script was forgotten (SCRIPT FLUSH, another master)",
    "UNBLOCKED": "a blocked client's server is no master any more",
    "TRYAGAIN": "the keys of a transaction were moving to another shard",
    "lost": "a connection was closed: it had state on a link that was lost",
}
"""The errors that clients may get while something goes wrong, and why."""


@dataclass(frozen=True)
class Found:
    """Everything that is judged."""

    growth: float | None
    before: Rest | None
    after: Rest | None
    wrong: int
    missed: int
    """Keys that a walk by SCAN did not find though they were there."""
    errors: Mapping[str, int]
    failed_faults: int
    commands: int


def judge(found: Found, scenario: str) -> list[Verdict]:
    """Each target, met or missed."""
    growth = None if found.growth is None else abs(found.growth) * 100
    unlisted = sum(count for kind, count in found.errors.items() if kind not in LISTED)
    descriptors = tasks = None
    if found.before and found.after:
        descriptors = abs(found.after.descriptors - found.before.descriptors)
        tasks = abs(found.after.tasks - found.before.tasks)
    return [
        Verdict("memory: change after the warm-up", scenario, 2.0, "%", growth),
        Verdict("descriptors at rest: change", scenario, 0, "", descriptors),
        Verdict("tasks at rest: change", scenario, 0, "", tasks),
        Verdict("wrong replies", scenario, 0, "", found.wrong),
        Verdict("keys missed by SCAN", scenario, 0, "", found.missed),
        Verdict("errors of other kinds than those listed", scenario, 0, "", unlisted),
        Verdict("faults that did not end well", scenario, 0, "", found.failed_faults),
        Verdict("commands answered", scenario, 100, "", found.commands, at_least=True),
    ]
