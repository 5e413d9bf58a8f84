"""What is measured: every scenario of the harness, declared once.

A scenario is one question ("what does a pipeline of 16 cost?"). It has one or more *cases*, the
loads that are compared with each other, and a set of peers. Every (peer, case) pair is a *lane*;
all lanes of a scenario are measured in turns, so that a drift of the machine hits all of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.load.shape import Load

ALL_PEERS = ("direct", "sidecar", "envoy", "twemproxy", "haproxy")
OBSERVED = ("unobserved", "observed")  # the sidecar with little telemetry, and with all of it
TLS_PEERS = ("direct", "sidecar", "envoy", "haproxy")  # twemproxy has no TLS
SHARING_PEERS = ("direct", "sidecar", "envoy", "twemproxy")  # one upstream link for many clients


@dataclass(frozen=True)
class Scenario:
    """A question, its loads by name, and who is asked.

    `only_direct` names cases that exist only to compare with, measured without any proxy.
    `kind` is `load` (loadgen's closed loop) or `idle` (memory of connections that do nothing).
    """

    name: str
    title: str
    about: str
    cases: dict[str, Load]
    peers: tuple[str, ...] = ALL_PEERS
    kind: str = "load"
    sets: tuple[str, ...] = ("core", "full")
    only_direct: tuple[str, ...] = ()

    def lanes(self, peers: Iterable[str]) -> list[tuple[str, str]]:
        """The (peer, case) pairs of this scenario for the peers wanted."""
        wanted = [peer for peer in self.peers if peer in set(peers)]
        return [
            (peer, case)
            for case in self.cases
            for peer in wanted
            if peer == "direct" or case not in self.only_direct
        ]


def _one(name: str, title: str, about: str, load: Load, **more: object) -> Scenario:
    return Scenario(name, title, about, {"": load}, **more)  # type: ignore[arg-type]


_FULL = ("full",)
_64K, _1M = Load(value=64 << 10, keys=200), Load(value=1 << 20, keys=16, conns=8)

SCENARIOS: tuple[Scenario, ...] = (
    _one("p1", "50 connections, unpipelined", "The ordinary application.", Load()),
    _one("p16", "50 connections, pipeline 16", "A client that batches.", Load(pipeline=16)),
    _one("p64", "50 connections, pipeline 64", "A bulk job.", Load(pipeline=64)),
    _one("lat1", "1 connection, unpipelined", "The latency a proxy adds.", Load(conns=1)),
    Scenario(
        "unix-p1",
        "unix socket, unpipelined",
        "A sidecar next door: client to proxy on a unix socket, proxy to server on TCP.",
        {"unix": Load(client="unix"), "tcp": Load()},
        only_direct=("tcp",),
    ),
    Scenario(
        "unix-p16",
        "unix socket, pipeline 16",
        "The same, batched.",
        {"unix": Load(client="unix", pipeline=16), "tcp": Load(pipeline=16)},
        only_direct=("tcp",),
    ),
    _one("tls-p1", "TLS on both sides", "Unpipelined.", Load(tls=True), peers=TLS_PEERS),
    _one(
        "tls-p16",
        "TLS on both sides, pipeline 16",
        "Batched.",
        Load(tls=True, pipeline=16),
        peers=TLS_PEERS,
    ),
    Scenario(
        "v64k",
        "64 KiB values",
        "GET only and SET only.",
        {"get": replace(_64K, get=100), "set": replace(_64K, get=0)},
    ),
    Scenario(
        "v1m",
        "1 MiB values, 8 connections",
        "GET only and SET only.",
        {"get": replace(_1M, get=100), "set": replace(_1M, get=0)},
    ),
    _one("idle", "memory of an idle connection", "", Load(conns=5000), kind="idle"),
    _one(
        "idle-tls",
        "memory of an idle TLS connection",
        "",
        Load(conns=5000, tls=True),
        kind="idle",
        peers=TLS_PEERS,
    ),
    Scenario(
        "clients",
        "100 busy connections among 100 and among 10,000",
        "Connections that are merely open must cost nothing.",
        {"100": Load(conns=100), "10k": Load(conns=10_000, busy=100)},
        peers=SHARING_PEERS,
    ),
    Scenario(
        "growth",
        "busy connections from 1 to 5,000",
        "CPU per command must not grow with the number of connections.",
        {f"c{n}": Load(conns=n) for n in (1, 10, 50, 200, 500, 1000, 5000)},
        peers=SHARING_PEERS,
    ),
    Scenario(
        "keys",
        "1k keys and 1M keys",
        "CPU per command must not grow with the number of keys.",
        {"1k": Load(keys=1_000, pipeline=16), "1m": Load(keys=1_000_000, pipeline=16)},
        peers=SHARING_PEERS,
    ),
    Scenario(
        "telemetry",
        "telemetry off, and all of it on",
        "Spans sent to a collector, audit stream, hot keys, metrics scraped each second.",
        {"p1": Load(), "p16": Load(pipeline=16)},
        peers=("direct", "sidecar", *OBSERVED),
    ),
    Scenario(
        "keys10m",
        "1k keys and 10M keys (about 1.3 GB in the server)",
        "The same, further.",
        {"1k": Load(keys=1_000, pipeline=16), "10m": Load(keys=10_000_000, pipeline=16)},
        peers=SHARING_PEERS,
        sets=(),
    ),
    _one("get-p1", "GET only", "Unpipelined.", Load(get=100), sets=_FULL),
    _one("set-p1", "SET only", "Unpipelined.", Load(get=0), sets=_FULL),
    _one("get-p16", "GET only, pipeline 16", "", Load(get=100, pipeline=16), sets=_FULL),
    _one("set-p16", "SET only, pipeline 16", "", Load(get=0, pipeline=16), sets=_FULL),
    _one("lat1-p16", "1 connection, pipeline 16", "", Load(conns=1, pipeline=16), sets=_FULL),
    _one("c500-p1", "500 connections", "", Load(conns=500), sets=_FULL),
    _one("c500-p16", "500 connections, pipeline 16", "", Load(conns=500, pipeline=16), sets=_FULL),
    _one("v1k-p1", "1 KiB values", "Unpipelined.", Load(value=1024), sets=_FULL),
    _one("v1k-p16", "1 KiB values, pipeline 16", "", Load(value=1024, pipeline=16), sets=_FULL),
    _one(
        "tls-lat1",
        "TLS, 1 connection",
        "",
        Load(tls=True, conns=1),
        peers=TLS_PEERS,
        sets=_FULL,
    ),
    _one(
        "tls-v64k",
        "TLS, 64 KiB values",
        "",
        replace(_64K, tls=True),
        peers=TLS_PEERS,
        sets=_FULL,
    ),
    _one(
        "tls-c500",
        "TLS, 500 connections",
        "",
        Load(tls=True, conns=500),
        peers=TLS_PEERS,
        sets=_FULL,
    ),
)


def choose(set_name: str, only: list[str]) -> list[Scenario]:
    """The scenarios of a set, or those whose names match one of the patterns in `only`."""
    if not only:
        return [s for s in SCENARIOS if set_name in s.sets]
    for pattern in only:
        if not any(fnmatch.fnmatch(s.name, pattern) for s in SCENARIOS):
            known = ", ".join(s.name for s in SCENARIOS)
            raise SystemExit(f"no scenario matches {pattern!r}; there are: {known}")
    return [s for s in SCENARIOS if any(fnmatch.fnmatch(s.name, p) for p in only)]


def tiny(scenario: Scenario) -> Scenario:
    """The same question at a size fit for a smoke run: at most 300 connections, 2,000 keys."""
    cases = {
        name: replace(
            load,
            conns=min(load.conns, 300),
            busy=load.busy and min(load.busy, 50),
            keys=min(load.keys, 2000),
        )
        for name, load in scenario.cases.items()
    }
    return replace(scenario, cases=cases)
