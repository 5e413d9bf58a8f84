"""A master, its replicas and their Sentinels, each a real process on 127.0.0.1.

`Cluster()` is a context manager; it begins with every replica in sync and every Sentinel knowing
every other node. Nodes keep their configuration in a file of their own, as Sentinel rewrites it,
so `kill` and `start` bring one back in the role it had been given.

Sentinels look around slowly: they publish themselves every 2 s, ask replicas every 10 s, and leave
an old master alone for 8 s. While the cluster forms or settles those periods are made short with
SENTINEL DEBUG; in between they have their defaults, so that what a test measures is the real thing.
"""

from __future__ import annotations

from typing import Any, Literal

from .certificates import Certificates
from .closing import Closing
from .process import Process, ping, wait_until
from .programs import server_binary
from .resp import pairs
from .servers import Server
from .wire import Wire

SERVICE = "mymaster"
SETTLE_DEADLINE = 30.0

Flavour = Literal["valkey", "redis7"]

_HASTY = {"info-period": 100, "publish-period": 100, "ping-period": 100, "ask-period": 100}
_USUAL = {"info-period": 10000, "publish-period": 2000, "ping-period": 1000, "ask-period": 1000}


class Node(Server):
    """A server with a configuration file, which Sentinels and the server itself rewrite."""

    @property
    def listening(self) -> int:
        """The port that Sentinels name: the one it announces, or its TLS port, or its port."""
        return int(self.settings.get("replica-announce-port", self.tls_port or self.port))

    @property
    def announced(self) -> tuple[str, int]:
        """Where the Sentinels say that it is."""
        return self.host, self.listening

    def start(self) -> None:
        """Start it (again) with the file that it, or a Sentinel, has written last."""
        before = len(self.log())
        conf = self.folder / "node.conf"
        if not conf.exists():
            conf.write_text("".join(f"{key} {_word(v)}\n" for key, v in self.settings.items()))
        self.spawn([self.binary, str(conf)])
        self.wait_ready(lambda: self._ready(before))


class SentinelProcess(Process):
    """One Sentinel; with certificates it speaks TLS only."""

    def __init__(
        self, binary: str, lines: list[str], tls: Certificates | None, name: str = "sentinel"
    ) -> None:
        super().__init__(name)
        self.binary = binary
        self.tls = tls
        self.conf = self.folder / "sentinel.conf"
        ports = [f"port {self.port}"]
        if tls is not None:
            files = tls.server_files().settings()
            ports = ["port 0", f"tls-port {self.port}", "tls-replication yes"]
            ports += [f"{key} {value}" for key, value in files.items()]
        head = ["bind 127.0.0.1", f"dir {self.folder}", "sentinel resolve-hostnames no", *ports]
        self.conf.write_text("\n".join([*head, *lines]) + "\n")
        self.start()

    def start(self) -> None:
        """Start it (again) with what it knew."""
        self.spawn([self.binary, str(self.conf), "--sentinel"])
        context = self.tls.client_context() if self.tls else None
        self.wait_ready(lambda: ping(self.port, context) != b"")

    def restart(self) -> None:
        """SIGKILL, then start again on the same port."""
        self.kill()
        self.start()


