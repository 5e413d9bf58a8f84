"""What the data plane reports of itself: readiness, counters, hot keys, traces, topology.

Reads the parts and changes none of them. The composition root asks, for the admin endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sidecar.policy.breaker import State
from sidecar.policy.warmup import Phase
from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.pool import Pool
from sidecar.proxy.master import MasterFollower
from sidecar.proxy.nearcache.warmup import Warmup
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint


class Entrance(Protocol):
    """Where clients come in. `certificates` says when each certificate in use ends."""

    @property
    def clients_total(self) -> int: ...
    @property
    def clients_rejected(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    @property
    def certificates(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Parts:
    """What a report is made from. `master` is None where no master is followed, `warm` where
    nothing is warmed up."""

    settings: Settings
    upstream: Endpoint
    plane: Plane
    pool: Pool
    entrance: Entrance
    interruptions: Interruptions
    master: MasterFollower | None
    warm: Warmup | None


class Report:
    """Answers what the admin endpoint asks of a running data plane."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ready(self) -> dict[str, bool]:
        """What readiness consists of."""
        parts = self._parts
        checks = {
            "upstream": parts.pool.default.link.up,
            "accepting": not parts.entrance.draining,
        }
        if parts.warm is not None:
            checks["warm"] = parts.warm.ready()
        return checks

    def snapshot(self) -> Mapping[str, object]:
        """Counters and gauges as plain values; see sidecar.telemetry.metrics."""
        parts = self._parts
        values = dict(parts.plane.snapshot())
        values.update(self._links())
        values.update(
            clients_total=parts.entrance.clients_total,
            clients_rejected=parts.entrance.clients_rejected,
        )
        pool = parts.pool
        if pool.hot is not None:
            values.update({f"hotkeys_{k}": v for k, v in pool.hot.snapshot().items()})
        if pool.near is not None:
            near = {k: v for k, v in pool.near.snapshot().items() if v is not None}
            values.update({f"cache_{k}": v for k, v in near.items()})
        if pool.tracing is not None:
            values.update({f"traces_{k}": v for k, v in pool.tracing.snapshot().items()})
        if parts.warm is not None:
            values["warm"] = warm = parts.warm.snapshot()
            values.update({f"warm_{k}": warm[k] for k in ("total", "loaded", "failed", "duration")})
            values["warm_state"] = {p.value: int(p.value == warm["state"]) for p in Phase}
        if parts.entrance.certificates:
            values["certificates"] = parts.entrance.certificates
        values.update(self._failover())
        return values

    def _links(self) -> Mapping[str, object]:
        pool, plane = self._parts.pool, self._parts.plane
        identities = list(pool.identities.values())
        idle = sum(len(i.idle) for i in identities)
        shared = sum(1 for i in identities if i.link.up)
        return {
            "links_shared": shared,
            "links_idle": idle,
            "links_dedicated": len(plane.upstreams) - shared - idle,
            "reconnects": pool.reconnects,
            "upstream_up": int(pool.default.link.up),
            "held_clients": plane.writes_held + sum(len(i.waiting) for i in identities),
            "held_bytes": pool.held_bytes,
            "breaker": {state.value: int(pool.breaker.state is state) for state in State},
            "breaker_opened": pool.breaker.opened,
        }

    def _failover(self) -> Mapping[str, object]:
        master = self._parts.master
        if master is None:
            return {}
        values: dict[str, object] = {
            "failover": master.snapshot(),
            "switches": master.switches,
            "last_interruption": master.last_pause,
        }
        if master.last_switch is not None:
            values["last_switch"] = master.last_switch
        return values

    def hot_keys(self, most: int) -> Mapping[str, object]:
        """The hottest keys, hottest first; none when hotkeys.enabled is off."""
        hot = self._parts.pool.hot
        keys = hot.top(most) if hot is not None else []
        return {"window_s": self._parts.settings.hotkeys.window, "keys": keys}

    def recent_traces(self, most: int, why: str = "") -> list[dict[str, object]]:
        """The newest traces of commands that were sampled, slow or failed, and of what the sidecar
        did by itself ("internal"); newest first. `why` picks one kind."""
        tracing = self._parts.pool.tracing
        return tracing.recent(most, why) if tracing is not None else []

    def topology(self) -> Mapping[str, object]:
        """Where the upstream is, and its interruptions and changes, the newest first."""
        parts, master = self._parts, self._parts.master
        known = parts.pool.target is not None
        return {
            "upstream": str(parts.upstream),
            "follows_sentinels": master is not None,
            "phase": master.machine.phase.value if master is not None else None,
            "master": parts.pool.where if known else None,
            "up": parts.pool.default.link.up,
            "switches": master.switches if master is not None else 0,
            "history": parts.interruptions.snapshot(),
        }
