"""twemproxy and HAProxy."""

from __future__ import annotations

from bench.load.shape import Load
from bench.peers.stage import BACKLOG, Lane, Stage
from tests.harness.errors import Unavailable
from tests.harness.process import free_port
from tests.harness.programs import find


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
        f"  backlog: {BACKLOG}",
        "  servers:",
        f"   - 127.0.0.1:{stage.upstream_port(load)}:1",
    ]
    config = stage.write("twemproxy", "\n".join(lines) + "\n")
    argv = [binary, "-c", str(config), "-a", "127.0.0.1", "-s", str(free_port()), "-v", "0"]
    return stage.start("twemproxy", argv, address)


def start_haproxy(stage: Stage, load: Load) -> Lane:
    """HAProxy in TCP mode with one thread: one upstream connection per client, no sharing."""
    binary, address = find("haproxy"), stage.listen("haproxy", load)
    bind = f"unix@{address.path}" if address.path else f"127.0.0.1:{address.port}"
    server = f"127.0.0.1:{stage.upstream_port(load)}"
    if load.tls and stage.certificates:
        bind += f" ssl crt {stage.certificates.server.bundle}"
        server += f" ssl verify required ca-file {stage.certificates.ca}"
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
        f"  bind {bind} backlog {BACKLOG}",
        f"  server s1 {server}",
    ]
    config = stage.write("haproxy", "\n".join(lines) + "\n")
    return stage.start("haproxy", [binary, "-db", "-q", "-f", str(config)], address)
