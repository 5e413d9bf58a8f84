"""Failovers that do not come about, or not in time; what is asked of replicas; wrong masters.

What these errors mean to an application stands in docs/high-availability.md.
"""

from __future__ import annotations

import asyncio
import time

import hiredis
import pytest

from tests.harness.accepting import Accepting
from tests.harness.admin import metric
from tests.harness.failover import (
    PATIENT,
    Load,
    followed,
    hand_over,
    news,
    settled,
    times_logged,
    undecided,
)
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import SERVICE, Cluster, Node
from tests.harness.servers import WORKERS, Sidecar
from tests.harness.wire import Wire, pack

DEADLINE = 20.0
HELD_TOO_MUCH = (
    b"-UNAVAILABLE there is no master, and too much is waiting for one already "
    b"(failover.hold_bytes); the command was not executed\r\n"
)
UNREPLICATED = (
    b"-UNREPLICATED the command was executed, but too few replicas acknowledged it in time; "
    b"its effect may be lost in a failover\r\n"
)


def _master(cluster: Cluster) -> Node:
    return cluster.node(cluster.current_master())


def _others(cluster: Cluster) -> list[Node]:
    master = cluster.current_master()
    return [node for node in cluster.nodes if node.port != master]


def _held(sidecar: Sidecar) -> None:
    """Wait until all workers hold writes; the first time was at the start, without a master."""
    wait_until(lambda: times_logged(sidecar, "writes held") > 1, "writes are held")


# failover.hold


