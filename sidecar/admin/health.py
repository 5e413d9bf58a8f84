"""How the upstream is doing: one word, and the reasons for it. Pure: facts in, facts out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sidecar.admin.answers import (
    CacheHealth,
    Health,
    Replication,
    ServerHealth,
    Topology,
)
from sidecar.admin.figures import Percentiles, Recent, breaker_state, gauges
from sidecar.policy.expiry import words
from sidecar.telemetry.facts import Replica, Server, Shard
from sidecar.telemetry.snapshots import Cluster, Held, Snapshot, Unanswered

# Seconds. A replica further behind than this is of little use in a failover.
LAG = 10
# Share of maxmemory. Soon after it the server evicts keys or refuses writes.
MEMORY = 0.95
ERROR_RATIO = 0.05


def health(
    snapshot: Snapshot, recent: Recent, server: Server, topology: Topology, at: float
) -> Health:
    """The status `at` this Unix time, the reasons for it if it is not ok, and the facts behind
    it."""
    now = gauges(snapshot)
    down = _down(snapshot)
    degraded = _degraded(snapshot)
    if not down and server.error:
        degraded.append(f"the server does not answer INFO: {server.error}")
    degraded += _shards(topology.shards or ())
    degraded += _server(server) + _recent(recent) + _sentinels(topology)
    degraded += _certificates(snapshot, at)
    return Health(
        status="down" if down else "degraded" if degraded else "ok",
        reasons=down + degraded,
        role=server.role,
        server=ServerHealth(
            software=server.software,
            version=server.version,
            used_memory=server.used_memory,
            maxmemory=server.maxmemory,
            info_s=server.info_s,
            error=server.error,
        ),
        latency=Percentiles(p50=recent.p50, p95=recent.p95, p99=recent.p99, p999=recent.p999),
        commands_per_second=recent.commands,
        errors_per_second=recent.errors,
        cache=CacheHealth(
            hit_ratio=recent.hit_ratio,
            entries=now.cache.entries,
            bytes=now.cache.bytes,
            limit_bytes=now.cache.limit_bytes,
            mode=now.cache.mode,
            proof_age_s=now.cache.proof_age,
        ),
        breaker=now.breaker.state,
        held_clients=now.held.clients,
        held_bytes=now.held.bytes,
        replication=_replication(server.replicas),
    )


def _down(snapshot: Snapshot) -> list[str]:
    plane = snapshot.data_plane
    if plane is None:
        return ["the sidecar does not serve clients yet, or no longer"]
    found = []
    if plane.unanswered.state == "overdue":
        found.append(_since(plane.unanswered))
    elif not plane.links.up:
        found.append("there is no connection to the server")
    if plane.cluster is not None and plane.cluster.uncovered:
        found.append(f"{plane.cluster.uncovered} of 16384 slots of the cluster have no shard")
    if breaker_state(snapshot) == "open":
        found.append("the circuit breaker is open")
    return found


def _degraded(snapshot: Snapshot) -> list[str]:
    found = [each.why for each in snapshot.workers or () if each.state != "up"]
    if breaker_state(snapshot) == "half-open":
        found.append("the circuit breaker is trying the server again")
    if snapshot.data_plane is not None and snapshot.data_plane.unanswered.state == "late":
        found.append(_since(snapshot.data_plane.unanswered))
    if snapshot.data_plane is not None:
        found += _held(snapshot.data_plane.held)
        found += _cluster(snapshot.data_plane.cluster)
    return found


def _cluster(cluster: Cluster | None) -> list[str]:
    if cluster is None or not cluster.without_primary:
        return []
    return [f"{cluster.without_primary} of {cluster.shards} shards have no primary"]


def _shards(shards: Sequence[Shard]) -> list[str]:
    found = []
    for shard in shards:
        name = f"shard {shard.number} ({shard.primary or 'without a primary'})"
        if shard.state == "lost" and shard.primary is not None:
            found.append(f"{name} cannot be connected")
        elif shard.state in ("late", "overdue"):
            found.append(f"{name} owes replies and has been silent for {shard.silent_s:.1f} s")
    return found


def _held(held: Held) -> list[str]:
    if held.refused:
        return ["the upstream is paused, and commands get errors: POST /api/resume ends that"]
    if held.reason:
        return [f"all commands are held ({held.reason}): {held.clients} clients wait"]
    return [f"{held.clients} clients wait for a master"] if held.clients else []


def _since(unanswered: Unanswered) -> str:
    """Why commands wait, and since when."""
    since = time.strftime("%H:%M:%S", time.gmtime(unanswered.since))
    return f"{unanswered.why} (since {since} UTC)"


def _server(server: Server) -> list[str]:
    found = []
    if server.role == "replica":
        found.append("the server is a replica: writes are refused")
    limit = server.maxmemory or 0
    if limit and (server.used_memory or 0) > MEMORY * limit:
        found.append("the server's memory is nearly full")
    for replica in server.replicas:
        if replica.state != "online":
            found.append(f"the replica {replica.address} is not in sync: {replica.state}")
        elif (replica.lag_s or 0) > LAG:
            found.append(f"the replica {replica.address} is {replica.lag_s} s behind")
    return found


def _recent(recent: Recent) -> list[str]:
    commands, errors = recent.commands or 0, recent.errors or 0
    if errors >= 1 and errors > ERROR_RATIO * commands:
        return [f"{errors:g} of {commands:g} commands a second fail"]
    return []


def _sentinels(topology: Topology) -> list[str]:
    away = [each.address for each in topology.sentinels if not each.connected]
    if away and len(away) * 2 >= len(topology.sentinels):
        return [f"{len(away)} of {len(topology.sentinels)} Sentinels cannot be asked"]
    if topology.phase not in (None, "serving"):
        return [f"the master is changing: {topology.phase}"]
    return []


def _certificates(snapshot: Snapshot, at: float) -> list[str]:
    plane = snapshot.data_plane
    if plane is None:
        return []
    found = []
    for use, ends in plane.certificates.items():
        section, _, is_list = use.partition("-")
        what = f"the {'revocation list' if is_list else 'certificate'} of {section}.tls"
        if why := words(plane.certificates_begin.get(use, 0.0), ends, at):
            found.append(f"{what} {why}")
    return found


def _replication(replicas: Sequence[Replica]) -> Replication:
    bytes_behind = [each.lag_bytes for each in replicas if each.lag_bytes is not None]
    seconds_behind = [each.lag_s for each in replicas if each.lag_s is not None]
    return Replication(
        replicas=len(replicas),
        lag_bytes=max(bytes_behind, default=None),
        lag_s=max(seconds_behind, default=None),
    )
