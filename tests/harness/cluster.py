"""A real cluster: primaries and their replicas, each a process of its own on 127.0.0.1.

`Cluster()` is a context manager. It writes every node's `nodes.conf` before the nodes start, so
that they know each other from the beginning: nobody has to meet anybody, and no gossip is waited
for. What remains is a delay of the servers themselves, which refuse everything for the first 2 s:
let the tests of a file share one cluster.

A *shard* is a primary with its replicas, by the number that it had at first; `shard(n).primary` is
whoever is the primary by now. `call` asks that one. A primary that has given its last slot away may
become a replica of whoever got it, as servers do by default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.crc import key_slot

from .certificates import Certificates
from .closing import Closing
from .errors import GONE, Unavailable
from .process import free_port, ping, wait_until
from .programs import server_binary
from .resp import Arg, Refused
from .servers import Server, Settings
from .wire import Wire

SLOTS = 16384
DEADLINE = 30.0

_BATCH = 500  # keys of one MIGRATE


class ClusterNode(Server):
    """One server of a cluster. `kill` and `start` bring it back with what its `nodes.conf` says."""

    def __init__(self, binary: str, name: str, *, settings: Settings, **more: Any) -> None:
        self.bus = free_port()
        self.id = ""
        own = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf"}
        super().__init__(
            binary, name, settings={**own, "cluster-port": self.bus, **settings}, **more
        )
        self.id = hashlib.sha1(f"{self.port}".encode()).hexdigest()

    def start(self) -> None:
        """Start it. When it is made its `nodes.conf` is still to be written: then it is later."""
        if self.id:
            self.begin()
            self.wait_ready(partial(_answers, self))

    def begin(self) -> None:
        """Start it without waiting for it."""
        argv = [self.binary]
        for key, value in self.settings.items():
            argv += [f"--{key}", str(value)]
        self.spawn(argv)

    @property
    def listening(self) -> int:
        """The port that other nodes know: the one for TLS, if it has one."""
        return self.tls_port or self.port


@dataclass
class Shard:
    """A primary and its replicas, and the slots that it had at first."""

    number: int
    nodes: list[ClusterNode]
    slots: tuple[tuple[int, int], ...]
    primary: ClusterNode = field(init=False)

    def __post_init__(self) -> None:
        self.primary = self.nodes[0]

    @property
    def replicas(self) -> list[ClusterNode]:
        """The nodes that are not the primary by now."""
        return [node for node in self.nodes if node is not self.primary]


class Cluster(Closing):
    """`shards` primaries with `replicas` replicas each, all slots served when it is made.

    `kind` is valkey, redis7 or redis8. `node_timeout` (ms) is how long a node may be silent until
    the others take it for dead: generous, unless a test is about dying. `settings` are every
    node's. With `tls` (redis7 only) everybody speaks TLS to everybody.
    """

    def __init__(
        self,
        kind: str = "valkey",
        shards: int = 3,
        replicas: int = 0,
        *,
        node_timeout: int = 15000,
        password: str | None = None,
        settings: Settings | None = None,
        tls: Certificates | None = None,
    ) -> None:
        self.kind, self.password, self.tls = kind, password, tls
        self._settings: dict[str, str | int | float] = {
            "cluster-node-timeout": node_timeout,
            "cluster-replica-validity-factor": 0,
            "repl-ping-replica-period": 1,
        }
        if password:
            self._settings |= {"requirepass": password, "masterauth": password}
        if tls:
            self._settings |= {"tls-cluster": "yes", "tls-replication": "yes"}
        self._settings |= settings or {}
        self.shards: list[Shard] = []
        self.owners: list[int] = []
        """The number of the shard that has each slot."""
        self._migrations: dict[int, int] = {}
        try:
            for number in range(shards):
                nodes = [self._node(f"shard{number}.{each}") for each in range(1 + replicas)]
                first, last = number * SLOTS // shards, (number + 1) * SLOTS // shards - 1
                self.shards.append(Shard(number, nodes, ((first, last),)))
                self.owners += [number] * (last - first + 1)
            for node in self.nodes:
                self._write_view(node, self.shards)
            self._start(self.nodes)
            self.settle()
        except BaseException:
            self.close()
            raise

    # What it is

    @property
    def nodes(self) -> list[ClusterNode]:
        """All servers."""
        return [node for shard in self.shards for node in shard.nodes]

    @property
    def running(self) -> list[ClusterNode]:
        """Those whose process has not ended."""
        return [node for node in self.nodes if node.running]

    @property
    def url(self) -> str:
        """The URL of its upstream: the primaries that it had at first."""
        host = "localhost" if self.tls else "127.0.0.1"
        members = ",".join(f"{host}:{shard.nodes[0].listening}" for shard in self.shards)
        who = f":{self.password}@" if self.password else ""
        return f"redis{'s' if self.tls else ''}+cluster://{who}{members}"

    def shard(self, number: int) -> Shard:
        """The shard that had this number when it was made."""
        return next(shard for shard in self.shards if shard.number == number)

    def owner(self, slot: int | str) -> int:
        """The number of the shard that has a slot, or a key's slot."""
        return self.owners[key_slot(slot.encode()) if isinstance(slot, str) else slot]

    def key(self, number: int, prefix: str = "key") -> str:
        """A key that this shard has."""
        names = (f"{prefix}:{count}" for count in range(SLOTS * 100))
        return next(name for name in names if self.owner(name) == number)

    def call(self, number: int, *args: Arg, deadline: float = DEADLINE) -> Any:
        """One request to a shard's primary; an error is raised."""
        return self.order(self.shard(number).primary, *args, deadline=deadline)

    def order(self, node: ClusterNode, *args: Arg, deadline: float = DEADLINE) -> Any:
        """One request to one node; an error is raised."""
        with self.wire(node, deadline) as wire:
            return wire.call(*args)

    def wire(self, node: ClusterNode, deadline: float = DEADLINE) -> Wire:
        """A connection to one node, which has logged in."""
        wire = Wire(node.port, deadline=deadline)
        if self.password:
            wire.call("AUTH", self.password)
        return wire

    # Slots that move

    def begin_migration(self, slot: int, to: int) -> None:
        """From here on the owner sends away who asks for what it does not have (`-ASK`)."""
        self.call(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(self.owners[slot]))
        self.call(self.owners[slot], "CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(to))
        self._migrations[slot] = to

    def move_keys(self, slot: int, count: int | None = None) -> int:
        """Keys of a slot that migrates go to the new owner, `count` of them or all; how many."""
        source, target = self.owners[slot], self.shard(self._migrations[slot]).primary
        where = "localhost" if self.tls else "127.0.0.1"
        moved = 0
        while count is None or moved < count:
            most = _BATCH if count is None else min(count - moved, _BATCH)
            keys = self.call(source, "CLUSTER", "GETKEYSINSLOT", slot, most)
            if not keys:
                break
            auth = ["AUTH", self.password] if self.password else []
            order = ["MIGRATE", where, target.listening, "", 0, 10_000, *auth, "KEYS", *keys]
            self.call(source, *order)
            moved += len(keys)
        return moved

    def end_migration(self, slot: int) -> None:
        """The new owner has the slot; it is told first, then the old one, then all others."""
        to = self._migrations.pop(slot)
        told = [to, self.owners[slot]]
        told += [shard.number for shard in self.shards if shard.number not in told]
        for number in told:
            if not self.shard(number).primary.running:
                continue
            wait_until(
                partial(self._told_owner, number, slot, to), "its replicas hear of a slot", DEADLINE
            )
        self.owners[slot] = to

    def _told_owner(self, number: int, slot: int, to: int) -> bool:
        """Whether a shard has taken it that the slot is that one's. Valkey asks its replicas first,
        and refuses while they do not answer."""
        try:
            self.call(number, "CLUSTER", "SETSLOT", slot, "NODE", self._id(to))
        except (
            Refused
        ) as error:  # "only with masters": it had no other slot, and is a replica by now
            if not str(error).startswith("NOREPLICAS") and "only with masters" not in str(error):
                raise
            return not str(error).startswith("NOREPLICAS")
        return True

    def migrate(self, slot: int, to: int) -> None:
        """One slot and its keys go to another shard."""
        if self.owners[slot] != to:
            self.begin_migration(slot, to)
            self.move_keys(slot)
            self.end_migration(slot)

    def migrate_atomically(self, slots: Iterable[int], to: int) -> None:
        """Whole slots go to another shard at one moment, as Valkey 9 does it; waited for."""
        by_owner: dict[int, list[int]] = {}
        for slot in slots:
            if self.owners[slot] != to:
                by_owner.setdefault(self.owners[slot], []).append(slot)
        for source, moving in by_owner.items():
            ranges = [each for pair in ranges_of(moving) for each in pair]
            order: list[Arg] = [
                "CLUSTER",
                "MIGRATESLOTS",
                "SLOTSRANGE",
                *ranges,
                "NODE",
                self._id(to),
            ]
            self.call(source, *order)
            for slot in moving:
                self.owners[slot] = to
        self.settle()

    # Nodes that come, go and change their part

    def failover(self, number: int, *how: str) -> None:
        """The first replica that runs takes over (`how`: FORCE, TAKEOVER); waited for."""
        shard = self.shard(number)
        replica = next(node for node in shard.replicas if node.running)
        self.order(replica, "CLUSTER", "FAILOVER", *how)
        self.adopt(number, replica)

    def adopt(self, number: int, new: ClusterNode | None = None) -> None:
        """Wait until a replica (this one, or any) is the primary, and all nodes agree."""
        shard = self.shard(number)
        others = [new] if new else [node for node in shard.replicas if node.running]

        def promoted() -> ClusterNode | None:
            return next((n for n in others if self.order(n, "ROLE")[0] == "master"), None)

        found = wait_until(promoted, f"a new primary of shard {number}", DEADLINE, GONE)
        assert found is not None
        shard.primary = found
        self.settle()

    def kill(self, number: int) -> ClusterNode:
        """A shard's primary crashes; it comes back with `start`, as `settle` then sees."""
        node = self.shard(number).primary
        node.kill()
        return node

    def freeze(self, number: int) -> None:
        """A shard's primary is alive, connected and silent."""
        self.shard(number).primary.pause()

    def thaw(self, number: int) -> None:
        """The end of `freeze`."""
        self.shard(number).primary.resume()

    def add_shard(self) -> Shard:
        """A new primary, without slots, that all others know."""
        number = 1 + max(shard.number for shard in self.shards)
        shard = Shard(number, [self._node(f"shard{number}.0")], ())
        self._write_view(shard.primary, [shard])
        self._start(shard.nodes)
        self.shards.append(shard)
        host, port, bus = shard.primary.host, shard.primary.listening, shard.primary.bus
        for node in self.running:
            if node is not shard.primary:
                self.order(node, "CLUSTER", "MEET", host, port, bus)
        self.settle()
        return shard

    def remove_shard(self, number: int) -> None:
        """Forget a shard that has no slot any more, and end its servers."""
        assert number not in self.owners, f"shard {number} still has slots"
        shard = self.shard(number)
        self.shards.remove(shard)
        for gone in shard.nodes:
            for node in self.running:
                self.order(node, "CLUSTER", "FORGET", gone.id)
        for gone in shard.nodes:
            gone.close()
        self.settle()

    def settle(self) -> None:
        """Wait until all running nodes say the same of the slots, and replicas follow."""
        try:
            wait_until(self._settled, "the nodes of the cluster agree", DEADLINE, GONE)
        except Unavailable as error:
            error.add_note(
                f"wanted: { {name: ranges_of(has) for name, has in self._wanted().items()} }"
            )
            for node in self.running:
                error.add_note(
                    f"{node.name} ({node.id[:8]}): {self.order(node, 'CLUSTER', 'NODES')}"
                )
            raise

    def close(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.close()

    # How it is made

    def _id(self, number: int) -> str:
        return self.shard(number).primary.id

    def _node(self, name: str) -> ClusterNode:
        files = self.tls.server_files() if self.tls else None
        return ClusterNode(server_binary(self.kind), name, settings=self._settings, tls=files)

    def _write_view(self, own: ClusterNode, shards: list[Shard]) -> None:
        """What a node knows before it starts."""
        lines = [line for shard in shards for line in self._lines(shard, own)]
        lines.append(f"vars currentEpoch {len(shards)} lastVoteEpoch 0")
        (own.folder / "nodes.conf").write_text("\n".join(lines) + "\n")

    def _lines(self, shard: Shard, own: ClusterNode) -> Iterator[str]:
        """One shard, as a node writes it down."""
        for node in shard.nodes:
            where = f"{node.host}:{node.listening}@{node.bus}"
            if self.kind != "redis7":  # which knows no ids of shards, and takes this for a name
                where += f",,shard-id={hashlib.sha1(shard.nodes[0].id.encode()).hexdigest()}"
            part = "master" if node is shard.primary else "slave"
            flags = f"myself,{part}" if node is own else part
            follows = "-" if node is shard.primary else shard.primary.id
            words = [node.id, where, flags, follows, "0", "0", str(shard.number + 1), "connected"]
            if node is shard.primary:
                words += [f"{first}-{last}" for first, last in shard.slots]
            yield " ".join(words)

    def _start(self, nodes: list[ClusterNode]) -> None:
        """Start them side by side."""
        for node in nodes:
            node.begin()
        for node in nodes:
            node.wait_ready(partial(_answers, node))

    def _settled(self) -> bool:
        slots = self._wanted()
        known = {node.id for node in self.nodes}
        return all(self._says(node, slots, known) for node in self.running)

    def _wanted(self) -> dict[str, set[int]]:
        """The slots of each primary."""
        slots: dict[str, set[int]] = {}
        for slot, number in enumerate(self.owners):
            slots.setdefault(self._id(number), set()).add(slot)
        return slots

    def _says(self, node: ClusterNode, slots: dict[str, set[int]], known: set[str]) -> bool:
        """Whether a node serves, knows just these nodes and who of them is a primary, and thinks
        that they have these slots."""
        with self.wire(node, 5.0) as wire:
            replication = wire.cmd("INFO", "replication")
            serves = b"cluster_state:ok" in wire.cmd("CLUSTER", "INFO")
            rows = [line.split() for line in wire.call("CLUSTER", "NODES").splitlines()]
        follows = b"role:slave" not in replication or b"master_link_status:up" in replication
        seen = {row[0]: slots_of(row[8:]) for row in rows}
        having = {name: has for name, has in seen.items() if has}
        running = {each.id for each in self.running}
        primaries = {row[0] for row in rows if "master" in row[2].split(",")} & running
        wanted = slots.keys() & running
        primaries -= {s.primary.id for s in self.shards if s.primary.id not in slots}
        agrees = having == slots and seen.keys() == known and primaries == wanted
        return serves and follows and agrees


def _answers(node: ClusterNode) -> bool:
    return ping(node.address) != b""


def slots_of(words: Iterable[str]) -> set[int]:
    """The slots of a node, as CLUSTER NODES writes them: `7`, `0-5460`; `[7->-id]` is none."""
    pairs = [word.split("-") for word in words if not word.startswith("[")]
    return {slot for pair in pairs for slot in range(int(pair[0]), int(pair[-1]) + 1)}


def ranges_of(slots: Iterable[int]) -> list[tuple[int, int]]:
    """Slots as ranges, first and last."""
    found: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return found
