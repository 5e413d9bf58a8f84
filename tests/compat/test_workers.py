"""Several workers: one sidecar to its clients, whichever process serves them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.harness.admin import api, checks, get, metrics, scrape
from tests.harness.errors import DeadlineError
from tests.harness.pair import Pair
from tests.harness.process import wait_until
from tests.harness.servers import Server, Settings, Sidecar, valkey
from tests.harness.several import Counting, lives, pids, several, spread, worker_of
from tests.harness.wire import ClosedError, Wire, pack

from .commands import GROUPS
from .test_commands import compare_pipelined

RESTARTS = "sidecar_worker_restarts_total"


def up(sidecar: Sidecar) -> float:
    return metrics(sidecar).get('sidecar_workers{state="up"}', 0)


@pytest.fixture(scope="module")
def shared(farm_server: Server) -> Iterator[Sidecar]:
    """A sidecar of two workers that no test harms."""
    with several(farm_server.url) as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def farm_server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue("farm").server("valkey")
    return server


def listed(wire: Wire, *words: str) -> list[dict[str, str]]:
    """The lines of CLIENT LIST."""
    text = wire.ask("CLIENT", "LIST", *words) or ""
    return [dict(w.split("=", 1) for w in line.split()) for line in text.splitlines()]


@pytest.fixture(scope="module")
def two_pair() -> Iterator[Pair]:
    """A server alone, and one behind two workers."""
    settings: Settings = {"workers": 2, "cache.mode": "off"}
    with valkey() as direct, valkey() as behind, Sidecar(behind.url, settings=settings) as own:
        yield Pair("valkey", direct, behind, own)


@pytest.mark.parametrize("group", GROUPS)
def test_commands_answer_as_the_server_does(two_pair: Pair, group: str) -> None:
    """In short; `make test-workers` has the whole compatibility suite."""
    two_pair.reset()
    compare_pipelined(two_pair, group, 3)


# Clients of other workers


def test_what_one_does_another_sees(shared: Sidecar) -> None:
    with spread(shared.port) as ([mine], [other]):
        assert mine.cmd("WATCH", "watched") == b"+OK\r\n"
        assert other.cmd("SET", "watched", "1") == b"+OK\r\n"
        assert mine.cmd("MULTI") == b"+OK\r\n"
        assert mine.cmd("GET", "watched") == b"+QUEUED\r\n"
        assert mine.cmd("EXEC") == b"*-1\r\n"
        other.send(pack("BLPOP", "queue", 0))
        assert mine.cmd("RPUSH", "queue", "a") == b":1\r\n"
        assert other.read_reply() == b"*2\r\n$5\r\nqueue\r\n$1\r\na\r\n"
        other.cmd("SUBSCRIBE", "news")
        assert mine.cmd("PUBLISH", "news", "b") == b":1\r\n"
        assert other.read_reply() == b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nb\r\n"


def test_client_list_has_the_clients_of_all(shared: Sidecar) -> None:
    with spread(shared.port, 2) as (mine, others):
        wires = [*mine, *others]
        for number, wire in enumerate(wires):
            wire.cmd("CLIENT", "SETNAME", f"client-{number}")
        for wire in wires:
            names = [line["name"] for line in listed(wire)]
            assert sorted(names) == [f"client-{n}" for n in range(4)]
        ids = [line["id"] for line in listed(mine[0])]
        assert len(set(ids)) == 4
        (line,) = listed(mine[0], "ID", str(others[0].ask("CLIENT", "ID")))
        assert line["name"] == "client-2"


def test_client_kill_reaches_all(shared: Sidecar) -> None:
    with spread(shared.port, 3) as (mine, others):
        number = str(others[0].ask("CLIENT", "ID"))
        assert mine[0].cmd("CLIENT", "KILL", "ID", number) == b":1\r\n"
        others[0].expect_eof()
        (line,) = listed(others[1], "ID", str(others[1].ask("CLIENT", "ID")))
        assert mine[0].cmd("CLIENT", "KILL", line["addr"]) == b"+OK\r\n"
        others[1].expect_eof()
        assert mine[0].cmd("CLIENT", "KILL", "ID", number) == b":0\r\n"
        assert mine[0].cmd("CLIENT", "KILL", line["addr"]) == b"-ERR No such client\r\n"
        assert mine[0].cmd("CLIENT", "KILL", "TYPE", "normal") == b":3\r\n"
        for wire in (*mine[1:], others[2]):
            wire.expect_eof()
        assert mine[0].cmd("PING") == b"+PONG\r\n"


def test_client_unblock_reaches_all(shared: Sidecar) -> None:
    with spread(shared.port) as ([mine], [other]):
        number = str(other.ask("CLIENT", "ID"))
        other.send(pack("BLPOP", "queue", 0))
        wait_until(lambda: mine.cmd("CLIENT", "UNBLOCK", number) == b":1\r\n", "it is blocked")
        assert other.read_reply() == b"*-1\r\n"


def test_invalidations_are_redirected_to_a_client_of_another(shared: Sidecar) -> None:
    with spread(shared.port) as ([mine], [other]):
        number = str(other.ask("CLIENT", "ID"))
        other.cmd("SUBSCRIBE", "__redis__:invalidate")
        assert mine.cmd("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
        assert mine.cmd("CLIENT", "GETREDIR") == b":%s\r\n" % number.encode()
        mine.cmd("GET", "watched")
        mine.cmd("SET", "watched", "1")
        assert b"watched" in other.read_reply()


# Figures


def test_figures_are_those_of_all(shared: Sidecar) -> None:
    with spread(shared.port) as ([mine], [other]):
        before = metrics(shared)
        for _ in range(3):
            mine.cmd("INCR", "n")
        for _ in range(4):
            other.cmd("INCR", "n")
        after = metrics(shared)
        name = 'sidecar_commands_total{command="incr"}'
        assert after[name] - before.get(name, 0) == 7
        assert after["sidecar_client_connections"] == 2
        assert after['sidecar_workers{state="up"}'] == 2
        each = get(f"http://{shared.admin}/metrics?per_worker").splitlines()
        for number in (1, 2):
            assert f'sidecar_client_connections{{worker="{number}"}} 1.0' in each
        assert api(shared, "/api/stats")["clients"] == 2
        assert {"serving", "workers", "upstream", "accepting"} <= set(checks(shared))


def test_hot_keys_are_those_of_all(shared: Sidecar) -> None:
    with spread(shared.port) as ([mine], [other]):
        for _ in range(300):
            mine.cmd("GET", "warm")
            other.cmd("GET", "hot")
            other.cmd("GET", "hot")
        keys = {each["key"]: each for each in api(shared, "/api/hotkeys")["keys"]}
        assert list(keys)[:2] == ["hot", "warm"]
        assert 0.3 < keys["hot"]["share"] < 0.8


# One that ends


def test_a_worker_is_killed_under_load(plain_server: Server) -> None:
    """Its clients connect again and are served; the others see nothing. It is started again."""
    with several(plain_server.url) as sidecar:
        with spread(sidecar.port):
            pass
        clients = [Counting(sidecar.port, f"n{n}") for n in range(6)]
        while len({each.worker for each in clients}) < 2:
            clients.append(Counting(sidecar.port, f"n{len(clients)}"))
        for each in clients:
            each.start()
        wait_until(lambda: all(each.confirmed > 20 for each in clients), "load", 30)
        before = metrics(sidecar)['sidecar_commands_total{command="incr"}']
        os.kill(pids(sidecar)[1], signal.SIGKILL)
        wait_until(lambda: any(each.lost for each in clients), "it is gone", 30)
        seen = [before]
        while metrics(sidecar)[RESTARTS] < 1 or up(sidecar) < 2:
            seen.append(metrics(sidecar)['sidecar_commands_total{command="incr"}'])
        done = [each.confirmed for each in clients]
        wait_until(
            lambda: all(e.confirmed > n + 20 for e, n in zip(clients, done, strict=True)),
            "load",
            30,
        )
        for each in clients:
            each.stop = True
        for each in clients:
            each.join()
        seen.append(metrics(sidecar)['sidecar_commands_total{command="incr"}'])
        assert seen == sorted(seen), "a counter went down"
        (killed,) = {each.worker for each in clients if each.lost}
        for each in clients:
            assert each.failures == []
            assert bool(each.lost) == (each.worker == killed)
            with Wire(sidecar.port) as wire:
                counted = int(wire.ask("GET", each.key) or 0)
            assert each.confirmed <= counted <= each.confirmed + each.lost
            each.wire.close()
        assert '"worker ended","number":1,"reason":"SIGKILL"' in sidecar.log()


def test_a_worker_is_restarted_without_an_error(plain_server: Server) -> None:
    """SIGTERM for one worker: who connects meanwhile is served, who waits gets the reply."""
    settings = {"drain.timeout": 2}
    with several(plain_server.url, settings=settings) as sidecar:
        old, failures, stop = pids(sidecar), list[str](), threading.Event()

        def connect() -> None:
            while not stop.is_set():
                try:
                    with Wire(sidecar.port, deadline=10) as wire:
                        assert wire.cmd("PING") == b"+PONG\r\n"
                except (OSError, ClosedError) as error:
                    failures.append(repr(error))

        crowd = [threading.Thread(target=connect) for _ in range(3)]
        for each in crowd:
            each.start()
        with spread(sidecar.port) as ([mine], [other]):
            for wire in (mine, other):
                wire.send(pack("BLPOP", "queue", 0))
            os.kill(old[1], signal.SIGTERM)
            wait_until(lambda: '"worker stopping"' in sidecar.log(), "it has been told")
            with Wire(sidecar.port) as wire:
                assert wire.cmd("RPUSH", "queue", "a", "b") == b":2\r\n"
            for wire in (mine, other):
                assert wire.read_reply().startswith(b"*2\r\n$5\r\nqueue\r\n")
        wait_until(lambda: pids(sidecar)[1] != old[1] and up(sidecar) == 2, "again", 20)
        stop.set()
        for each in crowd:
            each.join()
        assert failures == []
        assert pids(sidecar)[2] == old[2]
        assert '"worker ended","number":1,"reason":"told to end"' in sidecar.log()


def test_a_worker_that_hangs(plain_server: Server) -> None:
    """Figures, health and readiness say so, and nobody waits for it."""
    with several(plain_server.url) as sidecar:
        frozen = pids(sidecar)[1]
        os.kill(frozen, signal.SIGSTOP)
        began = time.monotonic()
        try:
            wait_until(
                lambda: metrics(sidecar)['sidecar_workers{state="silent"}'] == 1, "said so", 5
            )
            assert time.monotonic() - began < 4, "within 3 s, and a second for a slow machine"
            began = time.monotonic()
            for _ in range(3):
                scrape(sidecar)
            assert time.monotonic() - began < 1
            said = api(sidecar, "/api/health/redis")
            assert said["status"] == "degraded"
            assert "worker 1 does not answer" in said["reasons"]
            assert not checks(sidecar)["workers"]
        finally:
            os.kill(frozen, signal.SIGCONT)
        wait_until(lambda: up(sidecar) == 2, "it answers again")
        assert checks(sidecar)["workers"]


def test_client_list_does_not_wait_for_one_that_hangs() -> None:
    """What the others know is said, without the links of the one that hangs, and the log says what
    is missing."""
    settings = {"upstream.pool_spare": 0}
    with (
        valkey() as server,
        several(server.url, settings=settings) as sidecar,
        spread(sidecar.port) as ([mine], [other]),
    ):
        mine.cmd("CLIENT", "SETNAME", "mine")
        other.cmd("CLIENT", "SETNAME", "other")
        scrape(sidecar)  # what links a worker has is known when it was asked last
        for number, pid in pids(sidecar).items():
            os.kill(pid, signal.SIGSTOP)
            if not _answers(mine):
                os.kill(pid, signal.SIGCONT)
                assert mine.read_reply() == b"+PONG\r\n"
                continue
            assert [line["name"] for line in listed(mine)] == ["mine"]
            assert f'"worker not asked","number":{number}' in sidecar.log()
            os.kill(pid, signal.SIGCONT)
            assert other.cmd("PING") == b"+PONG\r\n"


def _answers(wire: Wire) -> bool:
    try:
        return wire.cmd("PING", deadline=1) == b"+PONG\r\n"
    except DeadlineError:
        return False


def test_a_crash_loop_does_not_spin(tmp_path: Path) -> None:
    """It is tried again later and later, the log says why, and it comes back once it can."""
    file = tmp_path / "password"
    file.write_text("secret")
    settings = {"upstream.password_file": str(file)}
    with valkey({"requirepass": "secret"}) as server, several(server.url, settings=settings) as it:
        file.rename(tmp_path / "away")
        os.kill(pids(it)[1], signal.SIGKILL)
        wait_until(lambda: it.log().count('"worker start failed"') >= 3, "tried again", 30)
        (down,) = [line for line in api(it, "/api/health/redis")["reasons"] if "worker" in line]
        assert down.startswith("worker 1 cannot start: ")
        assert api(it, "/api/stats")["serving"]
        failed = [line["time"] for line in logged(it, "worker start failed")]
        pauses = [b - a for a, b in pairwise(map(seconds, failed[:3]))]
        assert pauses[1] > 0.15, "PAUSES begin at 0.1 s, double, and are at least half of that"
        (tmp_path / "away").rename(file)
        wait_until(lambda: up(it) == 2, "it is back", 30)


def logged(sidecar: Sidecar, event: str) -> list[dict[str, str]]:
    lines = map(json.loads, filter(lambda line: line[:1] == "{", sidecar.log().splitlines()))
    return [line for line in lines if line["event"] == event]


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_the_supervisor_is_killed(plain_server: Server) -> None:
    """Its workers do not outlive it, and do not end in the middle of a command."""
    with several(plain_server.url) as sidecar:
        workers = pids(sidecar).values()
        with spread(sidecar.port) as ([mine], [other]):
            for wire in (mine, other):
                wire.send(pack("BLPOP", "queue", 1))
            sidecar.kill()
            for wire in (mine, other):
                assert wire.read_reply() == b"*-1\r\n"
        wait_until(lambda: not any(map(lives, workers)), "they have ended", 20)


# Listeners


def test_a_unix_socket_is_shared(plain_server: Server, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.sock"
    with several(plain_server.url, also=[f"unix://{path}"]) as sidecar:
        served = set()

        def both() -> bool:
            wires = [Wire(str(path)) for _ in range(20)]
            served.update(worker_of(wire) for wire in wires)
            for wire in wires:
                wire.close()
            return len(served) == 2

        wait_until(both, "each serves some", 20)
        assert sidecar.stop() == 0
    assert not path.exists()


def test_a_port_that_is_taken(plain_server: Server) -> None:
    """Sharing it among workers does not open it to another sidecar."""
    with several(plain_server.url) as first:
        second = Sidecar(
            plain_server.url, settings={"workers": 2}, port=first.port, ready=False, admin=""
        )
        wait_until(lambda: not second.running, "it has ended", 20)
        assert second.returncode == 1
        assert "cannot listen on" in second.log()
        second.close()


def test_an_embedded_server_is_shared() -> None:
    with several("embedded://") as sidecar, spread(sidecar.port) as ([mine], [other]):
        assert mine.cmd("SET", "k", "v") == b"+OK\r\n"
        assert other.cmd("GET", "k") == b"$1\r\nv\r\n"
