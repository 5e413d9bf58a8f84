"""What a soak must show, as targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.report.verdict import Verdict
from bench.soak.client import LISTED
from bench.soak.samples import Rest


@dataclass(frozen=True)
class Found:
    """Everything that is judged."""

    growth: float | None
    before: Rest | None
    after: Rest | None
    wrong: int
    missed: int | None
    """Keys that a walk by SCAN did not find though they were there; None: a walk may miss some."""
    errors: Mapping[str, int]
    failed_faults: int
    commands: int


def judge(found: Found, scenario: str) -> list[Verdict]:
    """Each target, met or missed."""
    growth = None if found.growth is None else abs(found.growth) * 100
    unlisted = sum(count for kind, count in found.errors.items() if kind not in LISTED)
    clients = descriptors = tasks = None
    if found.before and found.after:
        descriptors = max(found.after.descriptors - found.before.descriptors, 0)
        tasks = max(found.after.tasks - found.before.tasks, 0)
        clients = max(found.after.clients, found.before.clients)
    return [
        Verdict("memory: change after the warm-up", scenario, 2.0, "%", growth),
        Verdict("clients left at rest", scenario, 0, "", clients),
        Verdict("descriptors at rest: growth", scenario, 0, "", descriptors),
        Verdict("tasks at rest: growth", scenario, 0, "", tasks),
        Verdict("wrong replies", scenario, 0, "", found.wrong),
        Verdict("keys missed by SCAN", scenario, 0, "", found.missed),
        Verdict("errors of other kinds than those listed", scenario, 0, "", unlisted),
        Verdict("faults that did not end well", scenario, 0, "", found.failed_faults),
        Verdict("commands answered", scenario, 100, "", found.commands, at_least=True),
    ]
