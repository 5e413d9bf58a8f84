"""Hot keys: accuracy against exact counts, time to a name, cost and memory of the native sketch.

    python -m bench.hotkeys            everything (about two minutes), written to bench/results/
    python -m bench.hotkeys --quick    one seed and few runs: does everything work?

Streams are seeded and time is told, so all figures but the costs are the same on every machine.
Costs are CPU time of this thread, the least of several rounds, since neighbours only ever add.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import command_line
from bench.hotkeys.measure import Figures, accuracy, cost, detection
from bench.hotkeys.report import accuracy_table, cost_table, detection_table, draw, verdicts
from bench.report import pictures, tables
from sidecar.core.hotkeys.detector import HotKeys


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.hotkeys", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few runs")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    args = parser.parse_args(argv)
    console = command_line.terminal(110)
    figures: Figures = {"accuracy": accuracy(1 if args.quick else 5)}
    console.print(accuracy_table(figures["accuracy"]))
    figures["detection"] = detection(5 if args.quick else 50)
    console.print(detection_table(figures["detection"]))
    figures["cost"], figures["sketch"] = cost(), HotKeys(1).stats()
    console.print(cost_table(figures["cost"], figures["sketch"]))
    found = verdicts(figures)
    tables.print_verdicts(console, found)
    figures["verdicts"] = [verdict.as_dict() for verdict in found]
    folder = command_line.results_folder(args.out, "hotkeys")
    (folder / "hotkeys.json").write_text(json.dumps(figures, indent=1) + "\n")
    with pictures.style():
        draw(figures, folder)
    console.print(command_line.shown(folder))
    return 0 if all(verdict.state == "met" for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main())