def test_no_master_for_too_long(cluster: Cluster) -> None:
    """No quorum: the hold runs out, then errors come at once, and service resumes by itself."""
    settings = {"failover.hold": 1, "upstream.backoff_max": 0.2}
    with Sidecar(cluster.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        for sentinel in cluster.sentinels[1:]:
            sentinel.kill()
        _master(cluster).kill()
        wait_until(lambda: news(sidecar, "upstream link lost"), "the loss is noticed")
        begun = time.monotonic()
        for name in (("INCR", "k"), ("GET", "k"), ("BLPOP", "q", 1)):
            reply = client.cmd(*name)
            assert reply.startswith(b"-UNAVAILABLE upstream 127.0.0.1:")
            assert reply.endswith(b"; the command was not executed\r\n")
        assert 0.5 < time.monotonic() - begun < 4
        for sentinel in cluster.sentinels[1:]:
            sentinel.start()
        wait_until(lambda: client.cmd("INCR", "k").startswith(b":"), "service again", DEADLINE)
        assert client.cmd("GET", "k") == b"$1\r\n2\r\n"


def test_a_failover_that_hangs(cluster: Cluster) -> None:
    """Writes wait for `failover.hold`, then go on where they were; reads do not wait at all."""
    with (
        Sidecar(cluster.url, settings={"failover.hold": 1}) as sidecar,
        Wire(sidecar.port) as client,
        Wire(sidecar.port) as reader,
    ):
        with undecided(cluster):
            _held(sidecar)
            client.send_command("INCR", "k")
            assert reader.cmd("GET", "k", deadline=0.5) == b"$-1\r\n"
            assert client.read_reply() == b":1\r\n"
        assert len(followed(sidecar)) == 1


# failover.hold_bytes


@pytest.mark.one_worker("failover.hold_bytes is divided among the workers")
def test_too_much_waits(cluster: Cluster) -> None:
    """An error for who comes on top; never half a transaction, never the rest of a large request
    taken for requests, never a reply out of turn."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        Sidecar(cluster.url, settings={"failover.hold_bytes": 1024}, admin=admin) as sidecar,
        Wire(sidecar.port, deadline=DEADLINE) as first,
        Wire(sidecar.port) as second,
        Wire(sidecar.port) as transaction,
        Wire(sidecar.port) as large,
        Wire(sidecar.port) as pinned,
        Wire(sidecar.port) as kept,
    ):
        assert second.cmd("SET", "k", 1) == b"+OK\r\n"
        assert transaction.cmd("MULTI") == b"+OK\r\n"
        assert transaction.cmd("SET", "t1", 1) == b"+QUEUED\r\n"
        assert kept.cmd("CLIENT", "TRACKING", "ON").startswith(b"+OK")
        pinned.cmd("HELLO", 3)
        assert pinned.cmd("SUBSCRIBE", "c").endswith(b":1\r\n")
        with undecided(cluster):
            _held(sidecar)
            first.send(pack("GET", "k") + pack("SET", "first", "x" * 900))
            assert first.read_reply() == b"$1\r\n1\r\n"
            second.send(pack("SET", "k", "2" * 300) + pack("GET", "k"))
            assert second.read_replies(2) == [HELD_TOO_MUCH, b"$1\r\n1\r\n"]

            assert transaction.cmd("SET", "t2", "2" * 300) == HELD_TOO_MUCH
            transaction.expect_eof()

            request = pack("SET", "large", b"\r\n" * 300_000 + pack("SET", "smuggled", 1))
            large.send(request[:400_000])
            assert large.read_reply() == HELD_TOO_MUCH
            large.expect_eof()

            pinned.send(pack("GET", "k") * 3 + pack("SET", "k", "3" * 300))
            assert pinned.read_to_end() in (b"$1\r\n1\r\n" * n for n in range(4))
            assert metric(sidecar, "sidecar_local_errors_total") == 3
            kept.send(pack("GET", "k") + pack("SET", "k", "3" * 300) + pack("GET", "k"))
            assert kept.read_replies(3) == [b"$1\r\n1\r\n", HELD_TOO_MUCH, b"$1\r\n1\r\n"]
        assert first.read_reply() == b"+OK\r\n"
        assert second.cmd("EXISTS", "t1", "t2", "smuggled", "large") == b":0\r\n"
        assert second.cmd("SET", "k", "2" * 300) == b"+OK\r\n"


def test_a_client_that_gave_up(cluster: Cluster) -> None:
    """Its write was never sent, and it may have sent it again on another connection: not done."""
    with Sidecar(cluster.url) as sidecar, Wire(sidecar.port, deadline=DEADLINE) as client:
        with undecided(cluster):
            _held(sidecar)
            with Wire(sidecar.port) as first:
                first.send(pack("GET", "k") + pack("INCR", "k"))
                assert first.read_reply() == b"$-1\r\n"
            client.send_command("INCR", "k")
        assert client.read_reply() == b":1\r\n"
        assert client.cmd("GET", "k") == b"$1\r\n1\r\n"


# failover.min_replicas_ack


def test_acknowledged_means_on_a_replica(cluster: Cluster) -> None:
    """The master is killed under load, while replicas are slow: what was acknowledged is there."""
    settings = PATIENT | {"failover.min_replicas_ack": 1, "failover.ack_timeout": 0.3}
    with Sidecar(cluster.url, settings=settings) as sidecar, Load(sidecar.port, writers=6) as load:
        load.until_served(50)
        old, replicas = _master(cluster), _others(cluster)
        for node in replicas:
            node.pause()
        before = load.acknowledged
        try:
            wait_until(
                lambda: load.errors["UNREPLICATED"] or load.acknowledged > before + 100,
                "writes without a replica",
            )
        finally:
            old.kill()
            for node in replicas:
                node.resume()
        wait_until(lambda: len(followed(sidecar)) > 1, "the switch", DEADLINE)
        load.until_served(50)
        old.start()
        master = settled(cluster)
        load.stop()
        assert load.errors.keys() <= {"UNCERTAIN", "UNREPLICATED"}
        assert not load.judge(master)


def test_too_few_replicas(cluster: Cluster) -> None:
    """The write is done and says so; reads are as ever. Then replicas come back."""
    settings = {"failover.min_replicas_ack": 1, "failover.ack_timeout": 0.2}
    with Sidecar(cluster.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        for node in _others(cluster):
            node.kill()
        wait_until(lambda: client.cmd("SET", "k", 2) == UNREPLICATED, "it is told")
        assert client.cmd("GET", "k") == b"$1\r\n2\r\n"
        client.send(pack("MULTI") + pack("INCR", "k") + pack("EXEC"))
        assert client.read_replies(3) == [b"+OK\r\n", b"+QUEUED\r\n", UNREPLICATED]
        for node in cluster.nodes:
            if not node.running:
                node.start()
        wait_until(lambda: client.cmd("INCR", "k").startswith(b":"), "a replica has it", DEADLINE)


# Masters and Sentinels


def test_all_sentinels_down(cluster: Cluster) -> None:
    """The master lives: nobody notices. They come back and switch, and are followed."""
    with Sidecar(cluster.url) as sidecar, Load(sidecar.port) as load:
        load.until_served()
        for sentinel in cluster.sentinels:
            sentinel.kill()
        wait_until(lambda: times_logged(sidecar, "sentinel failed") == 3, "it is noticed")
        load.until_served(100)
        for sentinel in cluster.sentinels:
            sentinel.start()
        wait_until(lambda: times_logged(sidecar, "sentinel recovered") == 3, "they are back")
        settled(cluster)
        cluster.failover()
        wait_until(lambda: len(followed(sidecar)) > 1, "the switch", DEADLINE)
        load.until_served()
        load.stop()
        assert not load.errors


def test_a_restart_before_anybody_notices(cluster: Cluster) -> None:
    """The master is back within down-after, and first loads its data: requests wait for that."""
    with Sidecar(cluster.url) as sidecar, Wire(sidecar.port, deadline=DEADLINE) as client:
        assert client.cmd("DEBUG", "POPULATE", 2000) == b"+OK\r\n"
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        master = _master(cluster)
        slowly = ("key-load-delay", 300, "loading-process-events-interval-bytes", 1024)
        assert cluster.order(master, "CONFIG", "SET", *slowly) == "OK"
        assert cluster.order(master, "CONFIG", "REWRITE") == "OK"
        assert cluster.order(master, "SAVE") == "OK"
        master.kill()
        master.spawn([master.binary, str(master.folder / "node.conf")])
        wait_until(lambda: _loads(master), "it loads", DEADLINE)
        with Wire(sidecar.port, deadline=DEADLINE) as late:
            client.send_command("INCR", "k")
            late.send_command("GET", "k")
            assert client.read_reply() == b":2\r\n"
            assert late.read_reply() in (b"$1\r\n1\r\n", b"$1\r\n2\r\n")
        assert followed(sidecar) == [master.port]
        assert cluster.order(master, "CONFIG", "SET", "key-load-delay", 0) == "OK"
        assert cluster.order(master, "CONFIG", "REWRITE") == "OK"


def _loads(node: Node) -> bool:
    try:
        with Wire(node.port) as wire:
            return wire.cmd("GET", "k").startswith(b"-LOADING ")
    except OSError:
        return False


class Silent(Accepting):
    """Accepts connections, and that is all: what is left of a host that is gone."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the peer has had enough."""
        try:
            while await reader.read(65536):
                pass
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def test_a_master_that_is_gone_without_a_word(cluster: Cluster) -> None:
    """Connections to it hang: they are given up as soon as there is another master."""
    with (
        Sidecar(cluster.url, settings=PATIENT) as sidecar,
        Wire(sidecar.port, deadline=DEADLINE) as client,
    ):
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        old = _master(cluster)
        old.kill()
        with Silent(old.port), Wire(sidecar.port, deadline=DEADLINE) as popping:
            client.send_command("INCR", "k")
            popping.send_command("BLPOP", "q", 0.01)
            wait_until(lambda: len(followed(sidecar)) > 1, "the switch", DEADLINE)
            assert client.read_reply(1) == b":2\r\n"
            assert popping.read_reply(1) == b"*-1\r\n"


def test_a_frozen_master(cluster: Cluster) -> None:
    """It wakes up and still takes itself for the master; nobody writes to it any more."""
    old = _master(cluster)
    with Sidecar(cluster.url, settings=PATIENT) as sidecar, Load(sidecar.port) as load:
        load.until_served()
        old.pause()
        try:
            wait_until(lambda: len(followed(sidecar)) > 1, "the switch", DEADLINE)
            load.until_served()
        finally:
            old.resume()
        load.until_served()
        master = settled(cluster)
        load.stop()
        assert load.errors.keys() <= {"UNCERTAIN"}
        assert not any(told.errors for told in load.reads)
        wrong = load.judge(master)
        assert wrong.keys() <= {"lost"}
        assert wrong["lost"] <= load.acknowledged // 20


class LyingSentinel(Accepting):
    """A Sentinel that names whom it is told to."""

    def __init__(self, port: int) -> None:
        self.names = port
        self.epoch = 1
        super().__init__()

    @property
    def url(self) -> str:
        """As upstream.url."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{SERVICE}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what the sidecar asks."""
        parser = hiredis.Reader(encoding="utf-8")
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    writer.write(self._answer(" ".join(command).upper()))
        except OSError:
            pass
        finally:
            writer.close()

    def _answer(self, command: str) -> bytes:
        if command.startswith("SENTINEL MASTER "):
            facts = ("name", SERVICE, "flags", "master", "config-epoch", str(self.epoch))
            return b"%%%d\r\n" % (len(facts) // 2) + b"".join(
                b"$%d\r\n%b\r\n" % (len(fact), fact.encode()) for fact in facts
            )
        if command.startswith("SENTINEL GET-MASTER-ADDR-BY-NAME "):
            port = b"%d" % self.names
            return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)
        return b"*0\r\n" if command.startswith("SENTINEL SENTINELS ") else b"+OK\r\n"


