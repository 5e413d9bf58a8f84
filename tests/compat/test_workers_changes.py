"""Several workers: settings, pauses, switches and the end reach all of them, or none."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.admin import api, metrics, post, wait_ready
from tests.harness.failover import news
from tests.harness.process import free_port, ping, wait_until
from tests.harness.server_stats import calls
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.several import Counting, lives, pids, several, spread
from tests.harness.warm import fill
from tests.harness.wire import Wire, pack


def up(sidecar: Sidecar) -> float:
    return metrics(sidecar).get('sidecar_workers{state="up"}', 0)


def test_all_drain(plain_server: Server) -> None:
    with several(plain_server.url) as sidecar:
        workers = pids(sidecar).values()
        with spread(sidecar.port) as ([mine], [other]):
            for wire in (mine, other):
                wire.send(pack("BLPOP", "queue", 1))
            os.kill(sidecar.pid, signal.SIGTERM)
            for wire in (mine, other):
                assert wire.read_reply() == b"*-1\r\n"
        wait_until(lambda: not sidecar.running, "it has ended", 20)
        assert not any(map(lives, workers))


def test_a_reload_reaches_all_or_none(plain_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text("[listen]\nidle_timeout = 0\n")
    sidecar = _with_file(plain_server, file)
    with sidecar, spread(sidecar.port) as ([mine], [other]):
        file.write_text("[listen]\nidle_timeout = -1\n")
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_until(lambda: "settings reload failed" in sidecar.log(), "refused")
        assert mine.cmd("PING") == other.cmd("PING") == b"+PONG\r\n"
        file.write_text("[listen]\nidle_timeout = 0.5\n")
        os.kill(sidecar.pid, signal.SIGHUP)
        for wire in (mine, other):
            wire.expect_eof()


def test_a_reload_to_what_is_not_there_holds_nobody(plain_server: Server, tmp_path: Path) -> None:
    file, port = tmp_path / "sidecar.toml", free_port()
    file.write_text(f'[upstream]\nurl = "{plain_server.url}"\n')
    with _all_in_file(file) as sidecar, spread(sidecar.port) as ([mine], [other]):
        _write(file, f"redis://127.0.0.1:{free_port()}", sidecar.port, port)
        assert post(sidecar, "/api/reload")[0] == 409
        assert not news(sidecar, "commands held")
        assert mine.cmd("PING") == other.cmd("PING") == b"+PONG\r\n"
        assert ping(port) == b""


@pytest.mark.slow
def test_a_reload_that_fails_late_takes_nothing(plain_server: Server, tmp_path: Path) -> None:
    """The old server owes a reply, so nobody goes: the new address is given up, a new token is not
    asked for, and the next reload finds all as it was."""
    file, port = tmp_path / "sidecar.toml", free_port()
    first = f'[upstream]\nurl = "{plain_server.url}"\n[failover]\nhold = 1\n'
    file.write_text(first)
    with valkey() as second, _all_in_file(file) as sidecar, Wire(plain_server.port) as direct:
        before = file.read_text()
        with spread(sidecar.port) as ([mine], [other]):
            assert direct.cmd("CLIENT", "PAUSE", 60_000, "WRITE") == b"+OK\r\n"
            mine.send(pack("SET", "k", "v"))
            wait_until(lambda: api(sidecar, "/api/stats")["unanswered"]["oldest"] > 0, "it waits")
            _write(file, second.url, sidecar.port, port)
            status, said = post(sidecar, "/api/reload")
            assert (status, "still wait for replies" in said["error"]) == (409, True)
            assert direct.cmd("CLIENT", "UNPAUSE") == b"+OK\r\n"
            assert mine.read_reply() == b"+OK\r\n"
            assert other.cmd("GET", "k") == b"$1\r\nv\r\n"
            assert ping(port) == b""
            file.write_text(before)
            assert post(sidecar, "/api/reload")[1]["changed"] == []
            _write(file, second.url, sidecar.port, port)
            assert "listen.urls" in post(sidecar, "/api/reload")[1]["changed"]
            wait_until(lambda: ping(port), "it listens")


def _write(file: Path, upstream: str, *ports: int) -> None:
    urls = ", ".join(f'"redis://127.0.0.1:{port}"' for port in ports)
    file.write_text(
        f'[upstream]\nurl = "{upstream}"\n[listen]\nurls = [{urls}]\n'
        '[failover]\nhold = 1\n[admin]\ntoken = "a-token-of-more-than-sixteen"\n'
    )


def _all_in_file(file: Path) -> Sidecar:
    """A sidecar whose addresses stand in its file, to be changed there."""

    class Filed(Sidecar):
        def argv(self) -> list[str]:
            argv = super().argv()
            if "urls" not in file.read_text():
                urls = f'[listen]\nurls = ["{self.listen}"]\n'
                file.write_text(file.read_text() + urls)
            for name in ("--upstream", "--listen"):
                at = argv.index(name)
                del argv[at : at + 2]
            return [*argv, "-c", str(file)]

    return Filed("", settings={"workers": 2}, admin=f"127.0.0.1:{free_port()}")


def _with_file(server: Server, file: Path) -> Sidecar:
    class Filed(Sidecar):
        def argv(self) -> list[str]:
            return [*super().argv(), "-c", str(file)]

    return Filed(server.url, settings={"workers": 2}, admin=f"127.0.0.1:{free_port()}")


def test_all_go_over_to_another_upstream(plain_server: Server) -> None:
    """Each command is counted once, on one of the two servers; and a pause outlasts a switch."""
    with valkey() as second, several(plain_server.url) as sidecar:
        clients = [Counting(sidecar.port, f"n{n}") for n in range(4)]
        while len({each.worker for each in clients}) < 2:
            clients.append(Counting(sidecar.port, f"n{len(clients)}"))
        for each in clients:
            each.start()
        for url in (second.url, plain_server.url, second.url):
            done = [each.confirmed for each in clients]
            _more(clients, done)
            status, said = post(sidecar, "/api/upstream", {"url": url})
            assert (status, said["switched"]) == (200, True), said
            assert said["after"]["address"] in url
        assert post(sidecar, "/api/pause")[0] == 200
        before = [_counted(each, plain_server, second) for each in clients]
        status, said = post(sidecar, "/api/upstream", {"url": plain_server.url})
        assert (status, said["switched"]) == (200, True), said
        assert [_counted(each, plain_server, second) for each in clients] == before
        done = [each.confirmed for each in clients]
        assert post(sidecar, "/api/resume")[0] == 200
        _more(clients, done)
        for each in clients:
            each.stop = True
        for each in clients:
            each.join()
            assert (each.failures, each.lost) == ([], 0)
            counts = _counted(each, plain_server, second)
            assert sum(counts) == each.confirmed
            assert min(counts) > 0
            each.wire.close()


def _counted(client: Counting, *servers: Server) -> list[int]:
    """What each server has counted of this client's commands."""
    found = []
    for server in servers:
        with Wire(server.port) as wire:
            found.append(int(wire.ask("GET", client.key) or 0))
    return found


