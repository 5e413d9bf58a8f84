"""The processes of the load: one for each program, and what all of them were told."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.drills.spec import Connect, Spec
from tests.harness import npm
from tests.harness.checker import records
from tests.harness.checker.records import Record
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.programs import ROOT

IOREDIS = Path(__file__).with_name("ioredis.mjs")
READY_DEADLINE = 15.0


def _argv(spec: Spec) -> list[str]:
    if spec.crowd.program != "ioredis":
        return [sys.executable, "-m", "bench.drills.load"]
    folder, problem = npm.install(ROOT / "tests" / "compat" / "node", "node-clients")
    if problem:
        raise Unavailable(f"no ioredis: {problem}")
    script = folder / f"drill.{spec.port}.mjs"  # node looks for packages beside the script
    shutil.copy(IOREDIS, script)
    return ["node", str(script)]


class Crowds:
    """At work from the constructor until `stop`."""

    def __init__(self, fleet: Fleet, specs: Sequence[Spec], env: dict[str, str]) -> None:
        self._running = []
        for spec in specs:
            argv = [*_argv(spec), json.dumps(spec.as_dict())]
            process = fleet.start(f"load-{spec.crowd.program}", argv, env=env)
            self._running.append((process, Path(spec.out)))
        for process, out in self._running:
            process.wait_ready(Path(f"{out}.ready").exists, READY_DEADLINE)

    def stop(self) -> tuple[list[Record], list[Connect]]:
        """End them: all commands in the order in which they were sent, and all connections."""
        found: list[Record] = []
        connects: list[Connect] = []
        with ThreadPoolExecutor() as together:  # else those that go on would seem to be alone
            list(together.map(lambda each: each[0].stop(30), self._running))
        for _, out in self._running:
            found += records.load(out)
            rows = json.loads(Path(f"{out}.connects").read_text())
            connects += [Connect(*row) for row in rows]
        return sorted(found, key=lambda record: record.sent), connects
