"""The metrics: each declared once, with the way its value is read from a snapshot.

`METRICS` is the table that the exposition, the documentation and the tests read; the part about the
near cache, hot keys and warm start is in cache_metrics.py. Nothing on the data path calls anything
here: a scrape takes one snapshot and reads every metric from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import sidecar
from sidecar.policy.breaker import State
from sidecar.telemetry.cache_metrics import CACHE, HOT_KEYS, WARM_START
from sidecar.telemetry.metric_types import Declared, Histogram, Part, of_data_plane
from sidecar.telemetry.restriction_metrics import RESTRICTIONS
from sidecar.telemetry.snapshots import WORKER_STATES, DataPlane, Snapshot

_data_plane = Part[DataPlane](lambda s: s.data_plane)
_clients = of_data_plane(lambda p: p.clients)
_links = of_data_plane(lambda p: p.links)
_commands = of_data_plane(lambda p: p.commands)
_unanswered = of_data_plane(lambda p: p.unanswered)
_held = of_data_plane(lambda p: p.held)
_breaker = of_data_plane(lambda p: p.breaker)
_failover = of_data_plane(lambda p: p.failover)
_cluster = of_data_plane(lambda p: p.cluster)
_tracing = of_data_plane(lambda p: p.tracing)
_sentinels = Part(lambda s: s.sentinels)
_process = Part(lambda s: s.process)
_admin = Part(lambda s: s.admin)
_workers = Part(lambda s: s.workers)


def _handshake_failures(snapshot: Snapshot) -> Mapping[tuple[str, str], float]:
    plane, sentinels = snapshot.data_plane, snapshot.sentinels
    sides = {
        "listen": plane.clients.tls_failures if plane is not None else {},
        "upstream": plane.links.tls_failures if plane is not None else {},
        "sentinel": sentinels.tls_failures if sentinels is not None else {},
        "admin": snapshot.admin.tls_failures if snapshot.admin is not None else {},
    }
    return {
        (side, reason): count for side, failed in sides.items() for reason, count in failed.items()
    }


def _latency(data_plane: DataPlane) -> Histogram:
    commands, tracing = data_plane.commands, data_plane.tracing
    exemplars = tracing.exemplars if tracing is not None else {}
    return Histogram(commands.bounds, commands.latency, exemplars)


_CLIENTS = (
    _clients.gauge("sidecar_client_connections", "Clients connected now.", lambda c: c.connected),
    _clients.counter(
        "sidecar_client_connections_accepted_total", "Clients accepted.", lambda c: c.accepted
    ),
    _clients.counter(
        "sidecar_client_connections_rejected_total",
        "Clients refused because listen.max_clients were connected.",
        lambda c: c.rejected,
    ),
    _clients.counter(
        "sidecar_logins_total",
        "Logins that the sidecar has judged, by result; busy: too many at once, so not looked at.",
        lambda c: c.logins,
        "result",
    ),
    _clients.counter(
        "sidecar_client_connections_closed_total",
        "Clients whose connection ended, by reason.",
        lambda c: c.closed,
        "reason",
    ),
    _clients.counter(
        "sidecar_client_receive_bytes_total",
        "Bytes received from clients, before encryption.",
        lambda c: c.received_bytes,
    ),
    _clients.counter(
        "sidecar_client_transmit_bytes_total",
        "Bytes sent to clients, before encryption.",
        lambda c: c.sent_bytes,
    ),
)
_UPSTREAM = (
    Declared(
        "sidecar_upstream_up",
        "gauge",
        "1 while the upstream is reachable and no command is lost or overdue, whatever its link.",
        "",
        lambda s: int(s.data_plane is not None and s.data_plane.links.up),
    ),
    _unanswered.gauge(
        "sidecar_upstream_oldest_request_seconds",
        "Age of the oldest request that the server should have answered; not of blocking ones.",
        lambda u: u.oldest,
    ),
    _unanswered.gauge(
        "sidecar_upstream_silence_seconds",
        "How long the server has sent nothing where it owes a reply.",
        lambda u: u.silent,
    ),
    _links.gauge(
        "sidecar_upstream_links",
        "Connections to the upstream: shared, dedicated to one client, or idle in the pool.",
        lambda u: {"shared": u.shared, "dedicated": u.dedicated, "idle": u.idle},
        "kind",
    ),
    _links.counter(
        "sidecar_upstream_reconnects_total",
        "Shared links that were connected again after a loss.",
        lambda u: u.reconnects,
    ),
    _links.counter(
        "sidecar_upstream_receive_bytes_total",
        "Bytes received from the upstream, before encryption.",
        lambda u: u.received_bytes,
    ),
    _links.counter(
        "sidecar_upstream_transmit_bytes_total",
        "Bytes sent to the upstream, before encryption.",
        lambda u: u.sent_bytes,
    ),
)
_COMMANDS = (
    _commands.counter(
        "sidecar_commands_total",
        "Commands answered by the upstream or the near cache; names not in its table are unknown.",
        lambda c: c.calls,
        "command",
    ),
    _commands.counter(
        "sidecar_command_errors_total",
        "Error replies of the upstream, by command family.",
        lambda c: c.errors,
        "family",
    ),
    _data_plane.histogram(
        "sidecar_command_duration_seconds",
        "Time from receiving a command to having its reply, by command family; blocking: as asked.",
        _latency,
        "family",
    ),
    _commands.counter(
        "sidecar_local_errors_total",
        "Error replies of the sidecar itself, for example while the upstream is down.",
        lambda c: c.local_errors,
    ),
    _clients.counter(
        "sidecar_protocol_errors_total",
        "Clients that sent something that is not the Redis protocol.",
        lambda c: c.protocol_errors,
    ),
    _commands.counter(
        "sidecar_unaudited_total",
        "Audited commands and refusals that came too fast to be recorded in the audit stream.",
        lambda c: c.unaudited,
    ),
    _commands.counter(
        "sidecar_uncertain_total",
        "Commands that may or may not have been executed when a connection was lost.",
        lambda c: c.uncertain,
    ),
)
_FAILOVER = (
    _held.gauge(
        "sidecar_held_clients",
        "Clients whose requests wait for a master, or for the end of a pause.",
        lambda h: h.clients,
    ),
    _held.gauge(
        "sidecar_held_bytes",
        "Bytes of requests that wait for a master, or for the end of a pause.",
        lambda h: h.bytes,
    ),
    _held.gauge(
        "sidecar_paused",
        "1 while all commands are held, by an operator or for a planned switch.",
        lambda h: int(bool(h.reason)),
    ),
    _breaker.gauge(
        "sidecar_breaker_state",
        "1 for the current state of the circuit breaker, 0 for the others.",
        lambda b: {state.value: int(state is b.state) for state in State},
        "state",
    ),
    _breaker.counter(
        "sidecar_breaker_opened_total",
        "Times the circuit breaker has opened.",
        lambda b: b.opened,
    ),
    _failover.counter(
        "sidecar_master_switches_total",
        "Times the sidecar switched to another master.",
        lambda f: f.switches,
    ),
    _failover.gauge(
        "sidecar_interruption_seconds",
        "Length of the latest interruption.",
        lambda f: f.last_interruption,
    ),
    _failover.gauge(
        "sidecar_master_switch_timestamp_seconds",
        "When the sidecar last switched to another master, as Unix time.",
        lambda f: f.last_switch,
    ),
    _sentinels.gauge(
        "sidecar_sentinels",
        "Sentinels of the upstream: known, and connected.",
        lambda s: {"known": s.known, "connected": s.connected},
        "state",
    ),
    _sentinels.gauge("sidecar_replicas", "Replicas that the Sentinels know.", lambda s: s.replicas),
    _cluster.gauge(
        "sidecar_cluster_shards",
        "Shards of the cluster: all, those without a primary, those that are lost (they have no "
        "primary, or cannot be connected), and those with replies overdue.",
        lambda c: {
            "all": c.shards,
            "without_primary": c.without_primary,
            "lost": c.lost,
            "overdue": c.overdue,
        },
        "state",
    ),
    _cluster.gauge(
        "sidecar_cluster_shard_slots",
        "Slots of the shard that has most, and of the one that has least.",
        lambda c: {"most": c.most_slots, "least": c.least_slots},
        "which",
    ),
    _cluster.counter(
        "sidecar_cluster_switches_total",
        "Switches of shards to another primary.",
        lambda c: c.switches,
    ),
    _cluster.counter(
        "sidecar_cluster_slots_moved_total",
        "Slots that went to another shard, or to none.",
        lambda c: c.moved,
    ),
    _cluster.gauge(
        "sidecar_cluster_slots_uncovered",
        "Slots of the cluster that no shard has.",
        lambda c: c.uncovered,
    ),
    _cluster.counter(
        "sidecar_cluster_redirections_total",
        "Answers that sent a request elsewhere, by kind: moved, asked, refused (for now).",
        lambda c: c.redirections,
        "kind",
    ),
    _cluster.counter(
        "sidecar_cluster_resubscriptions_total",
        "Subscribers that were given another link because their node went, or a slot left it.",
        lambda c: c.resubscriptions,
    ),
    _cluster.gauge(
        "sidecar_cluster_waiting_clients",
        "Clients whose requests wait because slots move, or nobody has theirs.",
        lambda c: c.waiting,
    ),
)
_PROCESS = (
    _data_plane.gauge(
        "sidecar_tls_certificate_expiry_timestamp_seconds",
        "When a certificate or revocation list in use ends (Unix time): listen, upstream, …-crl.",
        lambda p: p.certificates or None,
        "certificate",
    ),
    _data_plane.gauge(
        "sidecar_tls_certificate_start_timestamp_seconds",
        "From when that certificate or revocation list is valid (Unix time).",
        lambda p: p.certificates_begin or None,
        "certificate",
    ),
    Declared(
        "sidecar_tls_handshake_failures_total",
        "counter",
        "TLS handshakes that failed, by side (listen: clients, upstream, sentinel, admin), reason.",
        "side,reason",
        _handshake_failures,
    ),
    _process.gauge(
        "sidecar_event_loop_lag_seconds",
        "Longest delay of the event loop within the last 30 to 60 seconds.",
        lambda p: p.loop_lag,
    ),
    _process.gauge(
        "sidecar_event_loop_tasks",
        "Tasks of the event loop: with the same clients always about as many.",
        lambda p: p.loop_tasks,
    ),
    _process.counter(
        "sidecar_log_lines_total",
        "Lines written, by stream: log or audit.",
        lambda p: {stream: lines.written for stream, lines in p.lines.items()},
        "stream",
    ),
    _process.counter(
        "sidecar_log_dropped_total",
        "Lines dropped because their reader was too slow, by stream.",
        lambda p: {stream: lines.dropped for stream, lines in p.lines.items()},
        "stream",
    ),
    _process.counter(
        "sidecar_log_suppressed_total",
        "Log lines left out because the same event had been logged often enough.",
        lambda p: p.suppressed,
    ),
)
_ADMIN = (
    _admin.gauge(
        "sidecar_admin_connections", "Connections of the admin port.", lambda a: a.connections
    ),
    _admin.counter(
        "sidecar_admin_connections_closed_total",
        "Connections that the admin port closed: to make room (limit), because a request was not "
        "whole in time (slow), or because none came (idle).",
        lambda a: a.closed,
        "reason",
    ),
    _admin.counter(
        "sidecar_admin_refused_total",
        "Requests that the admin port refused: without a valid token, with a token for reading "
        "only (role), under a foreign host name, or from another site.",
        lambda a: a.refused,
        "reason",
    ),
    _admin.gauge("sidecar_admin_streams", "Live streams that are open.", lambda a: a.streams),
    _admin.counter(
        "sidecar_admin_streams_opened_total",
        "Live streams that were opened.",
        lambda a: a.streams_opened,
    ),
)
_WORKERS = (
    _workers.gauge(
        "sidecar_workers",
        "Worker processes (workers above 1), by state: up, silent (no answer), or starting.",
        lambda w: {state: sum(each.state == state for each in w) for state in WORKER_STATES},
        "state",
    ),
    _workers.counter(
        "sidecar_worker_restarts_total",
        "Workers that ended and were started again.",
        lambda w: sum(each.restarts for each in w),
    ),
)
_TRACING = (
    _tracing.counter(
        "sidecar_traced_commands_total",
        "Commands traced, by reason: sampled, slow or failed (a command can have several).",
        lambda t: t.commands,
        "why",
    ),
    _tracing.counter(
        "sidecar_untraced_commands_total",
        "Commands to be traced that were not, because there were too many in that second.",
        lambda t: t.untraced,
    ),
    _tracing.counter(
        "sidecar_spans_exported_total",
        "Spans that the collector has accepted.",
        lambda t: t.spans_exported,
    ),
    _tracing.counter(
        "sidecar_spans_dropped_total",
        "Spans not sent, by reason: the queue was full, or the collector did not accept them.",
        lambda t: t.spans_dropped,
        "reason",
    ),
)

METRICS: tuple[Declared, ...] = (
    Declared(
        "sidecar_build_info",
        "info",
        "Always 1; the label names the version.",
        "version",
        lambda _: {sidecar.__version__: 1},
    ),
    *_CLIENTS,
    *_UPSTREAM,
    *_COMMANDS,
    *_FAILOVER,
    *CACHE,
    *HOT_KEYS,
    *WARM_START,
    *RESTRICTIONS,
    *_PROCESS,
    *_ADMIN,
    *_WORKERS,
    *_TRACING,
)
