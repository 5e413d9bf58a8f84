"""Runs one drill in one lane: servers up, load on, the drill, load off, everything compared."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.drills.crowds import Crowds
from bench.drills.drill import Drill
from bench.drills.figures import Figures, Recording, measure, timeline
from bench.drills.scene import Say, Scene, start_sidecar
from bench.drills.spec import Spec
from bench.drills.switches import Address, announcements, shown
from bench.drills.watch import Watch
from bench.drills.world import Options
from tests.harness.checker import records as recording
from tests.harness.checker.records import Record
from tests.harness.errors import GONE, Unavailable
from tests.harness.fleet import Fleet
from tests.harness.wire import Wire

BEFORE, AFTER = 2.0, 1.5
"""Seconds of load before the first fault, and after everything is settled."""

BATCH = 1000


@dataclass
class Run:
    """One lane once: its figures, what the picture needs, or the reason why there is nothing."""

    figures: Figures | None = None
    problem: str = ""
    timeline: dict[str, list[list[float | str]]] = field(default_factory=dict)
    """Seconds after the first fault."""
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    """(seconds after the first fault, what, `fault` | `step` | `sentinel`)."""
    sidecar_log: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        fields = asdict(self)
        del fields["sidecar_log"]
        return fields


@dataclass
class LaneResult:
    """All runs of one drill in one lane."""

    drill: Drill[Any]
    lane: str
    runs: list[Run] = field(default_factory=list)

    @property
    def good(self) -> list[Figures]:
        """The figures of the runs that came to their end."""
        return [run.figures for run in self.runs if run.figures]

    @property
    def problems(self) -> list[str]:
        """Why the others did not."""
        return [run.problem for run in self.runs if run.problem]


def final_values(holder: Address, records: Iterable[Record]) -> dict[str, int]:
    """What the last master holds of all keys the load ever wrote."""
    sets = sorted({r.key for r in records if r.op == "set"})
    counts = sorted({r.key for r in records if r.op == "incr"})
    found: dict[str, int] = {}
    with Wire(holder, deadline=10) as wire:
        for begin in range(0, len(sets), BATCH):
            keys = sets[begin : begin + BATCH]
            values = wire.call("MGET", *keys)
            found |= {k: recording.decode(k, v) for k, v in zip(keys, values, strict=True)}
        found |= {key: int(wire.call("GET", key) or 0) for key in counts}
    return found


def _specs(scene: Scene[Any], drill: Drill[Any], fleet: Fleet) -> list[Spec]:
    specs: list[Spec] = []
    for crowd in drill.crowds:
        spec = Spec(
            port=scene.sidecar.port if scene.sidecar else 0,
            out=str(fleet.folder / f"history-{len(specs)}.json"),
            crowd=crowd,
            first=sum(spec.crowd.size for spec in specs),
            timeout=_patience(scene, drill),
        )
        specs.append(spec if scene.sidecar else scene.world.direct(spec))
    return specs


def _patience(scene: Scene[Any], drill: Drill[Any]) -> float:
    return max(scene.options.client_timeout, drill.patience)


def _marks(scene: Scene[Any], zero: float) -> list[tuple[float, str, str]]:
    steps = [(m.time - zero, m.text, "fault" if m.fault else "step") for m in scene.marks]
    said = [(s.time - zero, s.channel, "sentinel") for s in shown(scene.watch.said)]
    begin = scene.marks[0].time - zero
    return sorted(steps + [s for s in said if s[0] >= begin])


def _until_noticed(scene: Scene[Any], patience: float) -> float:
    """Seconds until a client that waits since the last fault has run into its timeout."""
    last = max(mark.time for mark in scene.marks if mark.fault)
    return last + patience + 1.0 - time.monotonic()


def _drill(scene: Scene[Any], drill: Drill[Any], fleet: Fleet) -> Run:
    short, specs = scene.options.short, _specs(scene, drill, fleet)
    load = Crowds(fleet, specs, scene.world.env)
    scene.say("load is on")
    scene.pause(BEFORE / 2 if short else BEFORE)
    drill.act(scene)
    scene.pause(AFTER / 3 if short else max(AFTER, _until_noticed(scene, specs[0].timeout)))
    records, connects = load.stop()
    final = final_values(scene.world.holder(), records)
    announced = [*announcements(scene.watch.said), *scene.announced]
    retries = any(spec.crowd.tries_again for spec in specs)
    seen = Recording(records, final, scene.marks, announced, scene.watch.roles, retries, connects)
    zero = min(mark.time for mark in scene.marks if mark.fault)
    return Run(
        figures=measure(seen),
        timeline=timeline(records, zero),
        marks=_marks(scene, zero),
    )


def run_once(drill: Drill[Any], lane: str, options: Options, say: Say) -> Run:
    """One run in a world of its own. What goes wrong with the drill itself becomes `problem`."""
    run, scene = Run(), None
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet())
        try:
            begin = time.monotonic()
            world = stack.enter_context(closing(drill.world(fleet, options)))
            say(f"servers are up after {time.monotonic() - begin:.1f} s")
            sidecar = start_sidecar(fleet, world, options) if lane == "sidecar" else None
            with Watch(world) as watch:
                scene = Scene(options, lane, fleet, world, watch, sidecar, say)
                run = _drill(scene, drill, fleet)
            if scene.sidecar and not scene.sidecar.running:
                run.problem = f"the sidecar ended: {scene.sidecar.tail()}"
        except (*GONE, Unavailable) as error:
            run.problem = str(error)
        if scene and scene.sidecar:
            run.sidecar_log = scene.sidecar.log()
    return run


def run_lane(drill: Drill[Any], lane: str, options: Options, say: Say) -> LaneResult:
    """All runs of a drill in a lane."""
    result = LaneResult(drill, lane)
    for turn in range(options.repeat):
        if options.repeat > 1:
            say(f"run {turn + 1} of {options.repeat}")
        result.runs.append(run_once(drill, lane, options, say))
    return result