class Cluster(Closing):
    """`.master`, `.replicas` (as they began) and `.sentinels`, on free ports.

    `password` is the data nodes', `sentinel_password` the Sentinels'. With `tls` (flavour redis7
    only) everybody speaks TLS to everybody.
    """

    service = SERVICE

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        flavour: Flavour = "valkey",
        *,
        quorum: int | None = None,
        down_after_ms: int = 1000,
        failover_timeout_ms: int = 5000,
        password: str | None = None,
        sentinel_password: str | None = None,
        tls: Certificates | None = None,
    ) -> None:
        self.flavour = flavour
        self.password = password
        self.sentinel_password = sentinel_password
        self.tls = tls
        self.replicas: list[Node] = []
        self.sentinels: list[SentinelProcess] = []
        self.down: set[int] = set()
        self.master = self._node(None)
        try:
            for _ in range(replicas):
                self.replicas.append(self._node(self.master))
            wait_until(self._synced, "every replica online", SETTLE_DEADLINE)
            lines = self._monitor(quorum or sentinels // 2 + 1, down_after_ms, failover_timeout_ms)
            for number in range(sentinels):
                more = [*lines, *self._sentinel_lines(number)]
                name, binary = f"sentinel{number}", server_binary(flavour)
                self.sentinels.append(SentinelProcess(binary, more, tls, name))
            self.settle()
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> list[Node]:
        """The data nodes, whatever role they have by now."""
        return [self.master, *self.replicas]

    @property
    def url(self) -> str:
        """All Sentinels, as upstream.url names them; the password is the data nodes'."""
        return self.url_of(*self.sentinels)

    def url_of(self, *sentinels: SentinelProcess) -> str:
        """Some of the Sentinels."""
        host = "localhost" if self.tls else "127.0.0.1"
        members = ",".join(f"{host}:{sentinel.port}" for sentinel in sentinels)
        who = f":{self.password}@" if self.password else ""
        return f"redis{'s' if self.tls else ''}+sentinel://{who}{members}/{SERVICE}"

    def ask(self, sentinel: SentinelProcess, *command: str | int) -> Any:
        """One command to one Sentinel; an error as a `Refused`."""
        context = self.tls.client_context() if self.tls else None
        with Wire(sentinel.port, tls=context) as wire:
            if self.sentinel_password:
                wire.cmd("AUTH", self.sentinel_password)
            return wire.ask(*command)

    def order(self, node: Node, *command: str | int) -> Any:
        """One command to one data node."""
        with Wire(node.port) as wire:
            if self.password:
                wire.cmd("AUTH", self.password)
            return wire.ask(*command)

    def failover(self, sentinel: SentinelProcess | None = None) -> None:
        """A planned failover, begun through one Sentinel (the first); it is not waited for."""
        leader = sentinel or self.sentinels[0]
        answer = self.ask(leader, "SENTINEL", "FAILOVER", SERVICE)
        assert answer == "OK", answer

    def current_master(self) -> int:
        """The port that most of the running Sentinels name."""
        ports = [int(self._described(sentinel)["port"]) for sentinel in self._running]
        return max(ports, key=ports.count)

    def node(self, port: int) -> Node:
        """The data node that listens there."""
        return next(n for n in self.nodes if port in (n.port, n.tls_port, n.listening))

    def settle(self) -> None:
        """Wait until all running nodes know each other, agree, and replicate from one master."""
        for sentinel in self._running:
            self._pace(sentinel, _HASTY)
        wait_until(self._settled, "Sentinels, master and replicas settled", SETTLE_DEADLINE)
        for sentinel in self._running:
            self._pace(sentinel, _USUAL)

    def close(self) -> None:
        """End all of it."""
        for process in (*self.sentinels, *self.nodes):
            process.close()

    @property
    def _running(self) -> list[SentinelProcess]:
        return [sentinel for sentinel in self.sentinels if sentinel.running]

    def _node(self, master: Node | None) -> Node:
        settings: dict[str, str | int | float] = {"repl-ping-replica-period": 1}
        if self.password:
            settings |= {"requirepass": self.password, "masterauth": self.password}
        if self.tls:
            settings["tls-replication"] = "yes"
        if master is not None:
            settings["replicaof"] = f"127.0.0.1 {master.listening}"
        number = 0 if master is None else 1 + len(self.replicas)
        more = self._node_settings(number)
        port = int(more.pop("port", 0)) or None
        files = self.tls.server_files() if self.tls else None
        binary, name = server_binary(self.flavour), f"node{number}"
        return Node(binary, name, settings={**settings, **more}, port=port, tls=files)

    def _node_settings(self, number: int) -> dict[str, str | int | float]:
        """Further settings of one node; for those who need another network."""
        return {}

    def _sentinel_lines(self, number: int) -> list[str]:
        """Further lines of one Sentinel's file."""
        return []

    def _monitor(self, quorum: int, down_after_ms: int, failover_timeout_ms: int) -> list[str]:
        """What every Sentinel's file says about the service."""
        lines = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.listening} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {failover_timeout_ms}",
            f"sentinel parallel-syncs {SERVICE} 1",
        ]
        if self.password:
            lines.append(f"sentinel auth-pass {SERVICE} {self.password}")
        if secret := self.sentinel_password:
            lines += [f"requirepass {secret}", f"sentinel sentinel-pass {secret}"]
        return lines

    def _pace(self, sentinel: SentinelProcess, periods: dict[str, int]) -> None:
        words = [str(word) for pair in periods.items() for word in pair]
        assert self.ask(sentinel, "SENTINEL", "DEBUG", *words) == "OK"

    def _synced(self) -> bool:
        info = str(self.order(self.master, "INFO", "replication"))
        return info.count("state=online") == len(self.replicas)

    def _described(self, sentinel: SentinelProcess) -> dict[str, str]:
        return pairs(self.ask(sentinel, "SENTINEL", "MASTER", SERVICE))

    def _settled(self) -> bool:
        nodes = [node for node in self.nodes if node.running]
        masters = set()
        for sentinel in self._running:
            master = self._described(sentinel)
            masters.add(master["port"])
            rows = self.ask(sentinel, "SENTINEL", "REPLICAS", SERVICE)
            good = [row for row in map(pairs, rows) if _follows(row, master["port"])]
            others = int(master["num-other-sentinels"])
            if master["flags"] != "master" or others != len(self.sentinels) - 1:
                return False
            if len(good) != len(nodes) - 1:
                return False
        return len(masters) == 1


def _follows(row: dict[str, str], port: str) -> bool:
    """Whether a replica replicates from the master of that port, and the Sentinel knows."""
    return (
        row["flags"] == "slave"
        and row["role-reported"] == "slave"
        and row["master-port"] == port
        and row["master-link-status"] == "ok"
    )


def _word(value: str | int | float) -> str:
    return '""' if value == "" else str(value)
