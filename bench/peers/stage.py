"""What the lanes of a scenario stand on: the server, certificates, and where each peer listens.

Every peer gets one thread on the data path and the setting that serves it best for the kind of
load (see `envoy.flush`); logs, statistics and admin ports are off where that is possible, and
everything listens on 127.0.0.1 or a unix socket in the scenario's temporary directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.readiness import wait_ready
from bench.load.shape import Address, Load
from tests.harness.certificates import Certificates
from tests.harness.fleet import Fleet
from tests.harness.process import Process, free_port
from tests.harness.programs import server_binary
from tests.harness.servers import Server

MAX_CLIENTS = 15_000
BACKLOG = 4096


@dataclass(frozen=True)
class Lane:
    """A peer ready to be measured; `process` is None for the server itself."""

    address: Address
    process: Process | None


@dataclass
class Stage:
    """What a peer needs to be set up: its processes, the server, certificates, CPU pinning."""

    fleet: Fleet
    server: Server
    certificates: Certificates | None = None
    proxy_cpus: set[int] | None = None
    sidecar_settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    """Where proxies reach the server without TLS, if it is not the server's own port."""

    def listen(self, name: str, load: Load) -> Address:
        """A fresh address for a proxy's clients."""
        if load.client == "unix":
            return Address(path=str(self._file(name, "sock")))
        return Address(port=free_port(), tls=load.tls)

    def upstream_port(self, load: Load) -> int:
        """The port a proxy connects to."""
        return (self.server.tls_port or 0) if load.tls else self.port or self.server.port

    def write(self, name: str, text: str, end: str = "conf") -> Path:
        """A configuration file in the temporary directory."""
        path = self._file(name, end)
        path.write_text(text)
        return path

    def start(self, name: str, argv: Sequence[str], address: Address) -> Lane:
        """Start a proxy and wait until it serves."""
        process = self.fleet.start(name, argv, self.proxy_cpus)
        wait_ready(process, address)
        return Lane(address, process)

    def _file(self, name: str, end: str) -> Path:
        return self.fleet.folder / f"{name}-{len(self.fleet.processes)}.{end}"


def start_server(
    fleet: Fleet,
    kind: str,
    certificates: Certificates | None = None,
    cpus: set[int] | None = None,
) -> Server:
    """A server without persistence on TCP and a unix socket, with TLS if there are certificates."""
    settings: dict[str, str | int | float] = {
        "unixsocket": str(socket_of(fleet)),
        "maxclients": MAX_CLIENTS,
        "tcp-backlog": BACKLOG,
        "io-threads": 1,
    }
    tls = certificates.server_files() if certificates else None
    return fleet.add(Server(server_binary(kind), "server", settings=settings, tls=tls, cpus=cpus))


def socket_of(fleet: Fleet) -> Path:
    """The unix socket of the fleet's server."""
    return fleet.folder / "server.sock"


def start_direct(stage: Stage, load: Load) -> Lane:
    """The server itself."""
    if load.client == "unix":
        return Lane(Address(path=str(socket_of(stage.fleet))), None)
    return Lane(Address(port=stage.upstream_port(load), tls=load.tls), None)
