"""The upstream of `embedded+cluster://`: a Valkey cluster of our own, to try things out.

Each node is an `EmbeddedServer`, with its promises: it ends with us, its folder is private, nothing
is left behind. The nodes know each other from the start, since we write down (`nodes.conf`) what
they would find out by meeting. The servers themselves refuse everything for the first 2 s.

With `embedded.dir` the nodes keep their data and their parts from one run to the next; ports are
new ones each time, and are put in the place of the old ones.

A node that ends is not started again: a primary that came back at once would come back empty, and
its replica would follow it. With replicas the cluster goes on without it. When a shard has no node
left its data is gone, and the cluster has ended.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from sidecar.discovery.embedded import EmbeddedError, EmbeddedServer, free_port
from sidecar.settings.urls import Endpoint

ATTEMPTS = 3  # another process may take a port before a server does
POLL = 0.02  # seconds between two questions whether they serve; it takes them 2 s
SLOTS = 16384

_CONF = "nodes.conf"
_COMMON = (
    *("--cluster-enabled", "yes"),
    *("--cluster-config-file", _CONF),
    *("--cluster-node-timeout", "5000"),
    *("--cluster-replica-validity-factor", "0"),
    *("--repl-diskless-sync-delay", "0"),
)

log = structlog.get_logger()


class _Node:
    """One server: its shard, its folder, its id, its ports for clients and for other nodes."""

    def __init__(self, shard: int, replica: int, base: Path) -> None:
        self.shard = shard
        self.is_primary = replica == 0
        self.name = f"shard{shard}-{replica}"
        self.folder = base / self.name
        self.id = secrets.token_hex(20)
        self.port = self.bus = 0
        self.server: EmbeddedServer | None = None

    @property
    def where(self) -> str:
        """As `nodes.conf` has it."""
        return f"127.0.0.1:{self.port}@{self.bus}"

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.server is not None and self.server.pid is not None


class EmbeddedCluster:
    """So many `shards` with so many `replicas` each, from `start` to `stop`.

    `directory` and `arguments` are as those of EmbeddedServer. `on_exit` is called once, on the
    loop, with a one-line reason, when a shard has lost its last server.
    """

    def __init__(
        self,
        shards: int,
        replicas: int = 0,
        directory: str = "",
        arguments: Sequence[str] = (),
        *,
        on_exit: Callable[[str], None] | None = None,
    ) -> None:
        self._shards = shards
        self._replicas = replicas
        self._directory = directory
        self._arguments = arguments
        self._on_exit = on_exit
        self._private: Path | None = None
        self._nodes: list[_Node] = []
        self._ended = False

    @property
    def endpoint(self) -> Endpoint:
        """Where the proxy connects: the nodes that were primaries at first."""
        members = tuple(("127.0.0.1", node.port) for node in self._nodes if node.is_primary)
        return Endpoint(kind="cluster", members=members)

    @property
    def url(self) -> str:
        """Where everybody else on this host connects, for example with `redis-cli -c -u`."""
        return str(self.endpoint)

    @property
    def pids(self) -> list[int]:
        """The process ids of the servers that run."""
        return [n.server.pid for n in self._nodes if n.server is not None and n.server.pid]

    async def start(self, within: float = 10.0) -> None:
        """Start all servers and wait until they serve, `within` seconds at most.

        Raises EmbeddedError; nothing is left running then.
        """
        try:
            async with asyncio.timeout(within):
                for attempt in range(ATTEMPTS):
                    try:
                        await self._start(within)
                        break
                    except EmbeddedError as error:
                        await self._stop_all(0.0)
                        taken = "already in use" in str(error)
                        if not taken or attempt == ATTEMPTS - 1:
                            raise
                await self._serving()
        except TimeoutError:
            await self.stop(0.0)
            raise EmbeddedError(
                f"the embedded cluster did not serve within {within:g} s; raise "
                "upstream.start_timeout"
            ) from None
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, within: float = 5.0) -> None:
        """Ask the servers to end, kill them after `within` seconds; may be called twice."""
        self._ended = True
        await self._stop_all(within)
        self._clean_up()

    def kill(self) -> None:
        """End them at once, without waiting; for a process that is itself about to exit."""
        self._ended = True
        for node in self._nodes:
            if node.server is not None:
                node.server.kill()
        self._clean_up()

    async def _start(self, within: float) -> None:
        """One attempt."""
        base = self._base()
        self._nodes = [
            _Node(shard, replica, base)
            for shard in range(self._shards)
            for replica in range(1 + self._replicas)
        ]
        try:
            self._write_down(base)
        except OSError as error:
            raise EmbeddedError(
                f"embedded.dir {base} cannot be used: {error.strerror}; choose another"
            ) from None
        for node in self._nodes:
            node.server = self._server(node)
        starting = [node.server.start(within) for node in self._nodes if node.server is not None]
        results = await asyncio.gather(*starting, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _base(self) -> Path:
        if self._directory:
            return Path(self._directory).absolute()
        self._clean_up()
        self._private = Path(tempfile.mkdtemp(prefix="sidecar-cluster-"))
        return self._private

    def _server(self, node: _Node) -> EmbeddedServer:
        own = ["--cluster-port", str(node.bus)]
        if not self._directory:
            own += ["--save", ""]
        return EmbeddedServer(
            str(node.folder),
            (*_COMMON, *own, *self._arguments),
            port=node.port,
            on_exit=lambda reason: self._node_ended(node, reason),
        )

    def _write_down(self, base: Path) -> None:
        """What each node knows of all before it starts. Raises OSError, EmbeddedError."""
        kept = list(base.glob(f"shard*-*/{_CONF}"))
        names = {path.parent.name for path in kept}
        if kept and names != {node.name for node in self._nodes}:
            raise EmbeddedError(
                f"embedded.dir {base} holds a cluster of other nodes ({', '.join(sorted(names))}); "
                "ask for as many shards and replicas, or choose another directory"
            )
        for node in self._nodes:
            node.port, node.bus = free_port(), free_port()
            node.folder.mkdir(parents=True, exist_ok=True)
            if kept:
                node.id = _own_id((node.folder / _CONF).read_text())
        for node in self._nodes:
            conf = node.folder / _CONF
            text = self._moved(conf.read_text()) if kept else "\n".join(self._lines(node)) + "\n"
            conf.write_text(text)

    def _lines(self, own: _Node) -> Iterator[str]:
        for node in self._nodes:
            shard, first = node.shard, next(n for n in self._nodes if n.shard == node.shard)
            part = "master" if node.is_primary else "slave"
            flags = f"myself,{part}" if node is own else part
            follows = "-" if node.is_primary else first.id
            line = f"{node.id} {node.where},,shard-id={first.id[::-1]} {flags} {follows}"
            line += f" 0 0 {shard + 1} connected"
            if node.is_primary:
                last = (shard + 1) * SLOTS // self._shards - 1
                line += f" {shard * SLOTS // self._shards}-{last}"
            yield line
        yield f"vars currentEpoch {self._shards} lastVoteEpoch 0"

    def _moved(self, text: str) -> str:
        """What a node knew, with the ports that all have now."""
        places = {node.id: node.where for node in self._nodes}
        lines = []
        for line in text.splitlines():
            words = line.split(" ")
            if words[0] in places:
                _, comma, more = words[1].partition(",")
                words[1] = places[words[0]] + comma + more
            lines.append(" ".join(words))
        return "\n".join(lines) + "\n"

    async def _serving(self) -> None:
        """Return once every node says that the cluster is well and that it follows its primary."""
        waiting = list(self._nodes)
        while waiting:
            waiting = [node for node in waiting if not await _is_well(node)]
            await asyncio.sleep(POLL)

    def _node_ended(self, node: _Node, reason: str) -> None:
        if self._ended:
            return
        if any(other.running for other in self._nodes if other.shard == node.shard):
            log.warning("embedded node ended", node=node.name, port=node.port, reason=reason)
            return
        self._ended = True
        if self._on_exit is not None:
            self._on_exit(
                f"shard {node.shard} of the embedded cluster has no server left: {reason}"
            )

    async def _stop_all(self, within: float) -> None:
        servers = [node.server for node in self._nodes if node.server is not None]
        await asyncio.gather(*(server.stop(within) for server in servers))

    def _clean_up(self) -> None:
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None


def _own_id(text: str) -> str:
    """The id of the node whose `nodes.conf` this is."""
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) > 2 and "myself" in words[2].split(","):
            return words[0]
    raise EmbeddedError("a nodes.conf in embedded.dir names no node; choose another directory")


async def _is_well(node: _Node) -> bool:
    """Whether it serves, as far as it tells those who have no password."""
    assert node.server is not None
    with suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_unix_connection(node.server.endpoint.path)
        try:
            writer.write(b"CLUSTER INFO\r\nINFO replication\r\n")
            said = b""
            for _ in range(2):
                line = await reader.readline()
                if not line.startswith(b"$"):
                    return line.startswith(b"-NOAUTH")
                said += await reader.readexactly(int(line[1:]) + 2)
            return b"cluster_state:ok" in said and b"master_link_status:down" not in said
        finally:
            writer.close()
    return False
