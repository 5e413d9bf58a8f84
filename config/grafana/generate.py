"""The Grafana dashboards, as code: `make dashboards` writes config/grafana/dashboards/*.json.

Two pages: one sidecar in detail, and a fleet side by side. Each panel is one line of the tables
below; tests hold that the files are what this prints, that every metric exists, and that every
expression answers on a real Prometheus.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
)
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24  # columns of Grafana's grid

Query = tuple[str, str]  # expression, legend


@dataclass(frozen=True)
class Panel:
    """One panel. `S` in an expression stands for the dashboard's selector of sidecars.

    `bad` colours a number from that value on, or with `below` up to it.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "lines"
    width: int = 8
    help: str = ""
    bad: float | None = None
    below: bool = False
    exemplars: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """A heading and what stands below it."""

    title: str
    panels: Sequence[Panel]


def quantiles(by: str, legend: str) -> list[Query]:
    family = 'family!~"admin|blocking"'
    bucket = f"rate(sidecar_command_duration_seconds_bucket{{S,{family}}}[$__rate_interval])"
    return [
        (f"histogram_quantile({q}, sum by (le{by}) ({bucket}))", f"p{name}{legend}")
        for q, name in (("0.5", "50"), ("0.99", "99"), ("0.999", "99.9"))
    ]


HITS = "sum(rate(sidecar_cache_hits_total{S}[$__rate_interval]))"
MISSES = "sum(rate(sidecar_cache_misses_total{S}[$__rate_interval]))"
COMMANDS = "sum(rate(sidecar_commands_total{S}[$__rate_interval]))"
LOCAL = "sum(rate(sidecar_local_errors_total{S}[$__rate_interval]))"

