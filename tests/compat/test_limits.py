"""What clients may take: of an identity, of an address, and when the loop lags."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.admin import metrics
from tests.harness.identities import entry, judging
from tests.harness.process import free_port, wait_until
from tests.harness.resp import pack
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire

LIMITED = b"-LIMITED "
OVERLOADED = b"-OVERLOADED the sidecar cannot keep up; try again later\r\n"

pytestmark = pytest.mark.one_worker("limits are divided among the workers")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey() as server:
        with Wire(server.port) as wire:
            wire.call("ACL", "SETUSER", "ann", "on", ">secret", "+@all", "allkeys", "allchannels")
        yield server


def limited(server: Server, folder: Path, limits: str, **settings: str | int) -> Sidecar:
    """A sidecar where ann has these limits."""
    file = folder / "identities.toml"
    file.write_text(f"[identities.ann]\nlimits = {{ {limits} }}\n")
    return Sidecar(server.url, settings={"identities.file": str(file), **settings})


def ann(sidecar: Sidecar) -> Wire:
    wire = Wire(sidecar.port)
    wire.call("AUTH", "ann", "secret")
    return wire


def test_commands_wait_for_their_time(server: Server, tmp_path: Path) -> None:
    with (
        limited(server, tmp_path, "commands = 200, burst = 20") as sidecar,
        ann(sidecar) as wire,
        Wire(sidecar.port) as other,
    ):
        began = time.monotonic()
        wire.pipeline([("PING",)] * 120)
        took = time.monotonic() - began
        assert 0.4 < took < 5  # 100 of them, at 200 a second
        began = time.monotonic()
        other.pipeline([("PING",)] * 1000)
        assert time.monotonic() - began < 0.4


def test_two_clients_have_one_rate(server: Server, tmp_path: Path) -> None:
    def ask(wire: Wire) -> float:
        wire.pipeline([("PING",)] * 60)
        return time.monotonic()

    with (
        limited(server, tmp_path, "commands = 200, burst = 20") as sidecar,
        ann(sidecar) as one,
        ann(sidecar) as two,
        ThreadPoolExecutor(2) as threads,
    ):
        began = time.monotonic()
        ends = list(threads.map(ask, (one, two)))
        assert max(ends) - began > 0.4
        assert abs(ends[0] - ends[1]) < 0.2  # neither starves the other


@pytest.mark.parametrize("pooling", ["shared", "session"])
def test_commands_get_an_error(server: Server, tmp_path: Path, pooling: str) -> None:
    limits = 'commands = 1, burst = 5, over = "error"'
    with (
        limited(server, tmp_path, limits, **{"upstream.pooling": pooling}) as sidecar,
        ann(sidecar) as wire,
    ):
        replies = wire.pipeline([("PING",)] * 20)
        assert sum(reply.startswith(LIMITED) for reply in replies) >= 14
        assert replies[0] == b"+PONG\r\n"
        assert replies[-1].startswith(LIMITED)


def test_an_error_in_a_transaction_aborts_it(server: Server, tmp_path: Path) -> None:
    with limited(server, tmp_path, 'commands = 1, burst = 3, over = "error"') as sidecar:
        with Wire(sidecar.port) as wire:
            wire.cmd("SET", "k", "before")
            wire.call("AUTH", "ann", "secret")
            replies = [
                wire.cmd(*line.split()) for line in ("MULTI", "SET k a", "SET k b", "SET k c")
            ]
            assert replies[-1].startswith(LIMITED)
        with Wire(server.port) as wire:
            assert wire.call("GET", "k") == "before"


def test_connections_of_an_identity(server: Server, tmp_path: Path) -> None:
    with limited(server, tmp_path, "connections = 1") as sidecar:
        with ann(sidecar) as first:
            with Wire(sidecar.port) as second:
                second.send(pack("AUTH", "ann", "secret") + pack("SET", "sent", "x"))
                assert second.read_to_end() == b"-LIMITED too many clients are connected\r\n"
            assert first.call("EXISTS", "sent") == 0
            first.call("RESET")
            with ann(sidecar) as third:
                assert third.call("PING") == "PONG"
        with ann(sidecar) as fourth:
            assert fourth.call("PING") == "PONG"


def test_connections_of_an_address(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    settings = {"limits.address_connections": 2}
    with Sidecar(server.url, settings=settings, also=[f"unix://{path}"]) as sidecar:
        with Wire(sidecar.port) as one, Wire(sidecar.port) as two:
            assert one.call("PING") == two.call("PING") == "PONG"
            with Wire(sidecar.port) as three:
                assert three.read_to_end() == b"-LIMITED too many clients are connected\r\n"
            with Wire(str(path)) as elsewhere:
                assert elsewhere.call("PING") == "PONG"
        wait_until(lambda: Wire.answers(sidecar.port), "there is room again")


def test_commands_of_an_address(server: Server) -> None:
    with (
        Sidecar(server.url, settings={"limits.address_commands": 100}) as sidecar,
        Wire(sidecar.port) as one,
    ):
        began = time.monotonic()
        one.pipeline([("PING",)] * 180)  # 100 at once
        assert time.monotonic() - began > 0.5


everywhere = pytest.mark.parametrize("pooling", ["shared", "session"])


@everywhere
def test_a_pipeline_is_slowed_down_and_not_refused(
    server: Server, tmp_path: Path, pooling: str
) -> None:
    with (
        limited(
            server, tmp_path, 'pipeline = 2, in_flight = "4KB"', **{"upstream.pooling": pooling}
        ) as sidecar,
        ann(sidecar) as wire,
    ):
        replies = wire.pipeline([("SET", "k", i) for i in range(1000)])
        assert replies == [b"+OK\r\n"] * 1000


@pytest.mark.parametrize("limits", ["pipeline = 3", 'in_flight = "4KB"'])
@pytest.mark.parametrize("kind", ["subscriber", "session"])
def test_what_is_under_way_is_limited_on_a_link_for_good(
    server: Server, tmp_path: Path, limits: str, kind: str
) -> None:
    """Seen from the server: what waits for a blocking command has not been sent to it."""
    pooling = {"upstream.pooling": "session"} if kind == "session" else {}
    with limited(server, tmp_path, limits, **pooling) as sidecar, ann(sidecar) as wire:
        wire.call("HELLO", 3)
        if kind == "subscriber":
            wire.call("SUBSCRIBE", "c")
        wire.send(pack("BLPOP", "q", 0) + pack("ECHO", "x" * 1000) * 20 + pack("PING"))
        with Wire(server.port) as direct:

            def there() -> int:
                """Bytes that the server has got of the blocked client."""
                lines = direct.call("CLIENT", "LIST").split("\n")
                blocked = next((line for line in lines if "cmd=blpop" in line), "tot-net-in=0")
                return int(blocked.partition("tot-net-in=")[2].split()[0])

            wait_until(lambda: there() > 1000, "it is blocked, and some of what follows is there")
            assert there() < 5000
            direct.call("RPUSH", "q", "v")
        assert wire.read_value() == ["q", "v"]
        assert [wire.read_value() for _ in range(21)] == ["x" * 1000] * 20 + ["PONG"]


def test_what_a_client_has_sent_before_it_hangs_up_is_executed(
    server: Server, tmp_path: Path
) -> None:
    limits = "commands = 100, burst = 1"
    with (
        limited(server, tmp_path, limits, **{"upstream.pooling": "session"}) as sidecar,
        ann(sidecar) as wire,
    ):
        wire.send(pack("PING") * 20)
        wire.half_close()
        assert wire.read_to_end() == b"+PONG\r\n" * 20


@everywhere
def test_sizes(server: Server, tmp_path: Path, pooling: str) -> None:
    with limited(
        server, tmp_path, 'request = "1KB", reply = "64KB"', **{"upstream.pooling": pooling}
    ) as sidecar:
        with Wire(server.port) as direct:
            direct.call("SET", "large", "x" * 1_000_000)
            direct.call("SET", "medium", "x" * 70_000)
            direct.call("DEL", "list")
            direct.call("RPUSH", "list", *["x" * 50_000] * 100)
        with ann(sidecar) as wire:
            assert wire.cmd("SET", "k", "x" * 2000).startswith(LIMITED)
            assert wire.cmd("SET", "k", "x" * 2_000_000).startswith(LIMITED)
            assert wire.cmd("GET", "large").startswith(LIMITED)
            assert wire.cmd("GET", "medium").startswith(LIMITED)
            assert wire.cmd("SET", "k", "x" * 500) == b"+OK\r\n"
            wire.send(pack("LRANGE", "list", 0, -1))
            wire.read_to_end()  # it has not said how large it would be


def test_a_request_that_turns_out_to_be_too_large(server: Server, tmp_path: Path) -> None:
    """It is larger than what is kept, and no argument of it is too large by itself."""
    with limited(server, tmp_path, 'request = "1MB"') as sidecar, ann(sidecar) as wire:
        pairs = [part for n in range(20) for part in (f"part:{n}", "x" * 100_000)]
        wire.send(pack("SET", "before", "1") + pack("MSET", *pairs))
        assert wire.read_to_end().startswith(b"+OK\r\n" + LIMITED)
        with Wire(server.port) as direct:
            assert direct.call("EXISTS", "part:0") == 0


def test_a_value_that_is_here_is_no_way_round(server: Server, tmp_path: Path) -> None:
    """The near cache has it, of another client that acts as the same user of the server."""
    text = entry("free", "pw") + entry("small", "pw", more='limits = { reply = "1KB" }')
    settings = judging(tmp_path / "identities.toml", text, cache__mode="rules", cache__rules="*")
    admin = f"127.0.0.1:{free_port()}"
    with (
        Sidecar(server.url, settings=settings, admin=admin) as sidecar,
        Wire(sidecar.port) as free,
        Wire(sidecar.port) as small,
    ):
        assert free.cmd("AUTH", "free", "pw") == small.cmd("AUTH", "small", "pw") == b"+OK\r\n"
        free.call("MSET", "large", "x" * 2000, "half", "x" * 600)
        wait_until(
            lambda: (
                [free.call("GET", k) for k in ("large", "half")]
                and metrics(sidecar).get("sidecar_cache_hits_total", 0) > 5
            ),
            "hits",
        )
        assert small.cmd("GET", "large").startswith(LIMITED)
        assert small.cmd("MGET", "half", "half").startswith(LIMITED)
        assert small.call("GET", "half") == "x" * 600


def test_blocked_and_subscribed(server: Server, tmp_path: Path) -> None:
    with (
        limited(server, tmp_path, "blocked = 1, subscribed = 1") as sidecar,
        ann(sidecar) as one,
        ann(sidecar) as two,
        ann(sidecar) as three,
    ):
        one.send(pack("BLPOP", "q", 0))
        wait_until(lambda: two.cmd("BLPOP", "q", "0.01").startswith(LIMITED), "it is blocked")
        two.call("RPUSH", "q", "x")
        assert one.read_value() == ["q", "x"]
        assert two.cmd("BLPOP", "q", "0.01") == b"*-1\r\n"
        one.send(pack("WAIT", 1, 0))
        wait_until(lambda: two.cmd("BLPOP", "q", "0.01").startswith(LIMITED), "it waits")
        one.close()
        wait_until(lambda: two.cmd("BLPOP", "q", "0.01") == b"*-1\r\n", "it has gone")
        two.call("SUBSCRIBE", "c")
        assert three.cmd("PSUBSCRIBE", "c").startswith(LIMITED)
        two.call("RESET")
        two.call("AUTH", "ann", "secret")
        assert three.cmd("PSUBSCRIBE", "c").startswith(b"*3")


def test_limits_change_while_clients_are_connected(server: Server, tmp_path: Path) -> None:
    with (
        limited(server, tmp_path, 'commands = 1, burst = 1, over = "error"') as sidecar,
        ann(sidecar) as wire,
    ):
        assert any(r.startswith(LIMITED) for r in wire.pipeline([("PING",)] * 5))
        file = tmp_path / "identities.toml"
        file.write_text("[identities.ann]\nlimits = { connections = 5 }\n")
        sidecar.wait_ready(lambda: "identities reloaded" in sidecar.log())
        assert wire.pipeline([("PING",)] * 50) == [b"+PONG\r\n"] * 50


def test_load_is_shed_while_the_loop_lags(server: Server) -> None:
    with Sidecar(server.url, settings={"limits.loop_lag": 0.2}) as sidecar:
        with Wire(sidecar.port) as wire:
            assert wire.cmd("SET", "k", "v") == b"+OK\r\n"

            def sheds() -> bool:
                """Whether commands are refused after it was stopped for a while: it is late for a
                moment only, in which this process may get no turn."""
                sidecar.pause()
                until = time.monotonic() + 0.6
                wait_until(lambda: time.monotonic() > until, "it has been stopped for a while")
                sidecar.resume()
                return OVERLOADED in [wire.cmd("GET", "k") for _ in range(300)]

            wait_until(sheds, "commands are refused", 20)
            wait_until(lambda: wire.cmd("GET", "k") == b"$1\r\nv\r\n", "and served again")
        assert "load shed" in sidecar.log()


def test_refusals_are_counted(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    file.write_text(
        '[identities.ann]\nlimits = { commands = 1, burst = 3, over = "error" }\n'
        'policy = "own"\n[policies.own]\ndeny = ["KEYS"]\n'
    )
    settings = {"identities.file": str(file), "listen.policy": "production"}
    with Sidecar(server.url, settings=settings, admin=f"127.0.0.1:{free_port()}") as sidecar:
        with ann(sidecar) as wire, Wire(sidecar.port) as other:
            wire.pipeline([("KEYS", "*")] * 2 + [("PING",)] * 5)
            other.pipeline([("FLUSHALL",)] * 3)
        found = metrics(sidecar)
    assert found['sidecar_refused_total{identity="ann",reason="command"}'] == 2
    assert found['sidecar_refused_total{identity="ann",reason="rate"}'] >= 2
    assert found['sidecar_refused_total{identity="other",reason="command"}'] == 3
    assert found["sidecar_local_errors_total"] == 0
