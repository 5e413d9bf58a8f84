"""Alerts on what a sidecar really exports: in a fault they fire, without one they are silent.

Two scrapes, one before and one in the fault, are made into series that stay as they are for an
hour, and promtool evaluates the rules on them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.admin import answers, api, metric, scrape
from tests.harness.alerting import CONFIG, MISSING, WITHOUT
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.several import pids
from tests.harness.wire import Wire, pack

pytestmark = pytest.mark.skipif(bool(MISSING), reason=WITHOUT)

Series = dict[str, float]
MINUTES = 30  # before the fault, and in it


# What a loaded machine is: a test must not judge that.
SLOW = {"SidecarLoopLag", "SidecarLatencyHigh"}


def series(sidecar: Sidecar) -> Series:
    """What Prometheus would store of a scrape."""
    found: Series = {"up": 1.0}
    for family in text_string_to_metric_families(scrape(sidecar)):
        for sample in family.samples:
            labels = "".join(f', {name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}|{labels}"] = sample.value
    return found


def as_written(name: str) -> str:
    metric_name, _, labels = name.partition("|")
    return f'{metric_name}{{job="redis-sidecar", instance="a"{labels}}}'


def firing(folder: Path, before: Series, after: Series) -> set[str]:
    """The alerts that fire at any time of the second half."""
    rows = []
    for name in sorted({*before, *after}):
        first = f"{before[name]:.17g}x{MINUTES}" if name in before else f"_x{MINUTES}"
        then = f"{after[name]:.17g}x{MINUTES}" if name in after else f"_x{MINUTES}"
        rows.append({"series": as_written(name), "values": f"{first} {then}"})
    query = f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{MINUTES - 1}m]))'
    test = {
        "rule_files": [str(rules) for rules in sorted((CONFIG / "prometheus/rules").glob("*.yml"))],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": rows,
                "promql_expr_test": [
                    {"expr": query, "eval_time": f"{2 * MINUTES}m", "exp_samples": []}
                ],
            }
        ],
    }
    file = folder / "rules.test.yml"
    file.write_text(yaml.safe_dump(test))
    argv = ["promtool", "test", "rules", str(file)]
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    text = said.stdout + said.stderr
    assert said.returncode == 0 or "got:" in text, text
    return {part.split('"')[0] for part in text.split('alertname="')[1:]}


@pytest.fixture
def server() -> Iterator[Server]:
    with valkey() as server:
        yield server


@contextmanager
def started(upstream: str, **settings: str | int) -> Iterator[Sidecar]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    with Sidecar(upstream, settings=named, admin=f"127.0.0.1:{free_port()}") as sidecar:
        wait_until(lambda: answers(f"http://{sidecar.admin}/readyz"), "ready")
        yield sidecar


def pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "time passes", seconds + 5)


def test_nothing_fires_on_an_idle_sidecar(server: Server, tmp_path: Path) -> None:
    """Neither before its first command nor long after its last one, nor of an idle identity."""
    with started(server.url) as sidecar:
        new = series(sidecar)
        with Wire(sidecar.port) as wire:
            wire.cmd("SELECT", 5)
            wire.cmd("SET", "k", "v")
            wire.cmd("GET", "k")
        wait_until(lambda: api(sidecar, "/api/stats")["clients"] == 0, "the client is gone")
        pause(2.0)
        assert metric(sidecar, "sidecar_cache_proof_age_seconds") == 0
        later = series(sidecar)
    assert firing(tmp_path, new, new) - SLOW == set()
    assert firing(tmp_path, later, later) - SLOW == set()
    assert firing(tmp_path, new, later) - SLOW == set()


def dies(server: Server, sidecar: Sidecar, wire: Wire) -> None:
    server.pause()
    wire.send(pack("INCR", "n"))
    pause(0.2)
    server.kill()

    def opened() -> bool:
        return metric(sidecar, 'sidecar_breaker_state{state="open"}') == 1

    wait_until(opened, "the breaker opens", 10.0)


def freezes(server: Server, sidecar: Sidecar, wire: Wire) -> None:
    assert wire.cmd("GET", "k") == b"_\r\n"
    server.pause()
    wire.send(pack("SET", "k", "v"))

    def stale() -> bool:
        return metric(sidecar, "sidecar_cache_proof_age_seconds") > 5

    wait_until(stale, "the proof is old", 10.0)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (dies, {"SidecarNoMaster", "SidecarBreakerOpen", "SidecarUncertainWrites"}),
        (freezes, {"SidecarNoMaster", "SidecarCacheProofStale"}),
    ],
)
def test_a_fault_is_told(
    server: Server,
    tmp_path: Path,
    fault: Callable[[Server, Sidecar, Wire], None],
    expected: set[str],
) -> None:
    with started(server.url) as sidecar, ExitStack() as clients:
        wire = clients.enter_context(Wire(sidecar.port))
        wire.cmd("HELLO", 3)
        wire.cmd("SELECT", 1)
        wire.cmd("PING")
        before = series(sidecar)
        fault(server, sidecar, wire)
        after = series(sidecar)
        if server.running:
            server.resume()
    assert expected <= firing(tmp_path, before, after)


def test_a_sidecar_that_never_starts_to_serve_is_told(tmp_path: Path) -> None:
    """Its admin port answers, so it is not down; it has no data plane to tell of the upstream."""
    admin = f"127.0.0.1:{free_port()}"
    nowhere = f"redis://127.0.0.1:{free_port()}"
    with Sidecar(nowhere, admin=admin, settings={"upstream.start_timeout": 30}, ready=False) as it:
        wait_until(lambda: answers(f"http://{admin}/livez"), "the admin port answers", 10.0)
        now = series(it)
    assert "SidecarNoMaster" in firing(tmp_path, now, now)


def test_sentinels_that_are_away_are_told(tmp_path: Path) -> None:
    nowhere = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/mymaster"
    settings = {"upstream.start": "wait", "upstream.start_timeout": 1}
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(nowhere, settings=settings, admin=admin, ready=False) as sidecar:
        name = 'sidecar_sentinels{state="known"}'
        wait_until(lambda: name in scrape(sidecar), "it serves", 15.0, ignore=(OSError,))
        now = series(sidecar)
    assert {"SidecarSentinelsLost", "SidecarNoMaster"} <= firing(tmp_path, now, now)


def test_refused_commands_are_told(server: Server, tmp_path: Path) -> None:
    with started(server.url, listen__policy="production") as sidecar, Wire(sidecar.port) as wire:
        wire.cmd("KEYS", "*")
        before = series(sidecar)
        wire.pipeline([("KEYS", "*")] * 2000)
        after = series(sidecar)
    assert "SidecarRefusing" in firing(tmp_path, before, after)


@pytest.mark.one_worker("listen.max_clients is divided among the workers")
def test_refused_clients_are_told(server: Server, tmp_path: Path) -> None:
    with started(server.url, listen__max_clients=1) as sidecar, Wire(sidecar.port) as wire:
        wire.cmd("PING")
        before = series(sidecar)
        with Wire(sidecar.port) as other:
            assert other.cmd("PING").startswith(b"-ERR max number of clients")
        after = series(sidecar)
    assert firing(tmp_path, before, after) - SLOW == {"SidecarClientsRejected"}


def test_workers_that_are_down_or_keep_ending_are_told(server: Server, tmp_path: Path) -> None:
    with started(server.url, workers=2) as sidecar:
        before = series(sidecar)
        _end_worker(sidecar, 1)
        os.kill(pids(sidecar)[2], signal.SIGSTOP)
        try:
            wait_until(lambda: _workers(sidecar, "silent") == 1, "it is silent")
            silent = series(sidecar)
        finally:
            os.kill(pids(sidecar)[2], signal.SIGCONT)
        assert "SidecarWorkerDown" in firing(tmp_path, before, silent)
        for _ in range(2):
            _end_worker(sidecar, 1)
        again = series(sidecar)
    assert firing(tmp_path, before, again) - SLOW == {"SidecarWorkerRestarting"}


def _end_worker(sidecar: Sidecar, number: int) -> None:
    """Kill one, and wait until another process serves in its place."""
    old = pids(sidecar)[number]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: pids(sidecar)[number] != old, "another process", 20)
    wait_until(lambda: _workers(sidecar, "up") == 2, "all serve", 20)


def _workers(sidecar: Sidecar, state: str) -> float:
    return metric(sidecar, f'sidecar_workers{{state="{state}"}}') or 0
