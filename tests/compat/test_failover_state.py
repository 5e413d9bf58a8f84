"""Clients with state on their connection when the master changes: transactions, blocking commands,
subscriptions. What they get, and that it is never half of something (docs/compatibility.md).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.harness.accepting import LoopThread
from tests.harness.closing import Closing
from tests.harness.failover import PATIENT, followed, hand_over, news, repaired, settled, undecided
from tests.harness.process import wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import Sidecar
from tests.harness.wire import ClosedError, Wire, pack

DEADLINE = 20.0
TOTAL = 1000
UNCERTAIN = (
    b"-UNCERTAIN the connection to the server was lost before it answered; "
    b"the command may or may not have been executed\r\n"
)
# redis-py tells "READONLY …" of a command in a transaction with words before it. "Connection" is
# "Connection closed by server", which follows -UNCERTAIN on a connection with a WATCH.
REFUSED = ("READONLY", "EXECABORT", "Command")


@pytest.fixture
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    """In front of it."""
    with Sidecar(cluster.url, settings=PATIENT) as sidecar:
        yield sidecar


def _other(cluster: Cluster) -> int:
    master = cluster.current_master()
    return next(node.port for node in cluster.nodes if node.port != master)


def _switched(sidecar: Sidecar, times: int = 1, deadline: float = DEADLINE) -> None:
    wait_until(lambda: len(followed(sidecar)) > times, "the switch", deadline)


class Transfers(LoopThread):
    """Clients that move numbers between two keys; each transfer has an id and is logged by it."""

    def __init__(self, port: int, transfer: Callable[[Redis, int], Awaitable[None]]) -> None:
        super().__init__()
        self.done: list[int] = []
        self.errors: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._stopping = False
        with Wire(port) as wire:
            assert wire.cmd("MSET", "a", TOTAL, "b", 0) == b"+OK\r\n"
        self._clients = [
            asyncio.run_coroutine_threadsafe(self._work(port, transfer), self.loop)
            for _ in range(4)
        ]

    def until_done(self, times: int = 40) -> None:
        """Wait for so many more transfers."""
        before = len(self.done)
        wait_until(lambda: len(self.done) >= before + times, "transfers", DEADLINE)

    def stop(self) -> None:
        """Let those under way end."""
        self._stopping = True
        for client in self._clients:
            client.result(DEADLINE)

    def close(self) -> None:
        """End the clients, whatever they wait for."""
        self._stopping = True
        super().close()

    async def _work(self, port: int, transfer: Callable[[Redis, int], Awaitable[None]]) -> None:
        async with Redis(port=port, max_connections=1, retry=Retry(NoBackoff(), 0)) as client:
            while not self._stopping:
                number = next(self._ids)
                try:
                    await transfer(client, number)
                    self.done.append(number)
                except RedisError as error:
                    self.errors[str(error).partition(" ")[0]] += 1
                await asyncio.sleep(0.002)

    def check(self, port: int) -> None:
        """Every transfer is there whole or not at all, and those that were acknowledged once."""
        with Wire(port) as wire:
            a, b = (int(n) for n in wire.cmd("MGET", "a", "b").split(b"\r\n")[2::2])
            log = [int(n) for n in wire.cmd("LRANGE", "log", 0, -1).split(b"\r\n")[2::2]]
        assert a + b == TOTAL
        assert b == sum(log)
        assert len(log) == len(set(log))
        assert set(self.done) <= set(log)
        assert len(log) <= len(self.done) + self.errors.total()


async def _whole(client: Redis, number: int) -> None:
    """One transaction, sent in one piece."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.decrby("a", number)
        pipe.incrby("b", number)
        pipe.rpush("log", number)
        await pipe.execute()


async def _watched(client: Redis, number: int) -> None:
    """The same with WATCH, again as long as the keys, or the connection, change meanwhile."""

    async def move(pipe: Any) -> None:
        a, b = await pipe.mget("a", "b")
        pipe.multi()
        pipe.mset({"a": int(a) - number, "b": int(b) + number})
        pipe.rpush("log", number)

    await client.transaction(move, "a", "b")


@pytest.mark.parametrize("transfer", [_whole, _watched], ids=["whole", "watched"])
def test_transactions_in_a_planned_failover(
    cluster: Cluster, sidecar: Sidecar, transfer: Callable[[Redis, int], Awaitable[None]]
) -> None:
    """No error: those sent whole wait, and redis-py begins those with WATCH afresh."""
    with Transfers(sidecar.port, transfer) as transfers:
        transfers.until_done()
        cluster.failover()
        _switched(sidecar)
        transfers.until_done()
        master = settled(cluster)
        transfers.stop()
        assert not transfers.errors
        transfers.check(master)