def _more(clients: list[Counting], done: list[int]) -> None:
    """Wait until all have gone on."""
    wait_until(
        lambda: all(e.confirmed > n + 20 for e, n in zip(clients, done, strict=True)), "load", 30
    )


def test_a_switch_that_fails_leaves_all_where_they_are(plain_server: Server) -> None:
    """The one that could not go over is replaced, or nobody went."""
    with several(plain_server.url) as sidecar, spread(sidecar.port) as ([mine], [other]):
        status, said = post(sidecar, "/api/upstream", {"url": "redis://127.0.0.1:1"})
        assert status == 409
        assert "127.0.0.1:1" in said["error"]
        with Wire(plain_server.port) as direct:
            for number, wire in enumerate((mine, other)):
                assert wire.cmd("SET", f"k{number}", "v") == b"+OK\r\n"
                assert direct.cmd("GET", f"k{number}") == b"$1\r\nv\r\n"


def test_a_switch_is_no_pause(plain_server: Server, tmp_path: Path) -> None:
    """It says of itself what it is; a pause that is asked for meanwhile begins then, and is not
    over with it. In the audit stream stands what an operator has done, once."""
    file = tmp_path / "audit"
    settings = {"audit.file": str(file)}
    with valkey() as second, several(plain_server.url, settings=settings) as sidecar:
        with spread(sidecar.port) as ([mine], [other]), ThreadPoolExecutor() as pool:
            assert mine.cmd("MULTI") == b"+OK\r\n"  # it keeps the switch waiting
            switched = pool.submit(post, sidecar, "/api/upstream", {"url": second.url})
            wait_until(lambda: len(news(sidecar, "commands held")) == 2, "the switch is under way")
            (reason,) = api(sidecar, "/api/health/redis")["reasons"]
            assert "held (switch)" in reason
            assert post(sidecar, "/api/resume") == (409, {"error": "the upstream is not paused"})
            assert post(sidecar, "/api/pause")[0] == 200
            assert switched.result()[1]["switched"]
            other.send(pack("PING"))
            other.expect_silence()
            assert post(sidecar, "/api/resume")[0] == 200
            assert other.read_reply() == b"+PONG\r\n"
        told = news(sidecar, "commands held")
        assert Counter(each["reason"] for each in told) == {"switch": 2, "pause": 2}
        wait_until(lambda: _done(file)["switch"] == _done(file)["resume"] == 1, "it is recorded")
        assert _done(file)["pause"] == 1


