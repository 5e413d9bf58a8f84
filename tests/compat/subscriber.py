"""A subscriber of a cluster beside one of a single server, and how a node goes."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

from tests.harness.admin import metric
from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.errors import DeadlineError
from tests.harness.process import wait_until
from tests.harness.resp import Arg, bulk
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire

NUMBERS = itertools.count(1)


class Both(ExitStack):
    """A subscriber of the cluster and one of a single server: both are told the same."""

    def __init__(self, cluster: Cluster, sidecar: Sidecar, single: Server, protocol: int) -> None:
        super().__init__()
        self._cluster = cluster
        ports = (sidecar.port, single.port)
        self.wire, self.other = [self.enter_context(Wire(port)) for port in ports]
        self.publisher, self.other_publisher = [self.enter_context(Wire(port)) for port in ports]
        self.mark = b">" if protocol == 3 else b"*"
        self.name = f"subscriber{protocol}:{next(NUMBERS)}"
        self.channels = [f"{name}:{self.name}" for name in ("one", "two", "three")]
        for wire in (self.wire, self.other):
            wire.call("HELLO", protocol)
            wire.call("CLIENT", "SETNAME", self.name)

    def sharded(self, number: int) -> str:
        """A sharded channel of its own that this shard has."""
        return self._cluster.key(number, f"sharded:{self.name}")

    def tell(self, *args: Arg, replies: int = 1) -> None:
        """One request of both."""
        for wire in (self.wire, self.other):
            wire.send_command(*args)
        assert self.wire.read_replies(replies) == self.other.read_replies(replies), args

    def hears(self, channel: str, sharded: bool = False) -> None:
        """Messages come, after those of the gap, each once and in order; and nothing else comes."""
        word = b"smessage" if sharded else b"message"
        sent: list[bytes] = []
        told: list[bytes] = []

        def arrives() -> bool:
            text = b"%d" % next(NUMBERS)
            if sharded:
                self._cluster.call(self._cluster.owner(channel), "SPUBLISH", channel, text)
            else:
                self.publisher.call("PUBLISH", channel, text)
            words = (word, channel.encode(), text)
            sent.append(self.mark + b"3\r\n" + b"".join(map(bulk, words)))
            try:
                while not told or told[-1] != sent[-1]:
                    told.append(self.wire.read_reply(0.1))
            except DeadlineError:
                return False
            return True

        wait_until(arrives, f"a message on {channel}", 20)
        assert told == [each for each in sent if each in told]
        self.wire.expect_silence()


def resubscribed(sidecar: Sidecar) -> float:
    return metric(sidecar, "sidecar_cluster_resubscriptions_total")


def server_of(cluster: Cluster, name: str) -> ClusterNode | None:
    """The node that has a subscriber of this name."""
    for node in (shard.primary for shard in cluster.shards if shard.primary.running):
        if f" name={name} " in cluster.order(node, "CLIENT", "LIST", "TYPE", "pubsub"):
            return node
    return None


def crash(cluster: Cluster, number: int) -> None:
    cluster.kill(number)
    cluster.adopt(number)


def freeze(cluster: Cluster, number: int) -> None:
    """It is silent, and its replica takes over: the others agree once it is back."""
    shard = cluster.shard(number)
    shard.primary.pause()
    (replica,) = shard.replicas
    wait_until(lambda: cluster.order(replica, "ROLE")[0] == "master", "a new primary", 20)
    shard.primary = replica


def hand_over(cluster: Cluster, number: int) -> None:
    cluster.failover(number)