@pytest.mark.parametrize("transfer", [_whole, _watched], ids=["whole", "watched"])
def test_transactions_while_the_master_hands_over(
    cluster: Cluster, sidecar: Sidecar, transfer: Callable[[Redis, int], Awaitable[None]]
) -> None:
    """Nobody warns the sidecar, which asks for the role twice a second: refused until then."""
    old, new = cluster.current_master(), _other(cluster)
    with Transfers(sidecar.port, transfer) as transfers:
        for number, (port, to) in enumerate([(old, new), (new, old)] * 2):
            transfers.until_done()
            hand_over(cluster, port, to)
            _switched(sidecar, number + 1, deadline=5)
        transfers.until_done()
        transfers.stop()
        assert transfers.errors.keys() <= {"UNCERTAIN", "Connection", *REFUSED}
        transfers.check(old)


class Scene(Closing):
    """One planned failover, and clients that do something before it, during it and after it."""

    def __init__(self, cluster: Cluster) -> None:
        self.sidecar = Sidecar(cluster.url)
        self.wires: list[Wire] = []
        self.open_transaction, self.watching, self.ordered = (self.wire() for _ in range(3))
        self.popping, self.popping_late, self.subscriber, self.other = (
            self.wire() for _ in range(4)
        )
        client: Any = redis.Redis(port=self.sidecar.port)
        self.redis, self.pubsub = client, client.pubsub()
        self._before()
        with undecided(cluster):
            wait_until(lambda: news(self.sidecar, "writes held")[1:], "writes are held")
            self._during()
        _switched(self.sidecar)

    def wire(self) -> Wire:
        """One more client."""
        self.wires.append(Wire(self.sidecar.port, deadline=DEADLINE))
        return self.wires[-1]

    def _before(self) -> None:
        assert self.other.cmd("MSET", "k", 1, "w", 1) == b"+OK\r\n"
        assert self.open_transaction.cmd("MULTI") == b"+OK\r\n"
        assert self.open_transaction.cmd("SET", "x", 1) == b"+QUEUED\r\n"
        assert self.watching.cmd("WATCH", "w") == b"+OK\r\n"
        self.popping.send_command("BLPOP", "q", 0)
        wait_until(lambda: b"blocked_clients:1" in self.other.cmd("INFO", "clients"), "blocked")
        self.subscriber.cmd("SUBSCRIBE", "c")
        self.pubsub.subscribe("c")
        assert self.pubsub.get_message(timeout=DEADLINE)["type"] == "subscribe"
        assert self.other.cmd("PUBLISH", "c", "before") == b":2\r\n"
        assert b"before" in self.subscriber.read_reply()

    def _during(self) -> None:
        self.open_transaction.send(pack("SET", "y", 1) + pack("EXEC"))
        self.watching.send(pack("MULTI") + pack("SET", "w", 2) + pack("EXEC"))
        self.ordered.send(b"".join(pack(name, "k") for name in ("GET", "INCR", "GET", "INCR")))
        self.popping_late.send_command("BLPOP", "late", 0)
        assert self.ordered.read_reply() == b"$1\r\n1\r\n"
        assert self.other.cmd("GET", "k") == b"$1\r\n1\r\n"
        self.ordered.expect_silence()

    def close(self) -> None:
        """End them all."""
        self.pubsub.close()
        self.redis.close()
        for wire in self.wires:
            wire.close()
        self.sidecar.close()


@pytest.fixture(scope="module")
def scene(shared_cluster: Cluster) -> Iterator[Scene]:
    """For the tests below; each looks at other clients of it."""
    with Scene(repaired(shared_cluster)) as scene:
        yield scene


def test_an_open_transaction(scene: Scene) -> None:
    """Begun before the failover, its EXEC is held, then the connection ends: nothing is done."""
    scene.open_transaction.expect_eof()
    assert scene.other.cmd("EXISTS", "x", "y") == b":0\r\n"


def test_an_open_watch(scene: Scene) -> None:
    """What was watched was so on the old master: the connection ends, nothing is done."""
    scene.watching.expect_eof()
    assert scene.other.cmd("GET", "w") == b"$1\r\n1\r\n"


def test_a_write_between_reads_keeps_its_place(scene: Scene) -> None:
    """One client's commands are answered in order, though writes are held and reads are not."""
    assert scene.ordered.read_replies(3) == [b":2\r\n", b"$1\r\n2\r\n", b":3\r\n"]


def test_a_blocked_client(scene: Scene) -> None:
    """It may have popped something on the old master: uncertain, and its connection ends."""
    assert scene.popping.read_reply() == UNCERTAIN
    scene.popping.expect_eof()


