"""The server announces its maintenance: the sidecar moves before the old endpoint goes, and is
patient while the server may be slow. The endpoints are stand-ins before a real server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.harness.announcing import Announcing
from tests.harness.failover import Load, news, times_logged
from tests.harness.names import Names
from tests.harness.pair import Pair, Session
from tests.harness.process import free_port, wait_until
from tests.harness.servers import WORKERS, Server, Sidecar, valkey
from tests.harness.wire import Wire

NAME = "db.test"


@pytest.fixture
def server() -> Iterator[Server]:
    with valkey() as server:
        yield server


def heard(sidecar: Sidecar, times: int = 1) -> None:
    """Wait until the sidecar hears what its endpoint announces."""
    wait_until(lambda: times_logged(sidecar, "announcements heard") >= times, "it hears")


def test_it_moves_to_the_endpoint_that_is_named(server: Server) -> None:
    """And back again, to an address that its URL does not name. Nobody notices."""
    with (
        Announcing((server.host, server.port)) as first,
        Announcing((server.host, server.port)) as second,
        Sidecar(f"redis://127.0.0.1:{first.port}") as sidecar,
        Load(sidecar.port) as load,
    ):
        heard(sidecar)
        asked = b"CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip"
        assert tuple(asked.split()) in first.asked
        assert first.hearing == WORKERS, "the clients are not among them"
        load.until_served()
        first.announce("MOVING", 1, 10, f"127.0.0.1:{second.port}")
        wait_until(lambda: not first.connections, "all have left", 10)
        first.cut()
        load.until_served()
        heard(sidecar, 2)
        first.listen()
        second.announce("MOVING", 2, 10, f"127.0.0.1:{first.port}")
        wait_until(lambda: not second.connections, "all have left", 10)
        second.cut()
        load.until_served()
        load.stop()
        assert load.judge(server.address) == Counter()
        assert load.errors == Counter()
        assert load.longest_pause < 1.5


def test_it_names_nobody_and_the_name_moves(server: Server) -> None:
    port = free_port()
    with (
        Names() as names,
        Announcing((server.host, server.port), port, "127.0.0.2") as first,
        Announcing((server.host, server.port), port, "127.0.0.3") as second,
    ):
        names.put(NAME, first.host, second.host)
        with (
            Sidecar(f"redis://{NAME}:{port}", env=names.env) as sidecar,
            Load(sidecar.port) as load,
        ):
            heard(sidecar)
            load.until_served()
            old, new = (first, second) if first.connections else (second, first)
            old.announce("MOVING", 1, 2, None)
            wait_until(lambda: not old.connections, "all have left", 10)
            old.cut()
            load.until_served()
            load.stop()
            assert new.connections
            assert load.judge(server.address) == Counter()
            assert load.errors == Counter()


def test_it_goes_back_by_the_name(server: Server) -> None:
    """There to an address that is named, and back, a moment later, to where the name leads."""
    port = free_port()
    with (
        Names() as names,
        Announcing((server.host, server.port), port, "127.0.0.2") as first,
        Announcing((server.host, server.port), port, "127.0.0.3") as second,
    ):
        names.put(NAME, first.host)
        with (
            Sidecar(f"redis://{NAME}:{port}", env=names.env) as sidecar,
            Load(sidecar.port) as load,
        ):
            heard(sidecar)
            load.until_served()
            first.announce("MOVING", 1, 2, f"{second.host}:{port}")
            wait_until(lambda: not first.connections, "all have left", 10)
            heard(sidecar, 2)
            second.announce("MOVING", 2, 2, None)
            wait_until(lambda: not second.connections, "all have left", 10)
            second.cut()
            load.until_served()
            load.stop()
            assert load.judge(server.address) == Counter()
            assert load.errors == Counter()


def test_it_names_nobody_and_stays_the_only_one(server: Server) -> None:
    """A virtual address: who connects to it anew reaches the new endpoint."""
    with (
        Announcing((server.host, server.port)) as endpoint,
        Sidecar(f"redis://127.0.0.1:{endpoint.port}") as sidecar,
        Load(sidecar.port) as load,
    ):
        heard(sidecar)
        load.until_served()
        before = endpoint.connections
        endpoint.announce("MOVING", 1, 2, None)
        wait_until(lambda: not before & endpoint.connections, "all are new", 10)
        load.until_served()
        load.stop()
        assert load.judge(server.address) == Counter()
        assert load.errors == Counter()


def test_an_endpoint_that_is_never_there(server: Server) -> None:
    """The present one serves on."""
    with (
        Announcing((server.host, server.port)) as endpoint,
        Sidecar(f"redis://127.0.0.1:{endpoint.port}") as sidecar,
        Load(sidecar.port) as load,
    ):
        heard(sidecar)
        endpoint.announce("MOVING", 1, 1, f"127.0.0.1:{free_port()}")
        endpoint.announce("MOVING", 2, 1, "nowhere")
        endpoint.announce("MOVING")
        endpoint.announce("SOMETHING", 1)
        wait_until(lambda: len(news(sidecar, "announcement ignored")) == 2, "they came")
        load.until_served(200)
        load.stop()
        assert load.judge(server.address) == Counter()
        assert load.errors == Counter()


def test_it_is_patient_while_the_server_works(server: Server) -> None:
    settings: dict[str, str | int | float] = {"upstream.silence_timeout": 0.5}
    with (
        Announcing((server.host, server.port)) as endpoint,
        Sidecar(f"redis://127.0.0.1:{endpoint.port}", settings=settings) as sidecar,
        Wire(sidecar.port) as client,
        Wire(server.port) as direct,
    ):
        heard(sidecar)
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        endpoint.announce("MIGRATING", 1, 30)
        wait_until(lambda: times_logged(sidecar, "maintenance announced") > 0, "it has heard")
        direct.send_command("DEBUG", "SLEEP", "1.5")
        assert client.cmd("SET", "k", "w") == b"+OK\r\n"
        assert direct.read_reply() == b"+OK\r\n"
        endpoint.announce("MIGRATED", 2)
        wait_until(lambda: times_logged(sidecar, "maintenance announced") == 2, "it has heard")
        direct.send_command("DEBUG", "SLEEP", "1.5")
        assert client.cmd("SET", "k", "x").startswith(b"-UNCERTAIN")
        assert direct.read_reply() == b"+OK\r\n"


@pytest.mark.parametrize("pooling", ["shared", "session"])
def test_a_client_that_asks_for_announcements(server: Server, pooling: str) -> None:
    """Its connection is not moved, and its link hears nothing."""
    with (
        Announcing((server.host, server.port)) as endpoint,
        Sidecar(
            f"redis://127.0.0.1:{endpoint.port}", settings={"upstream.pooling": pooling}
        ) as sidecar,
        Wire(sidecar.port) as client,
    ):
        heard(sidecar)
        client.cmd("HELLO", 3)
        asked = ("CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none")
        assert client.cmd(*asked) == b"+OK\r\n"
        assert endpoint.asked[WORKERS:] == [(b"CLIENT", b"MAINT_NOTIFICATIONS", b"OFF")]
        assert endpoint.hearing == WORKERS
        endpoint.announce("MIGRATING", 1, 30)
        wait_until(lambda: times_logged(sidecar, "maintenance announced") > 0, "it has heard")
        assert client.cmd("PING") == b"+PONG\r\n"


def test_a_server_that_has_no_announcements(pair: Pair) -> None:
    """The client gets its error."""

    def script(session: Session) -> None:
        client = session.open()
        for name in ("MAINT_NOTIFICATIONS", "maint_notifications"):
            for words in (("ON", "moving-endpoint-type", "none"), ("OFF",), ("ON",), ()):
                client.cmd("CLIENT", name, *words)
        client.run("MULTI", "CLIENT MAINT_NOTIFICATIONS ON", "EXEC")

    pair.same(script)


def test_off(server: Server) -> None:
    with (
        Announcing((server.host, server.port)) as endpoint,
        Sidecar(
            f"redis://127.0.0.1:{endpoint.port}", settings={"upstream.maintenance": "off"}
        ) as sidecar,
        Load(sidecar.port) as load,
    ):
        load.until_served(300)
        load.stop()
        assert endpoint.hearing == 0