def _done(file: Path) -> Counter[str]:
    """What the audit stream says was done, by its kind."""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return Counter(each["event"] for each in records if each.get("result") == "done")


@pytest.mark.slow
def test_a_switch_waits_no_longer_than_commands_may(plain_server: Server) -> None:
    """A reply of the old server does not come: it is given up before what waits gets errors."""
    settings = {"failover.hold": 1}
    with valkey() as second, several(plain_server.url, settings=settings) as sidecar:
        with spread(sidecar.port) as ([mine], [other]), Wire(plain_server.port) as direct:
            assert direct.cmd("CLIENT", "PAUSE", 60_000, "WRITE") == b"+OK\r\n"
            mine.send(pack("SET", "k", "v"))
            with ThreadPoolExecutor() as pool:
                switched = pool.submit(post, sidecar, "/api/upstream", {"url": second.url})
                wait_until(lambda: len(news(sidecar, "commands held")) == 2, "it is under way")
                other.send(pack("GET", "k"))
                status, said = switched.result()
            assert (status, "still wait for replies" in said["error"]) == (409, True)
            assert other.read_reply() == b"$-1\r\n"
            assert direct.cmd("CLIENT", "UNPAUSE") == b"+OK\r\n"
            assert mine.read_reply() == b"+OK\r\n"
        assert news(sidecar, "switch failed")


@pytest.mark.slow
def test_one_that_was_silent_hears_of_a_pause_and_its_end(plain_server: Server) -> None:
    """It holds when it answers again, and does not when that is over."""

    def silent() -> bool:
        return metrics(sidecar)['sidecar_workers{state="silent"}'] == 1

    with several(plain_server.url) as sidecar:
        frozen = pids(sidecar)[1]
        for path, held in (("/api/pause", True), ("/api/resume", False)):
            os.kill(frozen, signal.SIGSTOP)
            wait_until(silent, "it is known to be silent", 10)
            assert post(sidecar, path)[0] == 200
            os.kill(frozen, signal.SIGCONT)
            wait_until(lambda: up(sidecar) == 2, "it answers again", 10)
            with ExitStack() as stack:
                wires = [stack.enter_context(Wire(sidecar.port)) for _ in range(12)]
                for wire in wires:
                    wire.send(pack("PING"))
                for wire in wires:
                    if held:
                        wire.expect_silence()
                    else:
                        assert wire.read_reply() == b"+PONG\r\n"


