"""redis-py through the sidecar, synchronous, in both protocols."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    LockError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
    WatchError,
)
from redis.retry import Retry

from tests.harness.pair import Pair
from tests.harness.process import wait_until

ONCE = Retry(NoBackoff(), 0)
"""No second attempts: they would hide what the first one met."""


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(request: pytest.FixtureRequest, pair: Pair) -> Iterator[redis.Redis]:
    """A client of the sidecar."""
    port = pair.sidecar.port
    with redis.Redis(port=port, protocol=request.param, socket_timeout=5, retry=ONCE) as client:
        yield client


def test_values(client: redis.Redis) -> None:
    """Replies become the types redis-py makes of them."""
    assert client.ping() is True
    assert client.set("k", "v", ex=100) is True
    assert client.get("k") == b"v"
    assert 0 < client.ttl("k") <= 100
    assert client.hset("h", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert client.zadd("z", {"m": 1.5, "n": 2}) == 2
    assert client.zrange("z", 0, -1) == [b"m", b"n"]
    assert client.zscore("z", "m") == 1.5
    assert client.sadd("s", 1, 2, 3) == 3
    assert client.smembers("s") == {b"1", b"2", b"3"}
    assert client.xadd("x", {"f": "v"}, id="1-1") == b"1-1"
    assert client.xrange("x") == [(b"1-1", {b"f": b"v"})]
    assert client.geoadd("g", (13.4, 52.5, "b")) == 1
    assert client.info("server")["redis_version"]
    assert client.config_get("maxmemory") == {"maxmemory": "0"}
    assert client.client_id() > 0
    assert client.blpop(["nothing"], timeout=0.05) is None


def test_errors(client: redis.Redis) -> None:
    """Errors become redis-py's exceptions, and the connection goes on."""
    client.set("k", "v")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        client.lpush("k", 1)
    with pytest.raises(ResponseError, match="unknown command"):
        client.execute_command("NOSUCH")
    with pytest.raises(NoScriptError):
        client.evalsha("0" * 40, 0)
    with pytest.raises(AuthenticationError):
        client.execute_command("AUTH", "nosuch", "wrong")
    assert client.get("k") == b"v"


def test_pipelines(client: redis.Redis) -> None:
    """Plain and transactional pipelines, with an error in the middle."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"k{number}", number).get(f"k{number}")
        result = pipe.execute()
    assert result[1::2] == [b"%d" % number for number in range(1000)]
    with client.pipeline() as pipe:
        pipe.set("k", "x").incr("k").get("k")
        result = pipe.execute(raise_on_error=False)
    assert result[0] is True
    assert isinstance(result[1], ResponseError)
    assert result[2] == b"x"


def test_watch(client: redis.Redis) -> None:
    """Optimistic locking: a conflict raises, `transaction` tries again."""
    client.set("n", 1)
    with client.pipeline() as pipe:
        pipe.watch("n")
        value = int(pipe.get("n"))
        client.set("n", 10)
        pipe.multi()
        pipe.set("n", value + 1)
        with pytest.raises(WatchError):
            pipe.execute()
    assert client.get("n") == b"10"
    disturbed = []

    def increment(pipe: redis.client.Pipeline) -> None:
        value = int(pipe.get("n"))
        if not disturbed:
            disturbed.append(client.set("n", 20))
        pipe.multi()
        pipe.set("n", value + 1)

    assert client.transaction(increment, "n") == [True]
    assert client.get("n") == b"21"


def test_counter_under_contention(client: redis.Redis) -> None:
    """Eight threads count with WATCH; no increment is lost."""
    client.set("n", 0)

    def increment(pipe: redis.client.Pipeline) -> None:
        value = int(pipe.get("n"))
        pipe.multi()
        pipe.set("n", value + 1)

    def work() -> None:
        for _ in range(10):
            client.transaction(increment, "n")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("n") == b"80"


def test_pubsub(client: redis.Redis) -> None:
    """Subscribe, pattern, messages, health ping, unsubscribe."""
    with client.pubsub() as pubsub:
        pubsub.subscribe("c")
        pubsub.psubscribe("p*")
        kinds = [pubsub.get_message(timeout=5)["type"] for _ in range(2)]
        assert kinds == ["subscribe", "psubscribe"]
        assert client.publish("c", "one") == 1
        assert client.publish("px", "two") == 1
        messages = [pubsub.get_message(timeout=5) for _ in range(2)]
        assert [message["data"] for message in messages] == [b"one", b"two"]
        pubsub.ping()
        assert pubsub.get_message(timeout=5)["type"] == "pong"
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        kinds = [pubsub.get_message(timeout=5)["type"] for _ in range(2)]
        assert kinds == ["unsubscribe", "punsubscribe"]
    assert client.publish("c", "nobody") == 0


def test_lock(client: redis.Redis) -> None:
    """The lock recipe (Lua and SET NX PX)."""
    with client.lock("lock", timeout=5):
        assert client.lock("lock", blocking=False).acquire() is False
    lock = client.lock("lock", timeout=5)
    assert lock.acquire()
    assert lock.extend(5)
    assert lock.owned()
    client.delete("lock")
    with pytest.raises(LockError):
        lock.release()


def test_iterators(client: redis.Redis) -> None:
    """scan_iter and its relatives see everything."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"k{number}", 1).sadd("s", number).hset("h", f"f{number}", 1)
        pipe.execute()
    assert set(client.scan_iter("k*", count=50)) == {b"k%d" % n for n in range(500)}
    assert set(client.sscan_iter("s", count=50)) == {b"%d" % n for n in range(500)}
    assert dict(client.hscan_iter("h", count=50)) == {b"f%d" % n: b"1" for n in range(500)}


