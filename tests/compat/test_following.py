"""A plain name is followed to the new master: real servers on several loopback addresses, one port.

What clients are told is judged as in a failover of Sentinels (tests/harness/failover.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.failover import Load, news, times_logged
from tests.harness.names import Names
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, TlsFiles, redis7, valkey
from tests.harness.wire import Wire

NAME = "db.test"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
READONLY = b"-READONLY You can't write against a read only replica.\r\n"


def ask(server: Server, *words: str | int) -> bytes:
    """One command on a connection of its own."""
    with Wire(server.address) as wire:
        return wire.cmd(*words)


def announced(host: str) -> dict[str, str | int | float]:
    """The settings of a server that is known by this address."""
    return {"replica-announce-ip": host}


@dataclass
class Service:
    """A managed service: a name, a master and a replica that can be reached by it."""

    names: Names
    master: Server
    replica: Server

    @property
    def url(self) -> str:
        return f"redis://{NAME}:{self.master.port}"

    def point_to(self, *servers: Server) -> None:
        """From now on the name has these addresses."""
        self.names.put(NAME, *(server.host for server in servers))

    def sidecar(self, **settings: str | int | float) -> Sidecar:
        named = {key.replace("__", "."): value for key, value in settings.items()}
        return Sidecar(self.url, env=self.names.env, settings=named)

    def hand_over(self) -> None:
        """The replica becomes the master and the master its replica; nothing is lost."""
        assert (
            ask(self.master, "FAILOVER", "TO", self.replica.host, self.replica.port) == b"+OK\r\n"
        )
        wait_until(lambda: b"role:master" in ask(self.replica, "INFO", "replication"), "it leads")


@pytest.fixture
def service() -> Iterator[Service]:
    port = free_port()
    with (
        Names() as names,
        valkey(announced(HOSTS[0]), port=port, host=HOSTS[0]) as master,
        valkey(announced(HOSTS[1]), port=port, host=HOSTS[1]) as replica,
    ):
        ask(replica, "REPLICAOF", master.host, port)
        link = b"master_link_status:up"
        wait_until(lambda: link in ask(replica, "INFO", "replication"), "in sync", 20)
        names.put(NAME, master.host)
        yield Service(names, master, replica)


def judged(load: Load, server: Server) -> Counter[str]:
    """All that is wrong with what the clients were told."""
    load.until_served()
    load.stop()
    return load.judge(server.address)


def test_the_old_one_turns_replica_and_the_name_moves(service: Service) -> None:
    with service.sidecar() as sidecar, Load(sidecar.port) as load:
        load.until_served()
        service.hand_over()
        wait_until(lambda: bool(news(sidecar, "writes held")), "writes wait for a master")
        service.point_to(service.replica)
        assert judged(load, service.replica) == Counter()
        assert load.errors == Counter()


def test_a_hand_over_that_takes_its_time(service: Service) -> None:
    """The master holds writes back until the replica is in step, and then refuses them: also that
    of a client that has had nothing under way until then."""
    with service.sidecar() as sidecar, Load(sidecar.port) as load, Wire(sidecar.port) as late:
        assert late.cmd("HELLO", 3).startswith(b"%")  # as those of the load
        load.until_served()
        service.replica.pause()
        begun = time.monotonic()
        to = service.replica.host, service.replica.port
        assert ask(service.master, "FAILOVER", "TO", *to, "TIMEOUT", 10000) == b"+OK\r\n"
        # Far longer than it takes until a link counts as held up.
        wait_until(lambda: time.monotonic() - begun > 0.7, "writes are held back")
        late.send_command("SET", "k", "v")
        wait_until(lambda: time.monotonic() - begun > 1, "it is held back as well")
        service.replica.resume()
        wait_until(lambda: bool(news(sidecar, "writes held")), "writes wait for a master")
        service.point_to(service.replica)
        assert late.read_reply(10) == b"+OK\r\n"
        assert judged(load, service.replica) == Counter()
        assert load.errors == Counter()


def test_it_closes_and_the_name_moves_later(service: Service) -> None:
    with service.sidecar() as sidecar, Load(sidecar.port) as load:
        load.until_served()
        service.master.kill()
        ask(service.replica, "REPLICAOF", "NO", "ONE")
        # Longer than commands wait for a server that is simply gone (upstream.wait as it ships).
        wait_until(lambda: _lost_for(sidecar) > 1.5, "it stays away")
        service.point_to(service.replica)
        assert judged(load, service.replica) == Counter()
        assert set(load.errors) <= {"UNCERTAIN"}
        assert not any(told.errors for told in load.reads)


def _lost_for(sidecar: Sidecar) -> float:
    lost = news(sidecar, "upstream link lost")
    return time.time() - _seconds(lost[0]["time"]) if lost else 0.0


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def test_it_is_frozen_and_the_name_moves(service: Service) -> None:
    with service.sidecar() as sidecar, Load(sidecar.port) as load:
        load.until_served()
        service.master.pause()
        ask(service.replica, "REPLICAOF", "NO", "ONE")
        service.point_to(service.replica)
        assert judged(load, service.replica) == Counter()
        assert set(load.errors) <= {"UNCERTAIN"}
        assert not any(told.errors for told in load.reads)
        service.master.resume()


def test_three_records_of_which_one_is_the_master(service: Service) -> None:
    """One swallows what is sent to it, and the roles of the others change; the name does not."""
    with valkey(port=service.master.port, host=HOSTS[2]) as dead:
        dead.pause()
        service.point_to(dead, service.replica, service.master)
        with service.sidecar() as sidecar, Load(sidecar.port) as load:
            load.until_served()
            service.hand_over()
            assert judged(load, service.replica) == Counter()
            assert load.errors == Counter()
        dead.resume()


def test_records_of_both_families() -> None:
    """The master is at an IPv6 address at first, and then at an IPv4 one."""
    port, url = free_port(), f"redis://{NAME}:{{}}"
    with (
        Names() as names,
        valkey(announced("::1"), port=port, host="::1") as master,
        valkey(announced(HOSTS[1]), port=port, host=HOSTS[1]) as replica,
    ):
        ask(replica, "REPLICAOF", master.host, port)
        link = b"master_link_status:up"
        wait_until(lambda: link in ask(replica, "INFO", "replication"), "in sync", 20)
        service = Service(names, master, replica)
        service.point_to(replica, master)
        with (
            Sidecar(url.format(port), env=names.env) as sidecar,
            Load(sidecar.port) as load,
        ):
            load.until_served()
            service.hand_over()
            load.until_served()
            service.point_to(master)
            load.until_served()
            assert judged(load, replica) == Counter()
            assert load.errors == Counter()


@pytest.mark.redis
def test_with_tls(tmp_path: Path) -> None:
    """The certificate is for the name, whichever address it leads to."""
    authority = Authority(tmp_path, "ca")
    pem = authority.issue("server", NAME)
    tls = TlsFiles(pem.cert, pem.key, authority.cert_file)
    port, tls_port = free_port(), free_port()
    settings: dict[str, str | int | float] = {"upstream.tls.ca_file": str(authority.cert_file)}
    with (
        Names() as names,
        redis7(announced(HOSTS[0]), port=port, host=HOSTS[0], tls=tls, tls_port=tls_port) as master,
        redis7(
            announced(HOSTS[1]), port=port, host=HOSTS[1], tls=tls, tls_port=tls_port
        ) as replica,
    ):
        ask(replica, "REPLICAOF", master.host, port)
        link = b"master_link_status:up"
        wait_until(lambda: link in ask(replica, "INFO", "replication"), "in sync", 20)
        service = Service(names, master, replica)
        service.point_to(master)
        url = f"rediss://{NAME}:{tls_port}"
        with Sidecar(url, env=names.env, settings=settings) as sidecar, Load(sidecar.port) as load:
            load.until_served()
            service.hand_over()
            wait_until(lambda: bool(news(sidecar, "writes held")), "writes wait for a master")
            service.point_to(replica)
            assert judged(load, replica) == Counter()
            assert load.errors == Counter()


def test_a_resolver_that_hangs(service: Service) -> None:
    """The addresses that are known are asked for their roles all the same."""
    hosts = service.master.host, service.replica.host
    service.names.put(NAME, *hosts)
    with service.sidecar() as sidecar, Load(sidecar.port) as load:
        load.until_served()
        service.names.put(NAME, *hosts, slow=5)
        service.hand_over()
        load.until_served()
        assert load.longest_pause < 3
        service.names.put(NAME, *hosts)
        assert judged(load, service.replica) == Counter()
        assert load.errors == Counter()


def test_no_resolver_answers_for_a_while(service: Service) -> None:
    """The name does not exist when its master hands over, and comes back as the new one's."""
    with service.sidecar() as sidecar, Load(sidecar.port) as load:
        load.until_served()
        service.point_to()
        wait_until(lambda: bool(news(sidecar, "name unresolved")), "it has noticed")
        load.until_served()
        service.hand_over()
        wait_until(lambda: bool(news(sidecar, "writes held")), "writes wait for a master")
        service.point_to(service.replica)
        assert judged(load, service.replica) == Counter()
        assert load.errors == Counter()


