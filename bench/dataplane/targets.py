"""The data-plane targets, each as a rule over the scenarios, with its verdict.

A row is judged only if the run measured what it needs; otherwise it says "not measured". A
missed target is shown as missed, always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.dataplane.runner import ScenarioResult
from bench.report import rounds
from bench.report.verdict import Verdict
from tests.harness.distribution import Spread, spread

Results = Mapping[str, ScenarioResult]


Figure = Callable[[ScenarioResult], Spread | None]


@dataclass(frozen=True)
class Rule:
    """One target: in which scenario, how its figure is got, and the limit."""

    target: str
    scenario: str
    limit: float
    figure: Figure
    unit: str = "x"
    at_least: bool = False


def _compare(
    peer: str, case: str = "", field: str = "proxy", peer_case: str | None = None, theirs: str = ""
) -> Figure:
    """sidecar's `field` over a peer's (`theirs` if it is another field)."""

    def figure(result: ScenarioResult) -> Spread | None:
        ours = result.lane("sidecar", case)
        other = result.lane(peer, case if peer_case is None else peer_case)
        return rounds.ratio(ours, other, field, theirs) if ours and other else None

    return figure


def _added_latency(result: ScenarioResult) -> Spread | None:
    """(sidecar - direct) over (envoy - direct), p50, round by round."""
    lanes = [result.lane(peer) for peer in ("sidecar", "direct", "envoy")]
    found = [lane for lane in lanes if lane]
    if len(found) < 3:
        return None
    each_round = zip(*(lane.rounds for lane in found), strict=False)
    values = [
        (ours["p50"] - base["p50"]) / (theirs["p50"] - base["p50"])
        for ours, base, theirs in each_round
        if theirs["p50"] > base["p50"]
    ]
    return spread(values) if values else None


def _observed(case: str) -> Figure:
    """All telemetry over as little as can be."""

    def figure(result: ScenarioResult) -> Spread | None:
        on, off = result.lane("observed", case), result.lane("unobserved", case)
        return rounds.ratio(on, off, "proxy") if on and off else None

    return figure


def _kib(result: ScenarioResult) -> Spread | None:
    lane = result.lane("sidecar")
    return rounds.of(lane, "kib") if lane else None


def _within(big: str, small: str, field: str = "proxy") -> Figure:
    """The sidecar under one case over the sidecar under another."""
    return _compare("sidecar", big, field, small)


def _dearest(result: ScenarioResult) -> Spread | None:
    """The dearest count of 50 and more busy connections over 50."""
    base = result.lane("sidecar", "c50")
    more = [case for case, load in result.scenario.cases.items() if load.conns > 50]
    lanes = [lane for case in more if (lane := result.lane("sidecar", case))]
    ratios = [rounds.ratio(lane, base, "proxy") for lane in lanes if base]
    return max((r for r in ratios if r), key=lambda r: r.median, default=None)


RULES: tuple[Rule, ...] = (
    Rule("unpipelined, CPU / twemproxy", "p1", 0.80, _compare("twemproxy")),
    Rule("unpipelined, CPU / Envoy", "p1", 0.70, _compare("envoy")),
    Rule("pipeline 16, CPU / twemproxy", "p16", 0.35, _compare("twemproxy")),
    Rule("pipeline 16, CPU / Envoy", "p16", 0.28, _compare("envoy")),
    Rule("TLS unpipelined, CPU / Envoy", "tls-p1", 0.90, _compare("envoy")),
    Rule("TLS pipeline 16, CPU / Envoy", "tls-p16", 0.45, _compare("envoy")),
    Rule(
        "unix sidecar + server, CPU / direct TCP server",
        "unix-p1",
        0.95,
        _compare("direct", "unix", "both", "tcp", "server"),
    ),
    Rule(
        "the same at pipeline 16",
        "unix-p16",
        0.95,
        _compare("direct", "unix", "both", "tcp", "server"),
    ),
    Rule("added p50 at 1 connection / Envoy's", "lat1", 0.85, _added_latency),
    Rule("1 MiB GET, CPU / Envoy", "v1m", 1.0, _compare("envoy", "get")),
    Rule("1 MiB SET, CPU / Envoy", "v1m", 1.0, _compare("envoy", "set")),
    Rule("idle connection", "idle", 3, _kib, unit="KiB"),
    Rule("idle TLS connection", "idle-tls", 20, _kib, unit="KiB"),
    Rule("10,000 clients / 100 clients, CPU", "clients", 1.10, _within("10k", "100")),
    Rule(
        "10,000 clients / 100 clients, throughput",
        "clients",
        0.90,
        _within("10k", "100", "rps"),
        at_least=True,
    ),
    Rule("5,000 busy / 1 busy, CPU", "growth", 1.10, _within("c5000", "c1")),
    Rule("dearest of 200..5,000 busy / 50 busy, CPU", "growth", 1.10, _dearest),
    Rule("1M keys / 1k keys, CPU", "keys", 1.10, _within("1m", "1k")),
    Rule("all telemetry / none, unpipelined, CPU", "telemetry", 1.05, _observed("p1")),
    Rule("all telemetry / none, pipeline 16, CPU", "telemetry", 1.05, _observed("p16")),
    Rule("10M keys / 1k keys, CPU", "keys10m", 1.10, _within("10m", "1k")),
)


def judge(results: Results) -> list[Verdict]:
    """One verdict for every rule, in the order of the table of targets."""
    return [
        Verdict.of(
            rule,
            rule.scenario,
            rule.figure(results[rule.scenario]) if rule.scenario in results else None,
        )
        for rule in RULES
    ]