def test_databases_and_names(pair: Pair) -> None:
    """Clients of several databases and with names of their own, side by side."""
    clients = [
        redis.Redis(port=pair.sidecar.port, db=number, client_name=f"c{number}")
        for number in range(4)
    ]
    for number, client in enumerate(clients):
        client.set("k", number)
    for number, client in enumerate(clients):
        assert client.get("k") == b"%d" % number
        assert client.client_getname() == f"c{number}"
        client.close()


def test_scripts_and_functions(client: redis.Redis) -> None:
    """register_script falls back from EVALSHA to EVAL by itself."""
    script = client.register_script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
    assert script(keys=["n"], args=["x"]) == [b"n", b"x", 1]
    client.script_flush()
    assert script(keys=["n"], args=["x"]) == [b"n", b"x", 2]


def test_blocking_consumer(client: redis.Redis) -> None:
    """A thread that waits with BLPOP gets everything a producer pushes, in order."""
    received: list[bytes] = []

    def consume() -> None:
        while (item := client.blpop(["q"], timeout=5)[1]) != b"end":
            received.append(item)

    thread = threading.Thread(target=consume)
    thread.start()
    for number in range(200):
        client.rpush("q", number)
    client.rpush("q", "end")
    thread.join(10)
    assert received == [b"%d" % number for number in range(200)]


def test_monitor(client: redis.Redis) -> None:
    """redis-py's monitor parses the lines."""
    with client.monitor() as monitor:
        client.set("watched", "1")
        commands: list[str] = []

        def found() -> bool:
            commands.append(monitor.next_command()["command"])
            return commands[-1] == "SET watched 1"

        wait_until(found, "the command in the monitor")


def test_users(auth_pair: Pair) -> None:
    """Passwords and ACL users, also through HELLO AUTH."""
    port = auth_pair.sidecar.port
    for protocol in (2, 3):
        more = {"port": port, "protocol": protocol, "retry": ONCE}
        with redis.Redis(password="secret", **more) as admin:
            admin.acl_setuser(
                "carol",
                reset=True,
                enabled=True,
                passwords=["+carolpass"],
                keys=["carol:*"],
                commands=["+get", "+set", "+hello", "+client"],
            )
            assert admin.acl_whoami() in ("default", b"default")
            with redis.Redis(username="carol", password="carolpass", **more) as carol:
                assert carol.set("carol:k", 1)
                with pytest.raises(NoPermissionError):
                    carol.get("other")
            with (
                redis.Redis(username="carol", password="wrong", **more) as stranger,
                pytest.raises(AuthenticationError),
            ):
                stranger.get("carol:k")
