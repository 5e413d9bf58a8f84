"""The drills as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.drills import report
from bench.drills.drill import Drill
from bench.drills.runner import LaneResult
from bench.drills.targets import Verdict
from bench.drills.world import Options
from bench.report import tables

METHOD = """
Each drill and lane has servers of its own, all on 127.0.0.1, without persistence. The load is a
process of its own: 8 writers (each key once), 8 readers (of keys they write themselves) and 2
counting clients, each with one connection, in a closed loop with pauses of 3 to 9 ms. Every
command's outcome is recorded and compared with what the last master holds once everything is
repaired.

* **sidecar**: redis-py's plain client at the sidecar's address, without retries.
* **direct**: redis-py without a sidecar:
{direct}

Timeouts of both are {timeout:g} s{patient}. An error counts as an error; the client goes on with
its next command. A pause is the longest time in which one client had no success. Lost are
acknowledged writes that the last master does not have. A master is announced by the first
`+switch-master` of any Sentinel; behind a name, at the moment from which on both are right, the
name and the role of the server it leads to. The first served write is the first one acknowledged
after the promotion that is still there in the end: what the old master took after that is gone.
Names of errors in capitals are servers' error codes, in small letters failures of the network
(`refused`: no connection was made; `closed`: it ended before the answer).
"""


def _head(facts: Mapping[str, Any], options: Options, drills: Sequence[Drill[Any]]) -> list[str]:
    settings = "".join(f", {key}={value}" for key, value in options.sidecar_settings.items())
    worlds = list(dict.fromkeys(drill.world.ABOUT for drill in drills))
    directs = dict.fromkeys(d.world.DIRECT for d in drills if "direct" in d.lanes)
    patient = [f"{d.patience:g} s in {d.number}" for d in drills if d.patience]
    return [
        *tables.head("Failover drills", facts),
        "",
        *(f"- {about}." for about in worlds),
        "",
        f"Sentinels: `down-after-milliseconds` {options.down_after}. Sidecar: "
        f"`failover.switch_on` {options.switch_on}, `failover.min_replicas_ack` "
        f"{options.min_replicas_ack} (with Sentinels){settings}. Retries of the Sentinel client: "
        f"{options.direct_retries}. Runs of each: {options.repeat}; of several runs the tables "
        "show the worst of each figure, and below each drill the run with the median pause.",
        METHOD.format(
            direct="\n".join(f"  - {how}" for how in directs) or "  - not here",
            timeout=options.client_timeout,
            patient="".join(f", {text}" for text in patient),
        ),
    ]


def _drill(results: Sequence[LaneResult], pictures: bool) -> list[str]:
    drill = results[0].drill
    columns, rows = report.drill_rows(results)
    lines = ["", f"## {drill.number} {drill.name}", "", drill.about, ""]
    if len(columns) > 1:
        lines += tables.markdown(columns, rows)
    lines += [f"- {line}" for line in report.spread_lines(results)]
    lines += [f"- FAILED: {line}" for line in report.problem_lines(results)]
    if pictures and any(result.good for result in results):
        lines += ["", f"![{drill.name}](drill-{drill.number}.svg)"]
    return lines


def markdown(
    facts: Mapping[str, Any],
    options: Options,
    drills: Sequence[Sequence[LaneResult]],
    verdicts: Sequence[Verdict],
    pictures: bool,
) -> list[str]:
    """The whole run; `drills` are the lanes of each drill."""
    everything = [result for results in drills for result in results]
    lines = [
        *_head(facts, options, [results[0].drill for results in drills]),
        "## All drills",
        "",
        *tables.markdown(report.SUMMARY, report.summary_rows(everything, verdicts)),
        "",
        "## Targets (the sidecar)",
        "",
        *tables.markdown(report.VERDICT_COLUMNS, report.verdict_rows(verdicts)),
    ]
    for results in drills:
        lines += _drill(results, pictures)
    return lines
