"""Command policies behind a cluster, with several workers, and in the audit stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.process import free_port, wait_until
from tests.harness.programs import server_binary
from tests.harness.resp import pack_all
from tests.harness.servers import Server, Sidecar
from tests.harness.several import several, spread
from tests.harness.wire import Wire

FILE = """
[policies.some]
deny = ["KEYS", "PUBLISH", "FLUSHALL"]
deny_keys = ["secret:*"]
"""
LIMITS = """
[identities.default]
limits = { reply = "1KB", in_flight = "1KB", pipeline = 4 }
"""
# The same for a user of the server.
RULES = ("+@all", "-keys", "-publish", "-flushall", "~k*", "~{k}*", "allchannels")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster("valkey", shards=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def strict(cluster: Cluster) -> Iterator[Server]:
    """A single server whose users have the rules themselves."""
    with Server(server_binary(cluster.kind), "strict") as server:
        with Wire(server.port) as wire:
            wire.call("ACL", "SETUSER", "default", "resetkeys", *RULES)
        yield server


def restricted(url: str, folder: Path, text: str = FILE, policy: str = "some") -> Sidecar:
    file = folder / "identities.toml"
    file.write_text(text)
    return Sidecar(url, settings={"identities.file": str(file), "listen.policy": policy})


PROGRAMS = [
    ["KEYS *", "GET k1"],
    ["GET k1", "SET k2 x", "KEYS *", "GET secret:1", "GET k2", "GET k3"],
    ["MULTI", "KEYS *", "EXEC", "GET k1"],
    ["MULTI", "PUBLISH c m", "EXEC", "GET k1"],
    ["MULTI", "PING", "PUBLISH c m", "EXEC", "GET k1"],
    ["MULTI", "PING", "SET {k}1 x", "PUBLISH c m", "SET {k}2 x", "EXEC", "GET {k}1"],
    ["MULTI", "SET k1 x", "GET secret:1", "EXEC", "GET k1"],
    ["WATCH k1", "FLUSHALL", "MULTI", "FLUSHALL", "EXEC"],
    ["MGET k1 k2 secret:1", "DEL k1 k2", "FLUSHALL", "PUBLISH c m"],
]


@pytest.mark.parametrize("at_once", [False, True])
def test_behind_a_cluster(cluster: Cluster, strict: Server, tmp_path: Path, at_once: bool) -> None:
    with restricted(cluster.url, tmp_path) as sidecar:
        for program in PROGRAMS:
            found = []
            for port in (sidecar.port, strict.port):
                lines = [line.split() for line in program]
                with Wire(port) as wire:
                    wire.cmd("DEL", "k1")
                    if at_once:
                        wire.send(pack_all(lines))
                        found.append(wire.read_replies(len(lines)))
                    else:
                        found.append([wire.cmd(*line) for line in lines])
            assert found[0] == found[1], program


def test_limits_behind_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    with restricted(cluster.url, tmp_path, LIMITS, "") as sidecar, Wire(sidecar.port) as wire:
        names = [f"name{i}" for i in range(300)]
        assert set(wire.pipeline([("SET", name, "x" * 100) for name in names])) == {b"+OK\r\n"}
        wire.cmd("SET", "large", "x" * 500)
        wire.cmd("APPEND", "large", "x" * 600)
        replies = wire.pipeline([("GET", "name1"), ("GET", "large"), ("GET", "name2")])
        assert replies[1].startswith(b"-LIMITED")
        assert replies[0] == replies[2] == b"$100\r\n" + 100 * b"x" + b"\r\n"


def test_all_workers_restrict(plain_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    file.write_text(FILE)
    settings = {"identities.file": str(file), "listen.policy": "some"}
    with (
        several(plain_server.url, settings=settings) as sidecar,
        spread(sidecar.port) as ([mine], [other]),
    ):
        for wire in (mine, other):
            assert wire.cmd("KEYS", "*").startswith(b"-NOPERM")
        file.write_text('[policies.some]\ndeny = ["GET"]\n')
        for wire in (mine, other):
            wait_until(lambda: wire.cmd("GET", "k").startswith(b"-NOPERM"), "the new policy")  # noqa: B023
            assert wire.cmd("KEYS", "nosuch") == b"*0\r\n"


def test_a_listener_of_several_workers_names_its_policy(
    plain_server: Server, tmp_path: Path
) -> None:
    port = free_port()
    with (
        several(plain_server.url, also=[f"redis://127.0.0.1:{port}?policy=production"]) as sidecar,
        Wire(port) as wire,
        Wire(sidecar.port) as free,
    ):
        assert wire.cmd("KEYS", "nosuch").startswith(b"-NOPERM")
        assert free.cmd("KEYS", "nosuch") == b"*0\r\n"


def test_refusals_are_audited_so_many_a_second(plain_server: Server, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    settings = {"listen.policy": "production", "audit.file": str(path)}
    with Sidecar(plain_server.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
        wire.cmd("FLUSHALL")
        wire.pipeline([("KEYS", "*")] * 2000)

        def denied() -> list[str]:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            return [line["command"] for line in lines if line["event"] == "denied"]

        wait_until(lambda: "keys" in denied(), "they are recorded")
        assert denied()[0] == "flushall"
        assert len(denied()) <= 100