def test_a_worker_started_during_a_pause_holds_too(plain_server: Server) -> None:
    with several(plain_server.url) as sidecar:
        assert post(sidecar, "/api/pause")[0] == 200
        old = pids(sidecar)
        os.kill(old[1], signal.SIGKILL)
        wait_until(lambda: pids(sidecar).get(1) not in (None, old[1]), "another one", 20)
        wait_until(lambda: up(sidecar) == 2, "it is up", 20)
        wires = [Wire(sidecar.port) for _ in range(12)]
        for wire in wires:
            wire.send(pack("PING"))
        for wire in wires:
            wire.expect_silence()
        assert post(sidecar, "/api/resume")[0] == 200
        for wire in wires:
            assert wire.read_reply() == b"+PONG\r\n"
            wire.close()


def test_every_worker_starts_with_what_any_has_used(plain_server: Server, tmp_path: Path) -> None:
    """Who connects again after a restart may reach another worker."""
    names = [f"k:{number}" for number in range(100)]
    reads = [("GET", name) for name in names]
    fill(plain_server.port, names)
    settings = {
        "warm.snapshot": str(tmp_path / "hot"),
        "cache.mode": "rules",
        "cache.rules": "*",
    }
    with several(plain_server.url, settings=settings) as sidecar:
        with spread(sidecar.port) as ([mine], _):
            wait_until(lambda: _missed(plain_server, mine, reads) == 0, "they are cached", 20)
        sidecar.restart()
        wait_ready(sidecar)
        with spread(sidecar.port) as ([mine], [other]):
            for wire in (mine, other):
                assert _missed(plain_server, wire, reads) <= 2


def _missed(server: Server, wire: Wire, reads: list[tuple[str, str]]) -> int:
    before = calls(server.port, "get")
    wire.pipeline(reads)
    return calls(server.port, "get") - before


# What happens while a worker starts


def _starting(server: Server, sidecar: Sidecar) -> None:
    """Have a worker start that waits for the server, which must be resumed."""
    old = pids(sidecar)
    server.pause()
    os.kill(old[1], signal.SIGKILL)
    wait_until(lambda: metrics(sidecar)['sidecar_workers{state="starting"}'] == 1, "it starts")
    process = Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children")
    wait_until(lambda: len(process.read_text().split()) == 2, "its process is there", 20)


def test_a_reload_while_a_worker_starts(tmp_path: Path) -> None:
    """It has been told the old settings already; it serves with the new ones."""
    file = tmp_path / "sidecar.toml"
    file.write_text("[listen]\nidle_timeout = 0\n")
    with valkey() as server, _with_file(server, file) as sidecar:
        _starting(server, sidecar)
        try:
            file.write_text("[listen]\nidle_timeout = 0.5\n")
            assert post(sidecar, "/api/reload")[0] == 200
        finally:
            server.resume()
        wait_until(lambda: up(sidecar) == 2, "it is up", 20)
        with spread(sidecar.port) as ([mine], [other]):
            for wire in (mine, other):
                wire.expect_eof()


def test_a_pause_while_a_worker_starts() -> None:
    """It holds from its first client on; and if that is over by then, it does not."""
    with valkey() as server, several(server.url) as sidecar:
        _starting(server, sidecar)
        try:
            post(sidecar, "/api/pause")
        finally:
            server.resume()
        wait_until(lambda: up(sidecar) == 2, "it is up", 20)
        wires = [Wire(sidecar.port, deadline=20) for _ in range(12)]
        for wire in wires:
            wire.send(pack("PING"))
        for wire in wires:
            wire.expect_silence()
        _starting(server, sidecar)
        try:
            assert post(sidecar, "/api/resume")[0] == 200
        finally:
            server.resume()
        wait_until(lambda: up(sidecar) == 2, "it is up", 20)
        with spread(sidecar.port) as ([mine], [other]):
            assert mine.cmd("PING") == other.cmd("PING") == b"+PONG\r\n"
        for wire in wires:
            wire.close()