def test_the_frozen_one_thaws_as_a_master(service: Service) -> None:
    """Nothing goes there any more, and the near cache forgets what was read from it."""
    cached = {"cache__mode": "rules", "cache__rules": "*"}
    with service.sidecar(**cached) as sidecar, Load(sidecar.port) as load:
        with Wire(sidecar.port) as client:
            assert client.cmd("SET", "cached", "old") == b"+OK\r\n"
            assert client.cmd("GET", "cached") == b"$3\r\nold\r\n"
            load.until_served()
            service.master.pause()
            ask(service.replica, "REPLICAOF", "NO", "ONE")
            service.point_to(service.replica)
            load.until_served()
            ask(service.replica, "SET", "cached", "new")
            service.master.resume()
            load.until_served()
            assert client.cmd("GET", "cached") == b"$3\r\nnew\r\n"
        assert judged(load, service.replica) == Counter()
        assert set(load.errors) <= {"UNCERTAIN"}


def test_the_name_moves_on_while_both_are_masters(service: Service) -> None:
    """Each write is counted once, on one of them."""
    ask(service.replica, "REPLICAOF", "NO", "ONE")
    with service.sidecar() as sidecar, Wire(sidecar.port) as client:
        acknowledged = 0
        service.point_to(service.replica)
        while not times_logged(sidecar, "writes released"):
            assert client.cmd("INCR", "n").startswith(b":")
            acknowledged += 1
        counts = [
            int(ask(each, "GET", "n").split()[1]) for each in (service.master, service.replica)
        ]
        assert sum(counts) == acknowledged