def test_a_blocking_command_during_the_failover(scene: Scene) -> None:
    """It pops, so it is a write: it is held, and blocks on the new master."""
    assert scene.other.cmd("RPUSH", "late", "v") == b":1\r\n"
    assert scene.popping_late.read_reply() == b"*2\r\n$4\r\nlate\r\n$1\r\nv\r\n"


def test_subscribers(scene: Scene) -> None:
    """Their connections end with the old master; redis-py subscribes again by itself."""
    scene.subscriber.expect_eof()

    def heard() -> bool:
        scene.other.cmd("PUBLISH", "c", "after")
        message = scene.pubsub.get_message(timeout=0.05)
        return message is not None and message["data"] == b"after"

    wait_until(heard, "a message from the new master", DEADLINE)


def test_a_transaction_under_way_when_the_master_is_demoted(
    cluster: Cluster, sidecar: Sidecar
) -> None:
    """Its READONLY is passed on, and nothing of it is done; a single command is sent again."""
    old, new = cluster.current_master(), _other(cluster)
    with Wire(sidecar.port, deadline=DEADLINE) as client:
        assert client.cmd("SET", "x", 0) == b"+OK\r\n"
        hand_over(cluster, old, new)
        client.send(pack("MULTI") + pack("INCR", "x") + pack("EXEC") + pack("INCR", "x"))
        replies = client.read_replies(4)
        if replies[1].startswith(b"-READONLY "):
            assert replies[2].startswith(b"-EXECABORT ")
            assert replies[3] == b":1\r\n"
        else:
            assert replies[1:] == [b"+QUEUED\r\n", b"*1\r\n:1\r\n", b":2\r\n"]
        hand_over(cluster, new, old)
        assert client.cmd("INCR", "x").startswith(b":")


def test_session_pooling(cluster: Cluster) -> None:
    """Nothing waits and nothing is sent again: the refusal is passed on, then connections end."""
    old, new = cluster.current_master(), _other(cluster)
    with (
        Sidecar(cluster.url, settings={"upstream.pooling": "session"}) as sidecar,
        Wire(sidecar.port, deadline=DEADLINE) as client,
    ):
        assert client.cmd("SET", "k", 1) == b"+OK\r\n"
        hand_over(cluster, old, new)
        with suppress(ClosedError):  # when the sidecar was the first to notice
            assert client.cmd("SET", "k", 2).startswith(b"-READONLY ")
        client.expect_eof(deadline=5)
        with Wire(sidecar.port, deadline=DEADLINE) as again:
            assert again.cmd("INCR", "k") == b":2\r\n"
        hand_over(cluster, new, old)


def test_what_is_under_way_in_a_crash(cluster: Cluster, sidecar: Sidecar) -> None:
    """What changes nothing is sent again, and answered as if nothing had been."""
    commands = {
        "GET": (("GET", "k"), b"$1\r\n1\r\n"),
        "PING": (("PING",), b"+PONG\r\n"),
        "ECHO": (("ECHO", "x"), b"$1\r\nx\r\n"),
        "OBJECT": (("OBJECT", "REFCOUNT", "none"), b"$-1\r\n"),
        "INCR": (("INCR", "k"), UNCERTAIN),
        "PUBLISH": (("PUBLISH", "c", "m"), UNCERTAIN),
        "CONFIG": (("CONFIG", "GET", "port"), UNCERTAIN),
    }
    master = cluster.node(cluster.current_master())
    with ExitStack() as stack:
        wires = {name: stack.enter_context(Wire(sidecar.port)) for name in commands}
        last = stack.enter_context(Wire(sidecar.port))
        assert last.cmd("SET", "k", 1) == b"+OK\r\n"
        assert cluster.order(master, "WAIT", 2, 5000) == 2
        master.pause()
        for name, (command, _) in commands.items():
            wires[name].send_command(*command)
        for _ in range(3):  # the sidecar answers this itself, and has sent the others by then
            assert last.cmd("CLIENT", "GETNAME") == b"$-1\r\n"
        master.kill()
        for name, (_, reply) in commands.items():
            assert wires[name].read_reply(DEADLINE) == reply, name
        assert last.cmd("GET", "k") == b"$1\r\n1\r\n"


def test_an_error_that_a_script_makes_up(cluster: Cluster, sidecar: Sidecar) -> None:
    """The script runs once, its client gets the error, and nobody else notices."""
    script = "redis.call('INCR', 'x') return redis.error_reply('READONLY says the script')"
    with Wire(sidecar.port) as client, Wire(sidecar.port) as other:
        assert client.cmd("EVAL", script, 0) == b"-READONLY says the script\r\n"
        assert other.cmd("GET", "x") == b"$1\r\n1\r\n"
        assert not news(sidecar, "upstream link lost")
