"""`python -m bench.soak`: mixed load and faults for a long time; does anything grow, leak or lie?

The load runs, with faults, for a fifth of the time (the warm-up); then all clients go, and what is
left is counted; then it runs on for the rest of the time, and at the end is counted again. Exit
status 1: a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench import command_line
from bench.report import machine, pictures, tables
from bench.report.verdict import Verdict
from bench.soak import plots, verdicts
from bench.soak.client import LISTED, Ledger
from bench.soak.load import Load
from bench.soak.samples import Rest, Sample, Sampler, growth
from bench.soak.stage import Stage
from bench.soak.upstreams import UPSTREAMS

WARM_UP = 0.2
"""Share of the time."""
SMOKE = 3.0


@dataclass
class Outcome:
    """One run."""

    samples: list[Sample]
    rests: tuple[Rest, Rest]
    ledger: Ledger
    growth: float | None
    missed: int
    walks: int
    faults: Counter[str]
    marks: list[tuple[float, float, str]]
    problems: list[str]
    log: str = ""
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        """Everything that should not have been, in words."""
        left = [f"clients left at rest: {rest.listed}" for rest in self.rests if rest.clients]
        return [*self.ledger.examples, *self.ledger.unlisted, *self.problems, *left]

    @property
    def good(self) -> bool:
        """Whether no target was missed."""
        return all(each.state != "MISSED" for each in self.verdicts)


async def soak(args: argparse.Namespace, tick: Callable[[float, str], None]) -> Outcome:
    """One run. `tick` is told the seconds so far and what goes on."""
    more = command_line.settings(args.sidecar_set)
    ledger = Ledger()
    tick(0, "starting servers")
    stage = await asyncio.to_thread(Stage, args.upstream, args.server, more, args.seed)
    load = Load(stage.doors, stage.sidecar.admin, ledger, size=args.clients, think=args.think)
    sampler = Sampler(stage.sidecar, ledger)
    sampling = asyncio.create_task(sampler.run())
    rests = []
    try:
        for share in (WARM_UP, 1 - WARM_UP):
            await load.begin()

            def check() -> None:
                load.check()
                tick(sampler.now, f"{ledger.commands:,} commands, {ledger.wrong} wrong")

            await stage.storm(args.seconds * share, check)
            tick(sampler.now, "at rest")
            await load.rest()
            rests.append(await sampler.at_rest(at_once=args.smoke))
        await load.look_back()
        before, after = rests
        return Outcome(
            sampler.samples,
            (before, after),
            ledger,
            growth(sampler.samples, before.at, after.at),
            load.missed,
            load.walks,
            stage.counts,
            [
                (begin - sampler.begun, end - sampler.begun, name)
                for begin, end, name in stage.marks
            ],
            stage.problems,
            stage.sidecar.log(),
        )
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
        await load.close()
        await asyncio.to_thread(stage.close)


def judge(outcome: Outcome, args: argparse.Namespace) -> None:
    """Add the verdicts. Of a smoke run what is left at rest says nothing: links go later."""
    before, after = (None, None) if args.smoke else outcome.rests
    found = verdicts.Found(
        outcome.growth,
        before,
        after,
        outcome.ledger.wrong,
        outcome.missed if args.upstream != "sentinel" else None,  # a cursor is one server's own
        outcome.ledger.errors,
        len(outcome.problems),
        outcome.ledger.commands,
    )
    outcome.verdicts = verdicts.judge(found, args.upstream)


def details(outcome: Outcome) -> list[list[str]]:
    """What was done and what was told, in rows."""
    ledger, (before, after) = outcome.ledger, outcome.rests
    rows = [["commands", f"{ledger.commands:,}"], ["walks by SCAN", f"{outcome.walks:,}"]]
    rows += [[f"turns: {name}", f"{count:,}"] for name, count in sorted(ledger.done.items())]
    rows += [[f"fault: {name}", f"{count:,}"] for name, count in sorted(outcome.faults.items())]
    rows += [
        [f"error: {name}", f"{count:,}: {LISTED.get(name, 'NOT LISTED')}"]
        for name, count in ledger.errors.most_common()
    ]
    rows.append(["at rest, before", str(before)])
    rows.append(["at rest, after", str(after)])
    if outcome.growth is not None:
        rows.append(["memory", f"{outcome.growth:+.2%}"])
    return rows


def write(folder: Path, outcome: Outcome, facts: dict[str, Any], title: str) -> None:
    """results.md, results.json, the picture, and the sidecar's log."""
    rows = tables.verdict_rows(outcome.verdicts)
    page = [*tables.head(title, facts), "", *tables.markdown(tables.VERDICT_COLUMNS, rows), ""]
    page += tables.markdown(("what", "how much"), details(outcome))
    page += ["", *(f"- {text}" for text in outcome.told)]
    data = {
        "machine": facts,
        "verdicts": [each.as_dict() for each in outcome.verdicts],
        "samples": [asdict(each) for each in outcome.samples],
        "rests": [asdict(each) for each in outcome.rests],
        "ledger": vars(outcome.ledger),
        "faults": outcome.faults,
        "marks": outcome.marks,
        "problems": outcome.problems,
        "growth": outcome.growth,
    }
    tables.write(folder, page, data)
    (folder / "sidecar.log").write_text(outcome.log)
    plots.draw(folder, title, outcome.samples, outcome.rests, outcome.marks, pictures.note(facts))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of load (600)")
    parser.add_argument("--upstream", choices=list(UPSTREAMS), default="sentinel")
    parser.add_argument("--server", choices=("valkey", "redis7"), default="valkey")
    parser.add_argument("--clients", type=int, default=2, help="of each role (2)")
    parser.add_argument("--think", type=float, default=0.02, help="seconds between turns (0.02)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="does every part run? (plain, 3 s)")
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/soak-TIME)")
    args = parser.parse_args(argv)
    if args.smoke:
        args.seconds, args.upstream, args.clients = SMOKE, "plain", 1
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, write."""
    args = parse(argv)
    console = command_line.terminal(120)
    facts = machine.facts(args.server)
    with command_line.measuring(console), command_line.progress(console) as bar:
        task = bar.add_task("", total=round(args.seconds))

        def tick(now: float, what: str) -> None:
            bar.update(task, completed=min(round(now), round(args.seconds)), description=what)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(soak(args, tick))
    title = f"Soak: {args.upstream}, {args.server}, {args.seconds:g} s"
    judge(outcome, args)
    console.print(tables.table(title, ("what", "how much"), details(outcome), left=("how much",)))
    tables.print_verdicts(console, outcome.verdicts)
    tables.print_problems(console, outcome.told)
    folder = command_line.results_folder(args.out, "soak")
    write(folder, outcome, facts, title)
    console.print(command_line.shown(folder))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