@pytest.mark.parametrize("settings", [{}, {"upstream__follow": "off"}])
def test_a_replica_on_purpose(service: Service, settings: dict[str, str]) -> None:
    """It is served as it is, its errors included, and at once."""
    service.point_to(service.replica)
    ask(service.master, "SET", "k", "v")
    with service.sidecar(**settings) as sidecar, Wire(sidecar.port) as client:
        wait_until(lambda: client.cmd("GET", "k") == b"$1\r\nv\r\n", "replicated")
        begun = time.monotonic()
        assert client.cmd("SET", "k", "w") == READONLY
        assert time.monotonic() - begun < 1
        if not settings:
            ask(service.replica, "REPLICAOF", "NO", "ONE")
            wait_until(lambda: client.cmd("SET", "k", "w") == b"+OK\r\n", "it is a master now")


def test_follow_off_passes_readonly_on(service: Service) -> None:
    with service.sidecar(upstream__follow="off") as sidecar, Wire(sidecar.port) as client:
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        service.hand_over()
        assert client.cmd("SET", "k", "w") == READONLY


def test_a_client_makes_a_replica_of_the_server(plain_server: Server) -> None:
    """It has said so itself: nobody waits for another master."""
    with Sidecar(plain_server.url) as sidecar, Wire(sidecar.port) as client:
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        assert client.cmd("REPLICAOF", "127.0.0.1", 1) == b"+OK\r\n"
        begun = time.monotonic()
        assert client.cmd("SET", "k", "w") == READONLY
        assert time.monotonic() - begun < 1
        assert client.cmd("REPLICAOF", "NO", "ONE") == b"+OK\r\n"
        wait_until(lambda: client.cmd("SET", "k", "w") == b"+OK\r\n", "a master again")


@pytest.mark.parametrize("rights", ["-role", "-role -info"])
def test_a_user_who_may_not_ask_for_the_role(service: Service, rights: str) -> None:
    """INFO tells, or the errors do: the name is followed all the same."""
    for server in (service.master, service.replica):
        ask(server, "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", *rights.split())
    service.names.put(NAME, service.master.host)
    url = f"redis://app:pw@{NAME}:{service.master.port}"
    with Sidecar(url, env=service.names.env) as sidecar, Load(sidecar.port) as load:
        load.until_served()
        service.hand_over()
        wait_until(lambda: bool(news(sidecar, "writes held")), "writes wait for a master")
        service.point_to(service.replica)
        assert judged(load, service.replica) == Counter()
        assert load.errors == Counter()
