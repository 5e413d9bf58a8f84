"""Who the master is, asked of and heard from all Sentinels of a `redis+sentinel://` upstream.

`SentinelWatcher` keeps one connection to each Sentinel, subscribed and polled at once, learns
Sentinels it was not told of, and turns what they say into the events of policy/topology.py. It
observes only: it connects to no master, judges no answer and holds no request. How one connection
works is in sentinel_link.py, how one Sentinel is watched in sentinel_peer.py.

One RESP3 connection for both, not a subscription and a second one for questions: what a Sentinel
says then has one order, and an answer that names the old master can never overtake the
`+switch-master` sent after it. For the same reason answers and messages are handled while their
bytes are being read, without a task in between. It needs Sentinels of Redis 6 or later.

SENTINEL MASTER tells the epoch, and then GET-MASTER-ADDR-BY-NAME the address. The leader of a
failover raises the epoch when it sees the replica promoted, but its SENTINEL MASTER keeps naming
the old address up to its `+switch-master`, a second later: the old address with the new epoch
would pass for news. In this order the worst of a race is the new address with the old epoch, which
the next answer mends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from sidecar.credentials import Credentials
from sidecar.discovery.sentinel_link import Fault, Kind, Link, rows_of, table_of
from sidecar.discovery.sentinel_peer import Access, Peer, number
from sidecar.policy.topology import Address, Event, MasterNamed, address_of
from sidecar.settings.addresses import join_host_port
from sidecar.settings.sections.upstream import Sentinel
from sidecar.settings.urls import Endpoint
from sidecar.telemetry.facts import SentinelReplica, Sentinels
from sidecar.telemetry.snapshots import SentinelCounts

MAX_SENTINELS = 64  # learnt ones included; a service has 3 to 7, more come from a mistake

# What is wrong and what to do, the gravest first: a Sentinel that answers tells more.
_ADVICE: Mapping[Kind, tuple[str, str]] = {
    "service": (
        "no Sentinel knows the service {}",
        "write the name of their 'sentinel monitor' line into upstream.url",
    ),
    "idle": (
        "the Sentinels know no master of {}",
        "add 'sentinel monitor {} HOST PORT QUORUM' to their configuration",
    ),
    "credentials": (
        "no Sentinel of {} lets us in",
        "set sentinel.username and sentinel.password; those in upstream.url are the master's",
    ),
    "unreachable": (
        "no Sentinel of {} can be asked",
        "check the hosts and ports in upstream.url, and sentinel.tls",
    ),
}

log = structlog.get_logger()


class DiscoveryError(Exception):
    """One line: which Sentinels, what is wrong with each, what to do."""


class SentinelWatcher:
    """Watches the Sentinels of `endpoint` from `start` to `close`.

    `settings` says how they are reached; `context` is for TLS to them, None is without, and
    `server_name` is expected in their certificates instead of each one's host; `credentials`
    replace those of the settings. `on_event` is called on the loop, synchronously, as soon as a
    message or an answer is read; each Sentinel tells its own, so the same news comes several times.
    It must not block. Its errors are logged and go no further.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Sentinel,
        context: ssl.SSLContext | None,
        on_event: Callable[[Event], None],
        *,
        server_name: str = "",
        credentials: Credentials | None = None,
    ) -> None:
        self._access = Access(endpoint.service, settings, context, server_name, credentials)
        self._on_event = on_event
        self._watching = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._peers = {address: self._peer(address, True) for address in endpoint.members}

    async def find_master(self) -> Address:
        """Ask every known Sentinel at once, on connections of its own; may precede `start`.

        Returns as soon as more than half of them name one address, else, when all have answered or
        failed, the address that most name, and of equals the one with the newest epoch. A Sentinel
        that hangs costs `sentinel.connect_timeout`. Raises DiscoveryError when none names any.
        """
        votes: Counter[Address] = Counter()
        newest: dict[Address, int] = {}
        faults: dict[Address, Fault] = {}
        asked = [asyncio.create_task(self._ask_once(address)) for address in self._peers]
        try:
            for answer in asyncio.as_completed(asked):
                sentinel, said = await answer
                if isinstance(said, Fault):
                    faults[sentinel] = said
                    continue
                votes[said.address] += 1
                newest[said.address] = max(newest.get(said.address, 0), said.epoch or 0)
                if votes[said.address] * 2 > len(asked):
                    return said.address
        finally:
            await _end(asked)
        if not votes:
            raise self._error(faults)
        return max(votes, key=lambda address: (votes[address], newest[address]))

    def start(self) -> None:
        """Begin to watch: one task for each Sentinel, which reconnects until `close`."""
        self._watching = True
        for peer in self._peers.values():
            peer.start()

    def use_context(self, context: ssl.SSLContext | None) -> None:
        """Use another TLS context for new connections; those that are open go on."""
        self._access.context = context

    def ask(self) -> None:
        """Ask every connected Sentinel now; asked during a round, there is one more after it."""
        for peer in self._peers.values():
            peer.ask()

    async def replicas(self) -> list[SentinelReplica]:
        """The replicas, as the first Sentinel that answers sees them. Raises DiscoveryError."""
        faults: dict[Address, Fault] = {}
        for peer in sorted(self._peers.values(), key=lambda peer: peer.link is None):
            try:
                async with peer.borrow() as link:
                    reply = await link.call("SENTINEL", "REPLICAS", self._access.service)
            except Fault as fault:
                faults[peer.address] = fault
                continue
            return [info for row in rows_of(reply) if (info := _replica(row)) is not None]
        raise self._error(faults)

    async def failover(self) -> str:
        """Have a Sentinel replace the master now; returns the one that agreed.

        Each is asked in turn until one does. Raises DiscoveryError with what they said.
        """
        faults: dict[Address, Fault] = {}
        for peer in sorted(self._peers.values(), key=lambda peer: peer.link is None):
            try:
                async with peer.borrow() as link:
                    await link.call("SENTINEL", "FAILOVER", self._access.service)
            except Fault as fault:
                faults[peer.address] = fault
                continue
            return str(peer)
        each = "; ".join(f"{join_host_port(*at)} {fault}" for at, fault in faults.items())
        raise DiscoveryError(f"no Sentinel begins a failover: {each}")

    async def close(self) -> None:
        """Stop watching; no event comes after it. May be called twice."""
        self._watching = False
        stopped = [peer.stop() for peer in self._peers.values()]
        await _end([*(task for task in stopped if task is not None), *self._leaving])

    def snapshot(self) -> Sentinels:
        """What is known now, for metrics and the admin page; addresses as `host:port`.

        `master`, `epoch`, `quorum` and `replicas` (their number) are those of the newest epoch
        that a connected Sentinel has told, None when there is none.
        """
        peers = self._peers.values()
        told = [peer for peer in peers if peer.link is not None and peer.master is not None]
        best = max(told, key=lambda peer: peer.epoch or 0, default=None)
        said = best.facts if best else {}
        return Sentinels(
            service=self._access.service,
            master=best.shown().master if best else None,
            epoch=best.epoch if best else None,
            quorum=number(said.get("quorum")),
            replicas=number(said.get("num-slaves")),
            sentinels=[peer.shown() for peer in peers],
        )

    def counts(self) -> SentinelCounts:
        """For metrics: Sentinels known and connected; replicas, when one has told."""
        now = self.snapshot()
        connected = sum(1 for each in now.sentinels if each.connected)
        return SentinelCounts(
            known=len(now.sentinels),
            connected=connected,
            replicas=now.replicas,
            tls_failures=self._access.handshakes.failures,
        )

    def _peer(self, address: Address, configured: bool) -> Peer:
        return Peer(address, configured, self._access, self._emit, self._regard)

    def _emit(self, event: Event) -> None:
        if not self._watching:
            return
        try:
            self._on_event(event)
        except Exception:
            log.exception("sentinel event failed", what=type(event).__name__)

    async def _ask_once(self, address: Address) -> tuple[Address, MasterNamed | Fault]:
        service = self._access.service
        try:
            async with self._access.connect(address) as link:
                try:
                    described = table_of(await link.call("SENTINEL", "MASTER", service))
                    reply = await link.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
                except Fault as fault:
                    return address, await _others(link) if fault.kind == "service" else fault
        except Fault as fault:
            return address, fault
        if (named := address_of(reply)) is None:
            return address, Fault("idle", "names none")
        return address, MasterNamed(named, False, number(described.get("config-epoch")))

    def _regard(self, peer: Peer) -> None:
        """Learn and forget Sentinels by what `peer` has just told of itself and of others.

        One may be known by two addresses, a name in the URL and the number it announces: the same
        id, so the one learnt goes. A learnt one also goes when it is neither connected nor listed.
        """
        connected = {other.id: other for other in self._peers.values() if other.id}
        for address, id in peer.sees.items():
            if address not in self._peers and id not in connected:
                self._learn(address)
        listed = {at for other in self._peers.values() if other.link for at in other.sees}
        for other in [*self._peers.values()]:
            if other.configured:
                continue
            twin = other.id and any(
                one is not other and one.id == other.id for one in self._peers.values()
            )
            if twin or (other.link is None and other.address not in listed):
                self._forget(other)

    def _learn(self, address: Address) -> None:
        if not self._watching or len(self._peers) >= MAX_SENTINELS:
            return
        peer = self._peers[address] = self._peer(address, False)
        log.info("sentinel found", sentinel=str(peer), service=self._access.service)
        peer.start()

    def _forget(self, peer: Peer) -> None:
        log.info("sentinel forgotten", sentinel=str(peer), service=self._access.service)
        del self._peers[peer.address]
        if (task := peer.stop()) is not None:
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _error(self, faults: Mapping[Address, Fault]) -> DiscoveryError:
        """Everything said, under the heading of the fault that tells most."""
        kinds = {fault.kind for fault in faults.values()}
        head, advice = next(text for kind, text in _ADVICE.items() if kind in kinds)
        each = "; ".join(f"{join_host_port(*at)} {fault}" for at, fault in faults.items())
        service = repr(self._access.service)
        return DiscoveryError(f"{head.format(service)}: {each}; {advice.format(service)}")


async def _others(link: Link) -> Fault:
    """The fault of a Sentinel that does not know our service: what it knows instead."""
    try:
        rows = rows_of(await link.call("SENTINEL", "MASTERS"))
    except Fault:  # the user may not ask that
        return Fault("service", "does not know it")
    names = ", ".join(row.get("name", "?") for row in rows)
    return Fault("service", f"knows {names}") if names else Fault("idle", "monitors none")


def _replica(row: Mapping[str, str]) -> SentinelReplica | None:
    address = address_of([row.get("ip", ""), row.get("port", "")])
    if address is None:
        return None
    down, age = number(row.get("master-link-down-time")), number(row.get("info-refresh"))
    return SentinelReplica(
        address=join_host_port(*address),
        flags=row.get("flags", "").split(","),
        link=row.get("master-link-status", "?"),
        link_down=(down or 0) / 1000,
        offset=number(row.get("slave-repl-offset")),
        age=None if age is None else age / 1000,
    )


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what has not ended, and wait for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
