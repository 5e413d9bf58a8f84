"""What the data plane reports of itself: readiness, counters, hot keys, traces, topology.

Reads the parts and changes none of them. The composition root asks, for the admin endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sidecar.core.protocol.slots import slot
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.followers import Followers
from sidecar.proxy.interruptions import KEPT, Interruptions
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.hold import Hold
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.listener import Listener
from sidecar.proxy.nearcache.hot_keys import KEY_MAX, HotKeyDetector
from sidecar.proxy.nearcache.keeper import NearCacheKeeper
from sidecar.proxy.nearcache.warmup import Warmup
from sidecar.proxy.overdue import Overdue
from sidecar.proxy.pause import Pause
from sidecar.proxy.server_info import ServerInfo
from sidecar.proxy.session.clients import Clients
from sidecar.proxy.session.guards import Guards
from sidecar.proxy.session.sidecar_logins import SidecarLogins
from sidecar.proxy.span_recorder import SpanRecorder
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint
from sidecar.telemetry import facts, snapshots
from sidecar.telemetry.handshakes import Handshakes


@dataclass(frozen=True)
class Parts:
    """What a report is made from. `own` are the sidecar's own links, `dialed` the TLS handshakes
    with the upstream; a part that is not configured is None."""

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
    followers: Followers
    pause: Pause
    interruptions: Interruptions
    server_info: ServerInfo
    overdue: Overdue
    dialed: Handshakes
    guards: Guards
    logins: SidecarLogins | None


class Report:
    """Answers what the admin endpoint asks of a running data plane."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def _up(self) -> bool:
        """Whether the sidecar's own link is up, and nobody's command is lost or overdue."""
        return self._parts.own.shared.up and not self._parts.overdue.is_down

    def use(self, settings: Settings, upstream: Endpoint, certificates: Certificates) -> None:
        """Report of these from now on."""
        self._parts = replace(
            self._parts, settings=settings, upstream=upstream, certificates=certificates
        )

    def ready(self) -> dict[str, bool]:
        """What readiness consists of."""
        parts = self._parts
        checks = {
            "upstream": self._up,
            "accepting": not parts.listener.stopped,
            "unpaused": not parts.pause.reasons,
        }
        if parts.warm is not None:
            checks["warm"] = parts.warm.ready()
        return checks

    def snapshot(self) -> snapshots.DataPlane:
        """Counters and gauges."""
        parts = self._parts
        counts, breaker = parts.plane.snapshot(), parts.own.node.dialer.breaker
        validity = parts.certificates.validity
        return snapshots.DataPlane(
            clients=self._clients(counts),
            links=self._links(counts),
            commands=_commands(counts, parts.plane.notes_lost),
            unanswered=parts.overdue.now,
            held=snapshots.Held(
                clients=parts.hold.clients,
                bytes=parts.hold.bytes,
                reason=", ".join(parts.pause.reasons),
                refused=parts.pause.expired,
            ),
            breaker=snapshots.Breaker(state=breaker.state, opened=breaker.opened),
            cache=parts.near.snapshot() if parts.near is not None else None,
            hot_keys=parts.hot.snapshot() if parts.hot is not None else None,
            warm=parts.warm.snapshot() if parts.warm is not None else None,
            tracing=parts.tracing.snapshot() if parts.tracing is not None else None,
            failover=_failover(parts.followers),
            cluster=cluster.counts() if (cluster := parts.followers.cluster) is not None else None,
            restrictions=parts.guards.snapshot(),
            certificates={name: each.ends for name, each in validity.items()},
            certificates_begin={name: each.begins for name, each in validity.items()},
        )

    def _clients(self, counts: Mapping[str, Any]) -> snapshots.Clients:
        return snapshots.Clients(
            connected=counts["clients_active"],
            accepted=self._parts.clients.total,
            rejected=self._parts.listener.rejected,
            closed=counts["clients_closed"],
            received_bytes=counts["client_bytes_in"],
            sent_bytes=counts["client_bytes_out"],
            protocol_errors=counts["protocol_errors"],
            tls_failures=self._parts.listener.tls_failures,
            logins=self._parts.logins.counts if self._parts.logins is not None else {},
        )

    def _links(self, counts: Mapping[str, Any]) -> snapshots.Links:
        links = self._parts.identities.links
        idle = sum(len(each.idle) for each in links)
        shared = sum(1 for each in links if each.shared.up)
        return snapshots.Links(
            up=self._up,
            shared=shared,
            idle=idle,
            dedicated=len(self._parts.plane.upstreams) - shared - idle,
            reconnects=self._parts.shared.reconnects,
            received_bytes=counts["upstream_bytes_in"],
            sent_bytes=counts["upstream_bytes_out"],
            tls_failures=self._parts.dialed.failures,
        )

    def hot_keys(self, most: int) -> facts.HotKeys:
        """The hottest keys, hottest first; none when hotkeys.enabled is off."""
        hot = self._parts.hot
        keys = hot.top(most) if hot is not None else ()
        if hot is not None and self._parts.followers.cluster is not None:
            names = [row[1] for row in hot.detector.top(most)]
            keys = [
                msgspec.structs.replace(key, slot=slot(name) if len(name) < KEY_MAX else None)
                for key, name in zip(keys, names, strict=True)
            ]
        return facts.HotKeys(window_s=self._parts.settings.hotkeys.window, keys=keys)

    def recent_traces(self, most: int, why: str = "") -> Sequence[facts.Trace]:
        """The newest traces of commands that were sampled, slow or failed, and of what the sidecar
        did by itself ("internal"); newest first. `why` picks one kind."""
        tracing = self._parts.tracing
        return tracing.recent(most, why) if tracing is not None else ()

    async def server(self) -> facts.Server:
        """What the server says about itself."""
        return await self._parts.server_info.get()

    def topology(self) -> facts.Upstream:
        """Where the upstream is, and its interruptions and changes, the newest first."""
        parts = self._parts
        dialer = parts.own.node.dialer
        cluster = parts.followers.cluster
        history = parts.interruptions.snapshot()
        if cluster is not None:
            every = [*history, *cluster.report.history()]
            history = sorted(every, key=lambda each: each.at, reverse=True)[:KEPT]
        return facts.Upstream(
            upstream=str(parts.upstream),
            follows_sentinels=parts.upstream.kind == "sentinel",
            phase=parts.followers.phase,
            master=dialer.target.address if dialer.target is not None else None,
            up=self._up,
            switches=cluster.report.switches if cluster else parts.followers.changeover.switches,
            history=history,
            shards=cluster.report.shards() if cluster is not None else None,
        )


def _failover(followers: Followers) -> snapshots.Failover | None:
    changeover = followers.changeover
    if followers.current is None and not changeover.switches:
        return None
    return snapshots.Failover(
        switches=changeover.switches,
        last_switch=changeover.last_switch,
        last_interruption=changeover.last_pause,
    )


def _commands(counts: Mapping[str, Any], unaudited: int) -> snapshots.Commands:
    return snapshots.Commands(
        calls=counts["commands"],
        errors=counts["replies_error"],
        latency={
            family: snapshots.Latency(counts=buckets, seconds=seconds)
            for family, (buckets, seconds) in counts["latency"].items()
        },
        bounds=counts["latency_bounds"],
        local_errors=counts["errors_local"],
        uncertain=counts["uncertain"],
        unaudited=unaudited,
    )