ONE = (
    Row("Now", (
        Panel("Upstream", [("min(sidecar_upstream_up{S})", "")], kind="stat", width=3,
              bad=1, below=True, help="1 while the server behind is reachable."),
        Panel("Breaker open", [('max(sidecar_breaker_state{S,state="open"})', "")], kind="stat",
              width=3, bad=1),
        Panel("Clients", [("sum(sidecar_client_connections{S})", "")], kind="stat", width=3),
        Panel("Commands", [(COMMANDS, "")], "ops", "stat", 3),
        Panel("Errors of its own", [(LOCAL, "")], "ops", "stat", 3, bad=0.1),
        Panel("Hit ratio", [(f"{HITS} / ({HITS} + {MISSES} > 0)", "")], "percentunit", "stat", 3),
        Panel("p99", [quantiles("", "")[1]], "s", "stat", 3, bad=0.1),
        Panel("Held clients", [("sum(sidecar_held_clients{S})", "")], kind="stat", width=3,
              bad=1),
    )),
    Row("Traffic", (
        Panel("Commands", [("topk(10, sum by (command) (rate(sidecar_commands_total{S}"
                            "[$__rate_interval])))", "{{command}}")], "ops", stacked=True,
              help="The ten most frequent."),
        Panel("Time to the reply", quantiles("", ""), "s", exemplars=True,
              help="Without blocking commands. Points lead to traces."),
        Panel("Time to the reply, p99 by family",
              [("histogram_quantile(0.99, sum by (le, family) (rate("
                "sidecar_command_duration_seconds_bucket{S}[$__rate_interval])))", "{{family}}")],
              "s"),
        Panel("Errors", [
            ("sum by (family) (rate(sidecar_command_errors_total{S}[$__rate_interval]))",
             "server: {{family}}"),
            (LOCAL, "sidecar"),
            ("sum(rate(sidecar_uncertain_total{S}[$__rate_interval]))", "in doubt"),
            ("sum(rate(sidecar_protocol_errors_total{S}[$__rate_interval]))", "protocol"),
        ], "ops"),
        Panel("Bytes", [
            ("sum(rate(sidecar_client_receive_bytes_total{S}[$__rate_interval]))", "from clients"),
            ("sum(rate(sidecar_client_transmit_bytes_total{S}[$__rate_interval]))", "to clients"),
            ("sum(rate(sidecar_upstream_receive_bytes_total{S}[$__rate_interval]))",
             "from the server"),
            ("sum(rate(sidecar_upstream_transmit_bytes_total{S}[$__rate_interval]))",
             "to the server"),
        ], "Bps"),
        Panel("Clients", [
            ("sum(sidecar_client_connections{S})", "connected"),
            ("sum(rate(sidecar_client_connections_accepted_total{S}[$__rate_interval]))",
             "accepted/s"),
            ("sum(rate(sidecar_client_connections_rejected_total{S}[$__rate_interval]))",
             "refused/s"),
            ("sum by (reason) (rate(sidecar_client_connections_closed_total{S}[$__rate_interval]))",
             "closed/s: {{reason}}"),
        ]),
    )),
    Row("Near cache and hot keys", (
        Panel("Answers", [
            (HITS, "hits"),
            ("sum by (reason) (rate(sidecar_cache_misses_total{S}[$__rate_interval]))",
             "miss: {{reason}}"),
            ("sum(rate(sidecar_cache_observed_hits_total{S}[$__rate_interval]))", "observed hits"),
            ("sum(rate(sidecar_cache_proof_waits_total{S}[$__rate_interval]))", "waited for proof"),
        ], "ops", stacked=True),
        Panel("Memory", [("sum(sidecar_cache_bytes{S})", "used"),
                         ("sum(sidecar_cache_limit_bytes{S})", "limit")], "bytes"),
        Panel("Age of the proof", [("max(sidecar_cache_proof_age_seconds{S})", "")], "s",
              help="Above cache.max_staleness the cache is bypassed."),
        Panel("Changes", [
            ("sum by (cause) (rate(sidecar_cache_invalidations_total{S}[$__rate_interval]))",
             "invalidated: {{cause}}"),
            ("sum(rate(sidecar_cache_stored_total{S}[$__rate_interval]))", "stored"),
            ("sum(rate(sidecar_cache_evictions_total{S}[$__rate_interval]))", "evicted"),
            ("sum(rate(sidecar_cache_expirations_total{S}[$__rate_interval]))", "expired"),
            ("sum(rate(sidecar_cache_flushes_total{S}[$__rate_interval]))", "flushed"),
            ("sum(rate(sidecar_cache_connections_lost_total{S}[$__rate_interval]))", "lost"),
            ("sum(rate(sidecar_cache_touched_keys_total{S}[$__rate_interval]))", "kept in use"),
        ], "ops"),
        Panel("Compared with the server", [
            ("sum by (result) (rate(sidecar_cache_checks_total{S}[$__rate_interval]))",
             "{{result}}"),
        ], "ops", help="cache.check of the answers; `different` should never be."),
        Panel("Values", [("sum(sidecar_cache_entries{S})", "here"),
                         ("sum(sidecar_hot_keys{S})", "hot keys")]),
        Panel("Share of the hottest key", [("max(sidecar_hot_key_top_share{S})", "")],
              "percentunit", bad=0.25, help="`sidecar hotkeys` names it."),
        Panel("Hot keys by share", [("topk(10, max by (db, key) (sidecar_hot_key_share{S}))",
                                     "{{key}} (db {{db}})")], "percentunit", "bars",
              help="With `hotkeys.metrics`, which is off by default."),
        Panel("Hot keys by rate", [("topk(10, sum by (db, key) (sidecar_hot_key_rate{S}))",
                                    "{{key}} (db {{db}})")], "ops",
              help="With `hotkeys.metrics`, which is off by default."),
    )),
    Row("Upstream and failover", (
        Panel("Connections", [("sum by (kind) (sidecar_upstream_links{S})", "{{kind}}"),
                              ("sum(increase(sidecar_upstream_reconnects_total{S}"
                               "[$__rate_interval]))", "reconnects")]),
        Panel("Breaker", [("max by (state) (sidecar_breaker_state{S})", "{{state}}"),
                          ("sum(increase(sidecar_breaker_opened_total{S}[$__rate_interval]))",
                           "opened")]),
        Panel("Oldest request", [("max(sidecar_upstream_oldest_request_seconds{S})", "its age"),
                                 ("max(sidecar_upstream_silence_seconds{S})", "silence")], "s",
              bad=2.5, help="Silence: nothing has come where a reply was due."),
        Panel("Held requests", [("sum(sidecar_held_clients{S})", "clients"),
                                ("sum(sidecar_paused{S})", "paused sidecars")],
              help="They wait for a master, or for the end of a pause."),
        Panel("Held bytes", [("sum(sidecar_held_bytes{S})", "")], "bytes"),
        Panel("Switches", [("sum(increase(sidecar_master_switches_total{S}[$__rate_interval]))",
                            "switches"),
                           ("max(sidecar_interruption_seconds{S})",
                            "latest interruption, seconds")]),
        Panel("Sentinels and replicas", [("max by (state) (sidecar_sentinels{S})",
                                          "Sentinels {{state}}"),
                                         ("max(sidecar_replicas{S})", "replicas")]),
        Panel("Shards", [("max by (state) (sidecar_cluster_shards{S})", "{{state}}"),
                         ("max(sidecar_cluster_slots_uncovered{S})", "slots that nobody has")],
              help="Of a cluster. Lost: no primary, or no connection. Overdue: silent, with "
                   "replies due."),
        Panel("Slots of a shard", [("max by (which) (sidecar_cluster_shard_slots{S})",
                                    "{{which}}")],
              help="Of a cluster: far apart, they say that shards have unequal work."),
        Panel("Changes of the cluster", [
            ("max(increase(sidecar_cluster_slots_moved_total{S}[$__rate_interval]))",
             "slots moved"),
            ("max(increase(sidecar_cluster_switches_total{S}[$__rate_interval]))",
             "primaries switched"),
        ], help="As one sidecar has seen them."),
        Panel("Redirections", [
            ("sum by (kind) (rate(sidecar_cluster_redirections_total{S}[$__rate_interval]))",
             "{{kind}}"),
            ("sum(sidecar_cluster_waiting_clients{S})", "clients that wait"),
            ("sum(rate(sidecar_cluster_resubscriptions_total{S}[$__rate_interval]))",
             "subscribers moved"),
        ], help="Of a cluster: many, for long, say that slots move or that nodes disagree."),
    )),
    Row("Who may do what", (
        Panel("Refused by policies and limits", [
            ("sum by (identity, reason) (rate(sidecar_refused_total{S}[$__rate_interval]))",
             "{{identity}}: {{reason}}"),
        ], "ops", help="By a command policy (command, key), a limit, or because the loop lags "
                       "(overload)."),
        Panel("Limits that make clients wait", [
            ("sum by (identity) (rate(sidecar_delayed_commands_total{S}[$__rate_interval]))",
             "{{identity}}: commands a second"),
            ("sum(sidecar_limited_clients{S})", "clients that wait now"),
        ]),
        Panel("Logins", [("sum by (result) (rate(sidecar_logins_total{S}[$__rate_interval]))",
                          "{{result}}")], "ops", help="Where the sidecar judges them."),
    )),
    Row("The process", (
        Panel("CPU", [("sum(rate(process_cpu_seconds_total{S}[$__rate_interval]))", "cores")],
              help="One core for each worker at most."),
        Panel("Workers", [("sum by (state) (sidecar_workers{S})", "{{state}}"),
                          ("sum(increase(sidecar_worker_restarts_total{S}[$__rate_interval]))",
                           "restarted")],
              help="Of sidecars with more than one worker."),
        Panel("Admin port", [
            ("sum(sidecar_admin_connections{S})", "connections"),
            ("sum(sidecar_admin_streams{S})", "live streams"),
            ("sum(increase(sidecar_admin_streams_opened_total{S}[$__rate_interval]))",
             "streams opened"),
            ("sum by (reason) (increase(sidecar_admin_refused_total{S}[$__rate_interval]))",
             "refused: {{reason}}"),
            ("sum by (reason) "
             "(increase(sidecar_admin_connections_closed_total{S}[$__rate_interval]))",
             "closed: {{reason}}"),
        ]),
        Panel("Memory", [("sum(process_resident_memory_bytes{S})", "")], "bytes"),
        Panel("Lag of the event loop", [("max(sidecar_event_loop_lag_seconds{S})", "")], "s",
              bad=0.25),
        Panel("Tasks of the event loop", [("sum(sidecar_event_loop_tasks{S})", "")],
              help="They come and go with the load; a number that only grows is a fault."),
        Panel("Log", [
            ("sum by (stream) (rate(sidecar_log_lines_total{S}[$__rate_interval]))", "{{stream}}"),
            ("sum by (stream) (rate(sidecar_log_dropped_total{S}[$__rate_interval]))",
             "dropped: {{stream}}"),
            ("sum(rate(sidecar_log_suppressed_total{S}[$__rate_interval]))", "suppressed"),
            ("sum(rate(sidecar_unaudited_total{S}[$__rate_interval]))", "not audited"),
        ], "ops"),
        Panel("Traces", [
            ("sum by (why) (rate(sidecar_traced_commands_total{S}[$__rate_interval]))", "{{why}}"),
            ("sum(rate(sidecar_untraced_commands_total{S}[$__rate_interval]))", "too many"),
            ("sum(rate(sidecar_spans_exported_total{S}[$__rate_interval]))", "spans sent"),
            ("sum by (reason) (rate(sidecar_spans_dropped_total{S}[$__rate_interval]))",
             "spans dropped: {{reason}}"),
        ], "ops"),
        Panel("Certificates end in", [("min by (certificate) ("
                                       "sidecar_tls_certificate_expiry_timestamp_seconds{S})"
                                       " - time()", "{{certificate}}")], "s", "bars", bad=1209600,
              below=True),
        Panel("TLS handshakes that failed", [
            ("sum by (side, reason) (rate(sidecar_tls_handshake_failures_total{S}"
             "[$__rate_interval]))", "{{side}}: {{reason}}"),
        ], "ops"),
        Panel("Warm start", [("sum by (state) (sidecar_warmup_keys{S})", "{{state}}"),
                             ("max(sidecar_warmup_duration_seconds{S})", "seconds")]),
    )),
)  # fmt: skip

