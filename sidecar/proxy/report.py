"""What the data plane reports of itself: readiness, counters, hot keys, traces, topology.

Reads the parts and changes none of them. The composition root asks, for the admin endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.policy.breaker import State
from sidecar.policy.warmup import Phase
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.hold import Hold
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.listener import Listener
from sidecar.proxy.master import MasterFollower
from sidecar.proxy.nearcache.hot_keys import HotKeyDetector
from sidecar.proxy.nearcache.keeper import NearCacheKeeper
from sidecar.proxy.nearcache.warmup import Warmup
from sidecar.proxy.session.clients import Clients
from sidecar.proxy.span_recorder import SpanRecorder
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint


@dataclass(frozen=True)
class Parts:
    """What a report is made from. `own` are the sidecar's own links; a part that is not configured
    is None, `master` where no master is followed."""

    settings: Settings
    upstream: Endpoint
    plane: Plane
    identities: Identities
    own: NodeLinks
    shared: SharedLinks
    hold: Hold
    clients: Clients
    listener: Listener
    certificates: Certificates
    hot: HotKeyDetector | None
    near: NearCacheKeeper | None
    tracing: SpanRecorder | None
    warm: Warmup | None
    master: MasterFollower | None
    interruptions: Interruptions


class Report:
    """Answers what the admin endpoint asks of a running data plane."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ready(self) -> dict[str, bool]:
        """What readiness consists of."""
        parts = self._parts
        checks = {
            "upstream": parts.own.shared.up,
            "accepting": not parts.listener.stopped,
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
            clients_total=parts.clients.total,
            clients_rejected=parts.listener.rejected,
        )
        if parts.hot is not None:
            values.update({f"hotkeys_{k}": v for k, v in parts.hot.snapshot().items()})
        if parts.near is not None:
            near = {k: v for k, v in parts.near.snapshot().items() if v is not None}
            values.update({f"cache_{k}": v for k, v in near.items()})
        if parts.tracing is not None:
            values.update({f"traces_{k}": v for k, v in parts.tracing.snapshot().items()})
        if parts.warm is not None:
            values["warm"] = warm = parts.warm.snapshot()
            values.update({f"warm_{k}": warm[k] for k in ("total", "loaded", "failed", "duration")})
            values["warm_state"] = {p.value: int(p.value == warm["state"]) for p in Phase}
        if parts.certificates.expiry:
            values["certificates"] = parts.certificates.expiry
        values.update(self._failover())
        return values

    def _links(self) -> Mapping[str, object]:
        parts, dialer = self._parts, self._parts.own.node.dialer
        links = parts.identities.links
        idle = sum(len(each.idle) for each in links)
        shared = sum(1 for each in links if each.shared.up)
        return {
            "links_shared": shared,
            "links_idle": idle,
            "links_dedicated": len(parts.plane.upstreams) - shared - idle,
            "reconnects": parts.shared.reconnects,
            "upstream_up": int(parts.own.shared.up),
            "held_clients": parts.hold.clients,
            "held_bytes": parts.hold.bytes,
            "breaker": {state.value: int(dialer.breaker.state is state) for state in State},
            "breaker_opened": dialer.breaker.opened,
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
        hot = self._parts.hot
        keys = hot.top(most) if hot is not None else []
        return {"window_s": self._parts.settings.hotkeys.window, "keys": keys}

    def recent_traces(self, most: int, why: str = "") -> list[dict[str, object]]:
        """The newest traces of commands that were sampled, slow or failed, and of what the sidecar
        did by itself ("internal"); newest first. `why` picks one kind."""
        tracing = self._parts.tracing
        return tracing.recent(most, why) if tracing is not None else []

    def topology(self) -> Mapping[str, object]:
        """Where the upstream is, and its interruptions and changes, the newest first."""
        parts, master = self._parts, self._parts.master
        dialer = parts.own.node.dialer
        known = dialer.target is not None
        return {
            "upstream": str(parts.upstream),
            "follows_sentinels": master is not None,
            "phase": master.machine.phase.value if master is not None else None,
            "master": dialer.where if known else None,
            "up": parts.own.shared.up,
            "switches": master.switches if master is not None else 0,
            "history": parts.interruptions.snapshot(),
        }
