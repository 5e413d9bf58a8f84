"""The files of config/cluster/ work: nodes made with them become a cluster, and the sidecar serves
it with its own file."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.process import Process, free_port, ping, wait_until
from tests.harness.programs import find, server_binary
from tests.harness.wire import Wire

FOLDER = Path(__file__).parents[2] / "config/cluster"
KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis), "redis8"]


class Node(Process):
    """A server started from the file; its ports and its folder are its own."""

    def __init__(self, binary: str) -> None:
        super().__init__("node")
        text = text_of("valkey.conf")
        for name, value in (("dir", self.folder), ("port", self.port)):
            text, replaced = re.subn(rf"^{name} .*$", f"{name} {value}", text, flags=re.MULTILINE)
            assert replaced == 1
        conf = self.folder / "valkey.conf"
        conf.write_text(f"{text}\ncluster-port {free_port()}\n")
        self.spawn([binary, str(conf)])
        self.wait_ready(lambda: ping(self.port) == b"+PONG\r\n")


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize("kind", KINDS)
def test_the_guide_step_by_step(kind: str) -> None:
    with ExitStack() as stack:
        nodes = [stack.enter_context(Node(server_binary(kind))) for _ in range(6)]
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        create = [find("redis-cli"), "--cluster", "create", *addresses]
        subprocess.run(
            [*create, "--cluster-replicas", "1", "--cluster-yes"],
            check=True,
            capture_output=True,
            timeout=60,
        )

        def well() -> bool:
            with Wire(nodes[0].port) as wire:
                said = wire.call("CLUSTER", "INFO")
            return "cluster_state:ok" in said and "cluster_slots_ok:16384" in said

        wait_until(well, "all slots are served", 30)
        check = [find("redis-cli"), "--cluster", "check", addresses[0]]

        def checked() -> bool:
            done = subprocess.run(check, capture_output=True, text=True, timeout=30, check=False)
            return "[OK] All 16384 slots covered." in done.stdout and not done.returncode

        wait_until(checked, "the check succeeds", 30)
        with Configured(addresses[:3]) as sidecar, Wire(sidecar.port) as client:
            for count in range(20):
                assert client.cmd("SET", f"key{count}", count) == b"+OK\r\n"
            assert client.call("DBSIZE") == 20


class Configured(Process):
    """The sidecar with config/cluster/sidecar.toml; the command line overrides addresses only."""

    def __init__(self, nodes: list[str]) -> None:
        super().__init__("sidecar")
        argv = [sys.executable, "-m", "sidecar", "run", "-c", str(FOLDER / "sidecar.toml")]
        argv += ["--upstream", f"redis+cluster://{','.join(nodes)}", "--admin", ""]
        self.spawn([*argv, "--listen", f"redis://127.0.0.1:{self.port}"])
        self.wait_ready(lambda: ping(self.port) == b"+PONG\r\n")


def test_the_sidecar_accepts_its_file() -> None:
    """`sidecar check`, and its URL names nodes of the guide."""
    argv = [sys.executable, "-m", "sidecar", "check", "-c", str(FOLDER / "sidecar.toml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    settings = tomllib.loads(text_of("sidecar.toml"))
    assert settings["upstream"]["url"] in done.stdout
    port = re.search(r"^port (\d+)$", text_of("valkey.conf"), re.MULTILINE)
    assert port is not None
    assert f"127.0.0.1:{port[1]}" in settings["upstream"]["url"]


def test_the_hold_is_long_enough() -> None:
    """As the files themselves say: the nodes' timeout plus 2 s."""
    timeout = re.search(r"^cluster-node-timeout (\d+)", text_of("valkey.conf"), re.MULTILINE)
    hold = tomllib.loads(text_of("sidecar.toml"))["failover"]["hold"]
    assert timeout is not None
    assert float(hold.removesuffix("s")) >= int(timeout[1]) / 1000 + 2


@pytest.mark.parametrize("name", ["valkey.conf", "sidecar.toml"])
def test_no_secrets_and_loopback_only(name: str) -> None:
    """What is not commented out holds no password, and no address but 127.0.0.1."""
    text = "\n".join(line.partition("#")[0] for line in text_of(name).splitlines())
    assert not re.search(r"pass|auth|:[^/\s]*@", text, re.IGNORECASE)
    assert set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)) == {"127.0.0.1"}


def text_of(name: str) -> str:
    return (FOLDER / name).read_text()