FLEET = (
    Row("Now", (
        Panel("Sidecars", [("count(up{S})", "known"), ("sum(up{S})", "up")], kind="stat", width=4),
        Panel("Without a server",
              [("count(sidecar_upstream_up{S} == 0) or vector(0)", "")], kind="stat", width=4,
              bad=1),
        Panel("Commands", [(COMMANDS, "")], "ops", "stat", 4),
        Panel("Errors of their own", [(f"{LOCAL} / ({COMMANDS} + {LOCAL} > 0)", "")],
              "percentunit", "stat", 4, bad=0.001),
        Panel("Hit ratio", [(f"{HITS} / ({HITS} + {MISSES} > 0)", "")], "percentunit", "stat", 4),
        Panel("Alerts", [('count(ALERTS{alertname=~"Sidecar.+",alertstate="firing",team=~"$team"})'
                          " or vector(0)", "")], kind="stat", width=4, bad=1),
    )),
    Row("Side by side", (
        Panel("Commands by application", [("sum by (app) (rate(sidecar_commands_total{S}"
                                           "[$__rate_interval]))", "{{app}}")], "ops",
              stacked=True),
        Panel("p99, the slowest ten",
              [("topk(10, histogram_quantile(0.99, sum by (le, instance) (rate("
                "sidecar_command_duration_seconds_bucket{S}[$__rate_interval]))))",
                "{{instance}}")], "s"),
        Panel("Errors of their own, the worst ten",
              [("topk(10, sum by (instance) (rate(sidecar_local_errors_total{S}"
                "[$__rate_interval])))", "{{instance}}")], "ops"),
        Panel("Hit ratio, the worst ten",
              [("bottomk(10, sum by (instance) (rate(sidecar_cache_hits_total{S}"
                "[$__rate_interval])) / (sum by (instance) (rate(sidecar_cache_hits_total{S}"
                "[$__rate_interval])) + sum by (instance) (rate(sidecar_cache_misses_total{S}"
                "[$__rate_interval])) > 0))", "{{instance}}")], "percentunit"),
        Panel("Without a server", [("sum by (instance) (1 - sidecar_upstream_up{S}) > 0",
                                    "{{instance}}")], stacked=True),
        Panel("Switches of masters", [("sum by (app) (increase(sidecar_master_switches_total{S}"
                                       "[$__rate_interval]))", "{{app}}")]),
        Panel("Clients by application", [("sum by (app) (sidecar_client_connections{S})",
                                          "{{app}}")], stacked=True),
        Panel("Connections to servers", [("sum by (kind) (sidecar_upstream_links{S})",
                                          "{{kind}}")], stacked=True),
        Panel("Memory, the largest ten", [("topk(10, process_resident_memory_bytes{S})",
                                           "{{instance}}")], "bytes"),
        Panel("CPU, the busiest ten", [("topk(10, rate(process_cpu_seconds_total{S}"
                                        "[$__rate_interval]))", "{{instance}}")]),
        Panel("Lag of the event loop, the worst ten",
              [("topk(10, sidecar_event_loop_lag_seconds{S})", "{{instance}}")], "s"),
        Panel("Versions", [("count by (version) (sidecar_build_info{S})", "{{version}}")],
              stacked=True),
    )),
    Row("Objectives", (
        Panel("Error budget: availability", [("max(sidecar:errors:ratio1h{S})", "1 h"),
                                             ("max(sidecar:errors:ratio6h{S})", "6 h"),
                                             ("max(sidecar:errors:ratio3d{S})", "3 d")],
              "percentunit", width=12, bad=0.001, help="Of the worst sidecar; at most 0.1 %."),
        Panel("Error budget: latency", [("max(sidecar:slow:ratio1h{S})", "1 h"),
                                        ("max(sidecar:slow:ratio6h{S})", "6 h"),
                                        ("max(sidecar:slow:ratio3d{S})", "3 d")],
              "percentunit", width=12, bad=0.01, help="Of the worst sidecar; at most 1 %."),
    )),
)  # fmt: skip


