"""`make bench-idle`: what a sidecar without work costs its server.

Each setup has a server and a sidecar of its own; all are measured at the same time. At the server
are counted the sidecar's connections, in the end, and the commands executed in between (INFO
commandstats). Sentinels ask a server by themselves: what it executed in as much time before there
was a sidecar is subtracted.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.harness.cluster import Cluster
from tests.harness.errors import Unavailable
from tests.harness.process import free_port
from tests.harness.sentinels import Cluster as SentinelGroup
from tests.harness.server_stats import all_calls, clients
from tests.harness.servers import Settings, Sidecar, valkey
from tests.harness.wire import Wire

PAGE = b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass
class Watched:
    """A server, or several alike, in one setup."""

    name: str
    ports: Sequence[int]
    subtract: bool = False
    before: Counter[str] = field(default_factory=Counter)
    usual: Counter[str] = field(default_factory=Counter)
    connections: Counter[int] = field(default_factory=Counter)

    def executed(self) -> Counter[str]:
        """How often each command was executed until now, on all of the servers together."""
        total: Counter[str] = Counter()
        for port in self.ports:
            with Wire(port) as wire:
                total.update(all_calls(wire))
        return total

    def note_connections(self, sign: int) -> None:
        """Count the clients of the servers, this bench's own aside."""
        for port in self.ports:
            with Wire(port) as wire:
                self.connections[port] += sign * (len(clients(wire)) - 1)

    def row(self, seconds: float) -> str:
        """A line of the table: of one server, in the mean."""
        asked = self.executed() - self.before
        asked.subtract(self.usual)
        asked["info"] -= len(self.ports)  # this bench's own
        self.note_connections(1)
        each = seconds * len(self.ports)
        rates = {name: count / each for name, count in asked.most_common() if count > 0}
        often = [
            f"`{name.replace('|', ' ')}` {rate:.1f}" for name, rate in rates.items() if rate > 0.05
        ]
        links = sum(self.connections.values()) / len(self.ports)
        return f"| {self.name} | {links:.0f} | {sum(rates.values()):.1f} | {', '.join(often)} |"


def upstreams(stack: ExitStack) -> list[tuple[Watched, str, Settings]]:
    """The setups: what is watched, the upstream, and the sidecar's settings."""
    setups: list[tuple[Watched, str, Settings]] = []
    for name, settings in [
        ("one server, default settings", {}),
        ("the same, a client has used the near cache", {"cache.mode": "rules", "cache.rules": "*"}),
        ('`cache.mode = "off"`', {"cache.mode": "off"}),
        ("`workers = 2`", {"workers": 2}),
        ("the web page is open", {}),
    ]:
        server = stack.enter_context(valkey())
        setups.append((Watched(name, [server.port]), server.url, settings))
    shards = stack.enter_context(Cluster())
    nodes = [node.port for node in shards.nodes]
    setups.append((Watched("a cluster, each primary", nodes), shards.url, {}))
    group = stack.enter_context(SentinelGroup())
    master = Watched("Sentinels, the master", [group.master.port], subtract=True)
    setups.append((master, group.url, {}))
    return setups


def measure(seconds: float) -> list[str]:
    """The lines of the table."""
    with ExitStack() as stack:
        setups = upstreams(stack)
        all_watched = [watched for watched, _, _ in setups]
        others = [each for each in all_watched if each.subtract]
        for each in others:
            each.before = each.executed()
        time.sleep(seconds)
        for each in others:
            each.usual = each.executed() - each.before
        for each in all_watched:
            each.note_connections(-1)
        for watched, url, settings in setups:
            admin = f"127.0.0.1:{free_port()}"
            sidecar = stack.enter_context(Sidecar(url, settings=settings, admin=admin, defaults={}))
            with Wire(sidecar.port) as wire:  # learns, and leaves nothing
                for _ in range(3):
                    wire.cmd("GET", "k")
            if "page" in watched.name:
                host, _, port = admin.partition(":")
                page = stack.enter_context(socket.create_connection((host, int(port))))
                page.sendall(PAGE)
        time.sleep(2)  # what is done once, at the start, is not what an idle sidecar costs
        for each in all_watched:
            each.before = each.executed()
        time.sleep(seconds)
        return [each.row(seconds) for each in all_watched]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the table of docs/servers.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long each part lasts (60)")
    args = parser.parse_args(argv)
    try:
        rows = measure(args.seconds)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(
        "| Setup | Connections | Commands a second | More often than once in 20 s |",
        "|---|---|---|---|",
        sep="\n",
    )
    print(*rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
