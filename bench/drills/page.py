"""The drills as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.drills import report
from bench.drills.cluster import FAILOVER_TIMEOUT
from bench.drills.runner import LaneResult
from bench.drills.scene import Options
from bench.drills.targets import Verdict
from bench.report import tables

METHOD = """
Each drill and lane has a cluster of its own: 1 master, 2 replicas, 3 Sentinels (quorum 2), all on
127.0.0.1, without persistence. The load is a process of its own: 8 writers (each key once), 8
readers (of keys they write themselves) and 2 counting clients, each with one connection, in a
closed loop with pauses of 3 to 9 ms. Every command's outcome is recorded and compared with what
the last master holds once everything is repaired.

* **sidecar**: redis-py's plain client at the sidecar's address, without retries.
* **direct**: redis-py's own Sentinel client, `Sentinel([...]).master_for(service)`{retries}.

Timeouts of both are {timeout:g} s. An error counts as an error; the client goes on with its next
command. A pause is the longest time in which one client had no success. Lost are acknowledged
writes that the last master does not have. The first served write is the first one acknowledged
after the promotion that is still there in the end: what the old master took after that is gone.
Names of errors in capitals are servers' error codes, in small letters failures of the network
(`refused`: no connection was made; `closed`: it ended before the answer).
"""


def _head(facts: Mapping[str, Any], options: Options) -> list[str]:
    retries = f", {options.direct_retries} retries" if options.direct_retries else ""
    settings = "".join(f", {key}={value}" for key, value in options.sidecar_settings.items())
    return [
        *tables.head("Failover drills", facts),
        "",
        f"Sentinels: `down-after-milliseconds` {options.down_after}, `failover-timeout` "
        f"{FAILOVER_TIMEOUT}, `parallel-syncs` 1. Sidecar: `failover.switch_on` "
        f"{options.switch_on}, `failover.min_replicas_ack` {options.min_replicas_ack}{settings}. "
        f"Runs of each: {options.repeat}; of several runs the tables show the worst of each "
        "figure, and below each drill the run with the median pause.",
        METHOD.format(retries=retries, timeout=options.client_timeout),
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
        *_head(facts, options),
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