def expression(text: str, selector: str) -> str:
    """An expression of the tables, with the selector in the place of S."""
    return text.replace("{S}", f"{{{selector}}}").replace("{S,", f"{{{selector},")


Builder = stat.Panel | timeseries.Panel | bargauge.Panel


def build_panel(panel: Panel, selector: str) -> Builder:
    """One panel of the SDK's."""
    made: Builder
    if panel.kind == "lines":
        lines = timeseries.Panel().fill_opacity(15 if panel.stacked else 5).line_width(1)
        lines = lines.legend(
            VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        if panel.stacked:
            lines = lines.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
        made = lines.height(8)
    else:
        calculations = ReduceDataOptions().calcs(["lastNotNull"])
        kind: stat.Panel | bargauge.Panel
        kind = stat.Panel() if panel.kind == "stat" else bargauge.Panel()
        made = kind.reduce_options(calculations).height(4 if panel.kind == "stat" else 8)
    made = made.title(panel.title).unit(panel.unit).span(panel.width).datasource(SOURCE)
    if panel.unit != "s" or panel.kind != "bars":
        made = made.min(0)
    if panel.help:
        made = made.description(panel.help)
    if panel.bad is not None:
        good, bad = ("red", "green") if panel.below else ("green", "red")
        steps = [model.Threshold(color=good), model.Threshold(value=panel.bad, color=bad)]
        mode = model.ThresholdsMode.ABSOLUTE
        made = made.thresholds(ThresholdsConfig().mode(mode).steps(steps))
    for number, (text, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression(text, selector)).legend_format(legend)
        query = query.ref_id(chr(ord("A") + number)).datasource(SOURCE)
        made = made.with_target(query.exemplar(panel.exemplars))
    return made


def variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A choice of label values; all of them at first."""
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    made = made.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    made = made.sort(model.VariableSort.ALPHABETICAL_ASC).include_all(True).multi(True)
    return made.all_value(".*").current(
        model.VariableOption(selected=True, text="All", value="$__all")
    )


def build(
    title: str, uid: str, rows: Sequence[Row], selector: str, names: Sequence[str]
) -> dashboard.Dashboard:
    """One dashboard."""
    made = dashboard.Dashboard(title).uid(uid).tags(["redis", "redis-sidecar"]).readonly()
    made = made.refresh("10s").time("now-1h", "now").timezone("browser")
    made = made.tooltip(model.DashboardCursorSync.CROSSHAIR)
    made = made.with_variable(
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    )
    chosen: list[str] = []
    for name in names:
        narrow = "".join(f',{other}=~"${other}"' for other in chosen)
        query = f'label_values(up{{job="redis-sidecar"{narrow}}}, {name})'
        made = made.with_variable(variable(name, name.capitalize(), query))
        chosen.append(name)
    for row in rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(build_panel(panel, selector))
    return made


def dashboards() -> dict[str, str]:
    """Every file by its name, as text."""
    job = 'job="redis-sidecar"'
    pages = {
        "sidecar.json": build(
            "Redis sidecar", "redis-sidecar", ONE,
            f'{job},app=~"$app",instance=~"$instance"', ("app", "instance"),
        ),
        "fleet.json": build(
            "Redis sidecars: fleet", "redis-sidecar-fleet", FLEET,
            f'{job},team=~"$team",app=~"$app"', ("team", "app"),
        ),
    }  # fmt: skip
    return {
        name: json.dumps(page.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, page in pages.items()
    }


def main() -> int:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
