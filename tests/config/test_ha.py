"""The files of config/ha/ work: started as they are, but for ports and folders, they fail over."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import KINDS
from tests.harness.process import Process, free_port, ping, wait_until
from tests.harness.programs import server_binary
from tests.harness.sentinels import Flavour
from tests.harness.wire import Wire

FOLDER = Path(__file__).parents[2] / "config/ha"
DEADLINE = 20.0
NODES, SENTINELS = (6379, 6380, 6381), (26379, 26380, 26381)


class Configured(Process):
    """A server or Sentinel started from a file; ports in it are taken from `ports`."""

    def __init__(
        self, binary: str, file: str, port: int, ports: dict[int, int], *more: str, mode: str = ""
    ) -> None:
        super().__init__(file.partition(".")[0], ports[port])
        text = (FOLDER / file).read_text()
        text, replaced = re.subn(r"^dir .*$", f"dir {self.folder}", text, flags=re.MULTILINE)
        assert replaced == 1
        text, replaced = re.subn(r"^port .*$", f"port {ports[port]}", text, flags=re.MULTILINE)
        assert replaced == 1
        text = re.sub(r"\b6379\b", str(ports[6379]), text)
        conf = self.folder / file
        conf.write_text("\n".join([text, *more, ""]))
        self.spawn([binary, str(conf), *([mode] if mode else [])])
        self.wait_ready(lambda: ping(self.port) == b"+PONG\r\n")

    def ask(self, *command: str | int) -> Any:
        """One command, its reply parsed."""
        with Wire(self.port) as wire:
            return wire.ask(*command)


class Deployment:
    """The three nodes and three Sentinels of the guide, on free ports."""

    def __init__(self, flavour: Flavour) -> None:
        self.ports = {port: free_port() for port in (*NODES, *SENTINELS)}
        self.processes: list[Configured] = []
        binary = server_binary(flavour)
        master = f"replicaof 127.0.0.1 {self.ports[6379]}"
        try:
            for port in NODES:
                more = () if port == 6379 else (master,)
                self._add(Configured(binary, "valkey.conf", port, self.ports, *more))
            for port in SENTINELS:
                self._add(Configured(binary, "sentinel.conf", port, self.ports, mode="--sentinel"))
        except BaseException:
            self.close()
            raise

    def _add(self, process: Configured) -> None:
        self.processes.append(process)

    @property
    def nodes(self) -> list[Configured]:
        """The data nodes, the first master first."""
        return self.processes[:3]

    @property
    def sentinels(self) -> list[Configured]:
        """The Sentinels."""
        return self.processes[3:]

    def close(self) -> None:
        """End them all."""
        for process in self.processes:
            process.close()


@pytest.fixture(params=KINDS)
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Everything started, nothing more."""
    deployment = Deployment(request.param)
    yield deployment
    deployment.close()


def _facts(sentinel: Configured) -> dict[str, str]:
    reply = sentinel.ask("SENTINEL", "MASTER", "mymaster")
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _agreed(deployment: Deployment) -> bool:
    facts = [_facts(sentinel) for sentinel in deployment.sentinels]
    return all(
        (each["flags"], each["num-slaves"], each["num-other-sentinels"], each["quorum"])
        == ("master", "2", "2", "2")
        for each in facts
    )


def test_the_guide_step_by_step(deployment: Deployment) -> None:
    """They find each other; the sidecar, with its own file, serves and follows a failover."""
    first = deployment.nodes[0]
    wait_until(lambda: first.ask("INFO", "replication").count("state=online") == 2, "replicas", 20)
    wait_until(lambda: _agreed(deployment), "Sentinels and nodes know each other", DEADLINE)
    with _Sidecar(deployment) as sidecar, Wire(sidecar.port, deadline=DEADLINE) as client:
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        assert first.ask("WAIT", 2, 5000) == 2
        assert deployment.sentinels[0].ask("SENTINEL", "FAILOVER", "mymaster") == "OK"
        wait_until(
            lambda: sidecar.log().count('"event":"master followed"') == 2, "the switch", DEADLINE
        )
        assert client.cmd("INCR", "k") == b":2\r\n"
        masters = [node for node in deployment.nodes if node.ask("ROLE")[0] == "master"]
        assert any(node.ask("GET", "k") == "2" for node in masters if node is not first)


class _Sidecar(Process):
    """The sidecar with config/ha/sidecar.toml; the command line overrides addresses only."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__("sidecar")
        members = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in deployment.sentinels)
        url = f"redis+sentinel://{members}/mymaster"
        listen = f"redis://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "sidecar", "run", "-c", str(FOLDER / "sidecar.toml")]
        self.spawn([*argv, "--upstream", url, "--listen", listen, "--admin", ""])
        self.wait_ready(lambda: ping(self.port) == b"+PONG\r\n")


def test_the_sidecar_accepts_its_file() -> None:
    """`sidecar check`, and its URL names the Sentinels' service."""
    file = FOLDER / "sidecar.toml"
    argv = [sys.executable, "-m", "sidecar", "check", "-c", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    url = tomllib.loads(file.read_text())["upstream"]["url"]
    assert url in done.stdout
    service = re.search(r"^sentinel monitor (\S+) ", _text("sentinel.conf"), re.MULTILINE)
    assert service is not None
    assert url.endswith(f"/{service[1]}")


def test_the_hold_is_long_enough() -> None:
    """As the files themselves say: down-after plus 5 s."""
    down_after = re.search(
        r"^sentinel down-after-milliseconds \S+ (\d+)", _text("sentinel.conf"), re.MULTILINE
    )
    hold = tomllib.loads(_text("sidecar.toml"))["failover"]["hold"]
    assert down_after is not None
    assert float(hold.removesuffix("s")) >= int(down_after[1]) / 1000 + 5


@pytest.mark.parametrize("name", ["valkey.conf", "sentinel.conf", "sidecar.toml"])
def test_no_secrets_and_loopback_only(name: str) -> None:
    """What is not commented out holds no password, and no address but 127.0.0.1."""
    lines = [line.partition("#")[0] for line in _text(name).splitlines()]
    text = "\n".join(lines)
    assert not re.search(r"pass|auth|:[^/\s]*@", text, re.IGNORECASE)
    addresses = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text))
    assert addresses == {"127.0.0.1"}


def _text(name: str) -> str:
    return (FOLDER / name).read_text()
