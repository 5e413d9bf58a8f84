"""The parts that observe clients and links: hot keys, the near cache, its use of keys, traces.

A part that is not configured is None here, and left out where all of them are told something.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar import __version__
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.errors import ProxyStartError
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.target import Target
from sidecar.proxy.nearcache.hot_keys import HotKeyDetector
from sidecar.proxy.nearcache.keeper import NearCacheKeeper
from sidecar.proxy.nearcache.usage import UsageReporter
from sidecar.proxy.session.client_ids import ClientIds
from sidecar.proxy.session.clients import Joined
from sidecar.proxy.span_recorder import SpanRecorder
from sidecar.proxy.tasks import Tasks
from sidecar.settings.schema import Settings
from sidecar.telemetry.span_export import ExportError

Facts = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Observers:
    """The parts that observe clients and links; None where not configured."""

    hot: HotKeyDetector | None
    near: NearCacheKeeper | None
    tracing: SpanRecorder | None
    usage: UsageReporter | None

    @property
    def joined(self) -> list[Joined]:
        """What to call when a client joins an identity."""
        observers = (self.tracing, self.hot, self.near)
        return [observer.join for observer in observers if observer is not None]

    def attached(self, up: Upstream, target: Target, sock: socket.socket) -> None:
        """A link was connected to this server."""
        if self.tracing is not None:
            self.tracing.attached(up, target, sock)

    def named(self, client: Client, name: bytes) -> None:
        """A client set its name."""
        if self.tracing is not None:
            self.tracing.named(client, name)

    def record_work(self, name: str, began: float, facts: Facts, error: str = "") -> None:
        """The sidecar finished work of its own."""
        if self.tracing is not None:
            self.tracing.record_work(name, began, facts, error)

    def distrust(self, node: Node, reason: str) -> None:
        """The server of this node has changed, or may have."""
        if self.near is not None:
            self.near.reset(node, reason)

    def shard_came(self, node: Node) -> None:
        """A shard of the cluster has come."""
        if self.near is not None:
            self.near.add_node(node)

    def shard_went(self, node: Node) -> None:
        """A shard of the cluster has gone."""
        if self.near is not None:
            self.near.remove_node(node)

    def evicts(self, policy: str) -> None:
        """What the server evicts by, "" if it does not."""
        if self.usage is not None:
            self.usage.policy(policy)

    def in_cluster(self, yes: bool) -> None:
        """Whether the server belongs to a cluster."""
        if self.near is not None:
            self.near.cache.join_cluster(yes)

    def forget(self, client: Client) -> None:
        """A client has gone."""
        if self.near is not None:
            self.near.forget(client)


def make_observers(
    plane: Plane, nodes: Nodes, tasks: Tasks, ids: ClientIds, settings: Settings
) -> Observers:
    """Make the configured observers. Raises ProxyStartError."""
    near = hot = tracing = usage = None
    if settings.cache.mode != "off" and settings.upstream.pooling == "shared":
        near = NearCacheKeeper(plane, nodes, tasks, settings.cache, random.getrandbits(64))
        usage = UsageReporter(near)
    if settings.hotkeys.enabled:
        wants_hot = near is not None and settings.cache.mode in ("hot", "observe")
        hot = HotKeyDetector(
            plane,
            settings.hotkeys,
            near.want if near is not None and wants_hot else _nobody_wants,
            near.holds if near is not None else _nobody_holds,
        )
    if SpanRecorder.wanted(settings.tracing):
        try:
            tracing = SpanRecorder(plane, settings.tracing, ids.get, __version__)
        except ExportError as error:
            raise ProxyStartError(str(error)) from error
    if near is not None:
        nodes.home.watch(up=near.try_again)
        nodes.home.room.ask(near.make_room)
    return Observers(hot, near, tracing, usage)


def _nobody_wants(key: bytes, worth: bool) -> None:
    """No near cache takes hot keys."""


def _nobody_holds(key: bytes) -> bool:
    return False
