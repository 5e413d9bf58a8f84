"""Sentinel upstreams with passwords and TLS; how the program starts, and how it says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.harness.certificates import Certificates, make_certificates
from tests.harness.failover import PATIENT, Load, followed, news, settled
from tests.harness.faults import TlsTerminator
from tests.harness.process import free_port, wait_until
from tests.harness.proxied import ProxiedEnd
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire

DEADLINE = 20.0
SENTINELS: dict[str, str | int | float] = {
    "sentinel.password": "sentinels",
    "upstream.start_timeout": 0.3,
    **PATIENT,
}
STARTING = {**SENTINELS, "upstream.start_timeout": 20}
CLUSTER = {"password": "nodes", "sentinel_password": "sentinels"}


def _complaint(url: str, **settings: str | float) -> str:
    """The one line of a sidecar that cannot start, which ends with exit code 1."""
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    with Sidecar(url, settings=SENTINELS | changes, ready=False) as sidecar:
        wait_until(lambda: not sidecar.running, "it ends", DEADLINE)
        assert sidecar.returncode == 1
        plain = [line for line in sidecar.log().splitlines() if not line.startswith("{")]
        logged = [json.loads(line) for line in sidecar.log().splitlines() if line.startswith("{")]
        assert not [entry for entry in logged if entry["level"] == "error"]
    (line,) = plain
    assert line.startswith("sidecar: ")
    return line.removeprefix("sidecar: ")


def test_the_service_is_unknown(cluster: Cluster) -> None:
    """The error names the service, and the one that the Sentinels know."""
    line = _complaint(cluster.url.replace("/mymaster", "/other"))
    assert line.startswith("no Sentinel knows the service 'other': 127.0.0.1:")
    assert line.count(" knows mymaster") == 3
    assert "upstream.url" in line


def test_no_sentinel_can_be_reached() -> None:
    """Each is named, with the reason."""
    one, two = free_port(), free_port()
    line = _complaint(f"redis+sentinel://127.0.0.1:{one},127.0.0.1:{two}/mymaster")
    assert line.startswith("no Sentinel of 'mymaster' can be asked: ")
    for port in (one, two):
        assert f"127.0.0.1:{port} connection refused" in line


@pytest.mark.parametrize("password", ["wrong", ""])
def test_the_sentinels_refuse_the_password(cluster: Cluster, password: str) -> None:
    """It says that it is they who do, and which settings are theirs."""
    line = _complaint(cluster.url, sentinel__password=password)
    assert line.startswith("no Sentinel of 'mymaster' lets us in: 127.0.0.1:")
    assert ("WRONGPASS" if password else "NOAUTH") in line
    assert "sentinel.password" in line
    assert "sentinels" not in line


@pytest.mark.parametrize(
    "timeout",
    [pytest.param(1.0, id="soon"), pytest.param(10.0, id="later", marks=pytest.mark.slow)],
)
def test_the_master_refuses_the_password(cluster: Cluster, timeout: float) -> None:
    """It says which node does, whether or not the links have gone over to it by then."""
    url = cluster.url.replace(":nodes@", ":secret@")
    line = _complaint(url, upstream__start_timeout=timeout)
    assert f"upstream 127.0.0.1:{cluster.current_master()} says WRONGPASS" in line
    assert "check upstream.url" in line
    assert "secret" not in line


def test_the_master_is_down(cluster: Cluster) -> None:
    """The Sentinels name it still, and it is not there."""
    port = cluster.current_master()
    for sentinel in cluster.sentinels[1:]:
        sentinel.kill()
    cluster.node(port).kill()
    line = _complaint(cluster.url, upstream__start_timeout=1.0)
    assert line.startswith(f"no master is known yet: upstream 127.0.0.1:{port}: ")


def test_a_start_before_the_sentinels(cluster: Cluster) -> None:
    """`upstream.start = wait`: errors, and service as soon as somebody knows the master."""
    for sentinel in cluster.sentinels:
        sentinel.kill()
    settings = SENTINELS | {"upstream.start": "wait", "failover.hold": 0.3}
    with Sidecar(cluster.url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: news(sidecar, "sidecar started"), "it listens", DEADLINE)
        with Wire(sidecar.port) as client:
            reply = client.cmd("SET", "k", 1)
            assert reply.startswith(b"-UNAVAILABLE no master is known yet")
            cluster.sentinels[0].start()
            wait_until(lambda: client.cmd("SET", "k", 1) == b"+OK\r\n", "service", DEADLINE)


def test_logins_wait_as_commands_do(cluster: Cluster) -> None:
    """Who comes while there is no master, and logs in, is not sent away."""
    with Sidecar(cluster.url, settings=STARTING) as sidecar:
        cluster.node(cluster.current_master()).kill()
        wait_until(lambda: news(sidecar, "upstream link lost"), "the loss is noticed")
        with (
            Wire(sidecar.port, deadline=DEADLINE) as one,
            Wire(sidecar.port, deadline=DEADLINE) as two,
            Wire(sidecar.port, deadline=DEADLINE) as three,
        ):
            one.send_command("AUTH", "nodes")
            two.send_command("HELLO", 3, "AUTH", "default", "nodes")
            three.send_command("AUTH", "wrong")
            assert one.read_reply() == b"+OK\r\n"
            assert two.read_reply().startswith(b"%")
            assert three.read_reply().startswith(b"-WRONGPASS ")
            wait_until(lambda: len(followed(sidecar)) == 2, "all have followed", DEADLINE)
            assert one.cmd("INCR", "k") == b":1\r\n"
            assert two.cmd("INCR", "k") == b":2\r\n"


def test_logins_during_a_planned_failover(cluster: Cluster) -> None:
    """Clients that connect and log in all the time get no error."""
    with Sidecar(cluster.url, settings=STARTING) as sidecar:
        cluster.failover()
        while len(followed(sidecar)) < 2:
            with Wire(sidecar.port, deadline=DEADLINE) as client:
                assert client.cmd("AUTH", "nodes") == b"+OK\r\n"
                assert client.cmd("GET", "k") == b"$-1\r\n"


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of a CA of the test's own."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[Cluster]:
    """Redis 7; nodes and Sentinels speak TLS to each other and to us."""
    with Cluster(flavour="redis7", tls=certificates) as cluster:
        yield cluster


def _followed_with_tls(cluster: Cluster, certificates: Certificates, *, crash: bool) -> Load:
    """Load through a change of the master; ends when the old one is a replica."""
    old = cluster.node(settled(cluster))
    settings = PATIENT | {"upstream.tls.ca_file": str(certificates.ca)}
    name = "crash" if crash else "planned"
    with Sidecar(cluster.url, settings=settings) as sidecar, Load(sidecar.port, name=name) as load:
        load.until_served()
        if crash:
            old.kill()
        else:
            cluster.failover()
        wait_until(lambda: len(followed(sidecar)) == 2, "the switch", DEADLINE)
        load.until_served()
        if crash:
            old.start()
        settled(cluster)
        load.stop()
        return load


@pytest.mark.redis
def test_a_planned_failover_with_tls(encrypted: Cluster, certificates: Certificates) -> None:
    """No error, nothing lost, nothing done twice."""
    load = _followed_with_tls(encrypted, certificates, crash=False)
    assert not load.errors
    assert not load.judge(encrypted.node(encrypted.current_master()).port)


@pytest.mark.slow
@pytest.mark.redis
def test_a_crash_with_tls(encrypted: Cluster, certificates: Certificates) -> None:
    """What was under way is uncertain; little is lost."""
    load = _followed_with_tls(encrypted, certificates, crash=True)
    assert load.errors.keys() <= {"UNCERTAIN"}
    wrong = load.judge(encrypted.node(encrypted.current_master()).port)
    assert wrong.keys() <= {"lost"}
    assert wrong["lost"] <= load.acknowledged // 20


class Resuming(TlsTerminator):
    """Notes of each connection whether it resumed an earlier session."""

    def accept(self, end: ProxiedEnd) -> None:
        """As ever."""
        self.resumed.append(bool(end.transport.get_extra_info("ssl_object").session_reused))
        super().accept(end)

    def listen(self) -> None:
        """Nothing has come yet."""
        self.resumed: list[bool] = []
        super().listen()


@pytest.mark.one_worker("each worker has sessions of its own")
def test_sessions_are_resumed(plain_server: Server, certificates: Certificates) -> None:
    """Connections that come back to the same server save the half of the handshake."""
    settings: dict[str, str | int | float] = {
        "upstream.tls.ca_file": str(certificates.ca),
        "upstream.pool_spare": 0,
    }
    with (
        Resuming(plain_server.port, certificates.server_context()) as terminator,
        Sidecar(terminator.url, settings=settings) as sidecar,
        Wire(sidecar.port) as client,
        Wire(plain_server.port) as direct,
    ):
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        assert terminator.resumed[0] is False
        before = len(terminator.resumed)
        direct.cmd("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: len(terminator.resumed) > before, "the link is made again")
        assert client.cmd("GET", "k", deadline=DEADLINE) == b"$1\r\n1\r\n"
        assert all(terminator.resumed[before:])
