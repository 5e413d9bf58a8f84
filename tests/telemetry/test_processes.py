"""Figures of several processes: added, and what an ended one had used stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from sidecar.telemetry.processes import Processes, ProcessFigure

USED, MEMORY = "process_cpu_seconds", "process_resident_memory_bytes"


def by_name(figures: object) -> Mapping[str, ProcessFigure]:
    return {each.name: each for each in figures}  # type: ignore[attr-defined]


def test_added() -> None:
    alone = by_name(Processes().together())
    processes = Processes(lambda: {"1": os.getppid()})
    both, each = by_name(processes.together()), by_name(processes.each())
    assert set(both) == set(alone)
    assert both[MEMORY].values[""] > alone[MEMORY].values[""]
    assert set(each[MEMORY].values) == {"1"}


def test_what_an_ended_one_had_used_stays() -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        there = {"1": child.pid}
        processes = Processes(lambda: there)
        before = by_name(processes.together())[USED].values[""]
        child.kill()
    there.clear()
    assert by_name(processes.together())[USED].values[""] >= before
    assert by_name(Processes().together())[USED].values[""] <= before
