"""How the Redis behind is doing, in one word and the reasons for it. Pure: facts in, facts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sidecar.admin.recorder import total

OK, DEGRADED, DOWN = "ok", "degraded", "down"

# A replica further behind than this, in seconds, is of no use in a failover.
LAG = 10
# Of the server's own limit: from here on it evicts keys, or refuses writes.
MEMORY = 0.95
ERROR_RATIO = 0.05


def health(
    snapshot: Mapping[str, object],
    recent: Mapping[str, Any],
    server: Mapping[str, Any],
    topology: Mapping[str, Any],
) -> Mapping[str, Any]:
    """`status`, the `reasons` for it if it is not ok, and the facts it was made from."""
    breaker = breaker_state(snapshot)
    down, degraded = [], []
    if "upstream_up" not in snapshot:
        down.append("the sidecar is not serving yet, or no more")
    elif not snapshot.get("upstream_up"):
        down.append("there is no connection to the server")
    if breaker == "open":
        down.append("the circuit breaker is open")
    elif breaker == "half-open":
        degraded.append("the circuit breaker is trying the server again")
    held = int(total(snapshot, "held_clients"))
    if held:
        degraded.append(f"{held} clients wait for a master")
    if not down and server.get("error"):
        degraded.append(f"the server says nothing of itself: {server['error']}")
    degraded += _server(server) + _recent(recent) + _sentinels(topology)
    replicas = server.get("replicas") or []
    return {
        "status": DOWN if down else DEGRADED if degraded else OK,
        "reasons": down + degraded,
        "role": server.get("role"),
        "server": {
            key: server.get(key)
            for key in ("software", "version", "used_memory", "maxmemory", "info_s", "error")
        },
        "latency": {key: recent.get(key) for key in ("p50", "p95", "p99", "p999")},
        "commands_per_second": recent.get("commands"),
        "errors_per_second": recent.get("errors"),
        "cache": {
            "hit_ratio": recent.get("hit_ratio"),
            "entries": int(total(snapshot, "cache_entries")),
            "bytes": int(total(snapshot, "cache_bytes")),
            "limit_bytes": int(total(snapshot, "cache_budget")),
            "mode": snapshot.get("cache_mode", "off"),
            "proof_age_s": snapshot.get("cache_proof_age"),
        },
        "breaker": breaker,
        "held_clients": held,
        "held_bytes": int(total(snapshot, "held_bytes")),
        "replication": {
            "replicas": len(replicas),
            "lag_bytes": _most(replicas, "lag_bytes"),
            "lag_s": _most(replicas, "lag_s"),
        },
    }


def breaker_state(snapshot: Mapping[str, object]) -> str:
    """`closed`, `open` or `half-open`; `unknown` when nothing is."""
    states = cast(Mapping[str, int], snapshot.get("breaker", {}))
    return next((state for state, on in states.items() if on), "unknown")


def _server(server: Mapping[str, Any]) -> list[str]:
    found = []
    if server.get("role") == "replica":
        found.append("the server is a replica: writes are refused")
    limit = server.get("maxmemory") or 0
    if limit and (server.get("used_memory") or 0) > MEMORY * limit:
        found.append("the server's memory is nearly used up")
    for replica in server.get("replicas") or []:
        if replica["state"] != "online":
            found.append(f"the replica {replica['address']} is not in sync: {replica['state']}")
        elif (replica["lag_s"] or 0) > LAG:
            found.append(f"the replica {replica['address']} is {replica['lag_s']} s behind")
    return found


def _recent(recent: Mapping[str, Any]) -> list[str]:
    commands, errors = recent.get("commands") or 0, recent.get("errors") or 0
    if errors >= 1 and errors > ERROR_RATIO * commands:
        return [f"{errors:g} of {commands:g} commands a second fail"]
    return []


def _sentinels(topology: Mapping[str, Any]) -> list[str]:
    sentinels = topology.get("sentinels") or []
    away = [each["address"] for each in sentinels if not each["connected"]]
    if away and len(away) * 2 >= len(sentinels):
        return [f"{len(away)} of {len(sentinels)} Sentinels cannot be asked"]
    if topology.get("phase") not in (None, "serving"):
        return [f"the master is changing: {topology['phase']}"]
    return []


def _most(replicas: list[Mapping[str, Any]], key: str) -> int | None:
    return max((each[key] for each in replicas if each[key] is not None), default=None)