def test_a_replica_is_never_used(cluster: Cluster) -> None:
    """Whatever Sentinels say: a node that does not say that it is the master gets no command."""
    master, replica = _master(cluster), _others(cluster)[0]
    with LyingSentinel(replica.port) as liar:
        assert cluster.order(replica, "CONFIG", "RESETSTAT") == "OK"
        with Sidecar(liar.url) as sidecar, Load(sidecar.port) as load:
            load.until_served()
            liar.epoch += 1
            wait_until(lambda: len(news(sidecar, "writes held")) > 2, "it is believed at first")
            load.until_served(50)
            load.stop()
            assert not load.errors
            assert not load.judge(master.port)
        assert cluster.order(replica, "ROLE")[0] == "slave"
        stats = cluster.order(replica, "INFO", "commandstats")
        assert "cmdstat_role" in stats
        assert "cmdstat_get:" not in stats  # rpush and incr it gets by replication


def test_the_sidecars_own_connections_are_not_listed(cluster: Cluster) -> None:
    """CLIENT LIST shows clients in the place of all of them, the one that asks for the role too."""
    own = b" name=redis-sidecar "
    settings: dict[str, str | int | float] = {"upstream.pool_spare": 0, "cache.mode": "off"}
    with (
        Sidecar(cluster.url, settings=settings) as sidecar,
        Wire(sidecar.port) as client,
        Wire(_master(cluster).port) as direct,
    ):
        links = 2 * WORKERS  # the link and the watch of each
        wait_until(lambda: direct.cmd("CLIENT", "LIST").count(own) == links, "they are there", 20)
        listed = client.cmd("CLIENT", "LIST")
        assert own not in listed
        assert client.address.encode() in listed


@pytest.mark.slow
def test_two_sidecars_follow_together(cluster: Cluster) -> None:
    """Each by itself; what one has written the other reads, there and back."""
    old, new = _master(cluster).port, _others(cluster)[0].port
    with Sidecar(cluster.url) as one, Sidecar(cluster.url) as two:
        for number, (port, to) in enumerate([(old, new), (new, old)]):
            hand_over(cluster, port, to)
            with Wire(one.port, deadline=DEADLINE) as a, Wire(two.port, deadline=DEADLINE) as b:
                assert a.cmd("SET", "k", number) == b"+OK\r\n"
                wait_until(lambda n=number: len(followed(two)) == n + 2, "the switch", DEADLINE)  # type: ignore[misc]
                assert b.cmd("GET", "k") == b"$1\r\n%d\r\n" % number
