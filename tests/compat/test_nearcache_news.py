"""What a client was told, the near cache shows: messages, pops and scripts, against real servers.

Another host writes `k`, and what tells of it comes through the sidecar before the invalidation:
the near cache's own connection is held back. A read must not be answered with the old value then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.harness.cached import Cached
from tests.harness.farm import BINARIES
from tests.harness.faults import TRACKED, FaultProxy, tracking_proxy
from tests.harness.process import wait_until
from tests.harness.servers import Server
from tests.harness.wire import DeadlineError, Wire, pack

pytestmark = pytest.mark.one_worker("each worker has a near cache of its own")

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]

LONG = {"cache.max_staleness": "5s"}
"""So that a value can be missing only because of what was told."""

NIL = b"$-1\r\n"
OLD, NEW = b"$3\r\nold\r\n", b"$3\r\nnew\r\n"


class Scene:
    """A sidecar whose connections can be held back, and what its test talks to."""

    def __init__(self, cached: Cached, network: FaultProxy, proto: int, db: int) -> None:
        self.cached, self.network, self.proto, self.db = cached, network, proto, db
        self.reader = self.client()
        self.direct = cached.connect(cached.server.port)
        self.direct.cmd("SELECT", db)

    def client(self) -> Wire:
        """One more client, on the scene's database and protocol."""
        wire = self.cached.open(self.proto)
        wire.cmd("SELECT", self.db)
        return wire

    def cache_old(self) -> None:
        """`k` is cached as `old`; from now on invalidations do not arrive."""
        assert self.reader.cmd("SET", "k", "old") == b"+OK\r\n"
        assert self.cached.warm("GET", "k", wire=self.reader) == OLD
        self.network.group(TRACKED).hold("to_client")

    def read(self, *command: str) -> bytes:
        """A read's answer: given at once, or when the near cache's connection is open again."""
        self.reader.send_command(*(command or ("GET", "k")))
        try:
            return self.reader.read_reply(0.2)
        except DeadlineError:
            self.network.heal()
            return self.reader.read_reply()


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind."""
    with BINARIES[request.param]({"notify-keyspace-events": "KEA"}) as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[tuple[Cached, FaultProxy]]:
    """The sidecar that tests share."""
    with (
        tracking_proxy(server.port) as network,
        Cached(server, LONG, upstream=network.url) as cached,
    ):
        yield cached, network


@pytest.fixture(params=[(2, 0), (3, 9)], ids=["RESP2-db0", "RESP3-db9"])
def scene(shared: tuple[Cached, FaultProxy], request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The same, empty and healed."""
    cached, network = shared
    cached.near.cmd("FLUSHALL")
    yield Scene(cached, network, *request.param)
    network.heal()
    cached.part()


# Messages: what a client listens to, what makes the server speak.

Listen = Callable[[Scene], Wire]


def subscriber(*command: str) -> Listen:
    """A client that has sent this and has been answered."""

    def listen(scene: Scene) -> Wire:
        wire = scene.client()
        wire.send_command(*command)
        wire.read_reply()
        return wire

    return listen


def tracking(scene: Scene) -> Wire:
    """An application that tracks for itself, in RESP3."""
    wire = scene.cached.open(3)
    wire.cmd("SELECT", scene.db)
    wire.cmd("CLIENT", "TRACKING", "on", "BCAST", "PREFIX", "k")
    return wire


def blocked(*command: str) -> Listen:
    """A client that waits in this command."""

    def listen(scene: Scene) -> Wire:
        wire = scene.client()
        wire.send_command(*command)
        wait_until(lambda: b"blocked_clients:1" in scene.direct.cmd("INFO"), "a blocked client")
        return wire

    return listen


MESSAGES: dict[str, tuple[Listen, tuple[str, ...]]] = {
    "SUBSCRIBE": (subscriber("SUBSCRIBE", "c"), ("PUBLISH", "c", "m")),
    "PSUBSCRIBE": (subscriber("PSUBSCRIBE", "c*"), ("PUBLISH", "c", "m")),
    "SSUBSCRIBE": (subscriber("SSUBSCRIBE", "c"), ("SPUBLISH", "c", "m")),
    "keyspace": (subscriber("PSUBSCRIBE", "__keyspace*:k"), ()),
    "MONITOR": (subscriber("MONITOR"), ()),
    "TRACKING": (tracking, ()),
    "BLPOP": (blocked("BLPOP", "q", "0"), ("RPUSH", "q", "job")),
    "BLMOVE": (blocked("BLMOVE", "q", "p", "LEFT", "LEFT", "0"), ("RPUSH", "q", "job")),
    "BZPOPMIN": (blocked("BZPOPMIN", "q", "0"), ("ZADD", "q", "1", "job")),
    "XREAD": (blocked("XREAD", "BLOCK", "0", "STREAMS", "q", "$"), ("XADD", "q", "*", "a", "b")),
    "WAIT": (blocked("BLMPOP", "0", "1", "q", "LEFT"), ("RPUSH", "q", "job")),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message(scene: Scene, name: str) -> None:
    listen, speak = MESSAGES[name]
    scene.cache_old()
    listener = listen(scene)
    scene.direct.cmd("SET", "k", "new")
    if speak:
        scene.direct.cmd(*speak)
    assert b"old" not in listener.read_reply()
    assert scene.read() == NEW
    assert scene.cached.warm("GET", "k", wire=scene.reader) == NEW


def test_a_message_and_reads_of_several_keys(scene: Scene) -> None:
    listener = subscriber("SUBSCRIBE", "c")(scene)
    scene.reader.cmd("MSET", "j", "old", "k", "old")
    scene.cached.warm("MGET", "j", "k", wire=scene.reader)
    scene.network.group(TRACKED).hold("to_client")
    scene.direct.cmd("MSET", "j", "new", "k", "new")
    scene.direct.cmd("PUBLISH", "c", "m")
    listener.read_reply()
    assert scene.read("MGET", "j", "k") == b"*2\r\n" + 2 * NEW


def test_messages_push_nothing_out(scene: Scene) -> None:
    """A read waits for the proof, and is then answered from here."""
    listener = subscriber("SUBSCRIBE", "c")(scene)
    scene.reader.cmd("SET", "k", "old")
    scene.cached.warm("GET", "k", wire=scene.reader)
    before = scene.cached.calls("get")
    for _ in range(200):
        scene.direct.cmd("PUBLISH", "c", "m")
        listener.read_reply()
        assert scene.reader.cmd("GET", "k") == OLD
    assert scene.cached.calls("get") == before


def test_what_came_before_the_message_is_not_held_up(scene: Scene) -> None:
    """The proof that is due is that of the fence at the read's arrival: a stream of messages does
    not put it off for ever."""
    listener = subscriber("SUBSCRIBE", "c")(scene)
    scene.reader.cmd("SET", "k", "old")
    scene.cached.warm("GET", "k", wire=scene.reader)
    scene.direct.send(pack("PUBLISH", "c", "m") * 20_000)
    seen = 0
    for _ in range(50):
        assert scene.reader.cmd("GET", "k", deadline=1.0) == OLD
        seen += len(listener.drain())
    scene.direct.read_replies(20_000)


# Replies


OWN: dict[str, list[tuple[str, ...]]] = {
    "EVAL": [("EVAL", "return redis.call('SET','k','new')", "0")],
    "EVAL-other-key": [("EVAL", "return redis.call('SET','k',ARGV[1])", "1", "other", "new")],
    "EVAL-DEL": [("EVAL", "redis.call('DEL','k') return redis.call('SET','k','new')", "0")],
    "MULTI": [("MULTI",), ("EVAL", "return redis.call('SET','k','new')", "0"), ("EXEC",)],
}


def apart(wire: Wire, commands: list[tuple[str, ...]]) -> list[bytes]:
    """One command after the other."""
    return [wire.cmd(*command) for command in commands]


def at_once(wire: Wire, commands: list[tuple[str, ...]]) -> list[bytes]:
    """All in one write."""
    wire.send(b"".join(pack(*command) for command in commands))
    return wire.read_replies(len(commands))


@pytest.mark.parametrize("way", [apart, at_once])
@pytest.mark.parametrize("name", OWN)
def test_a_script_writes_what_it_does_not_name(
    scene: Scene, name: str, way: Callable[[Wire, list[tuple[str, ...]]], list[bytes]]
) -> None:
    writer = scene.client()
    scene.cache_old()
    assert all(reply[:1] in b"+*" for reply in way(writer, OWN[name]))
    assert scene.read() == NEW


@pytest.mark.parametrize("name", OWN)
def test_reads_behind_a_script(scene: Scene, name: str) -> None:
    """In the same write: the script has not been executed when the read is looked at."""
    scene.cache_old()
    got = at_once(scene.reader, [*OWN[name], ("GET", "k"), ("MGET", "k")])
    assert got[-2:] == [NEW, b"*1\r\n" + NEW]


def test_scripts_push_nothing_out(scene: Scene) -> None:
    scene.reader.cmd("SET", "k", "old")
    scene.cached.warm("GET", "k", wire=scene.reader)
    before = scene.cached.calls("get")
    for _ in range(200):
        assert scene.cached.near.cmd("EVAL", "return 1", "0") == b":1\r\n"
        assert scene.reader.cmd("GET", "k") == OLD
    assert scene.cached.calls("get") == before


READS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "LPOP": (("RPUSH", "q", "job"), ("LPOP", "q")),
    "RPOPLPUSH": (("RPUSH", "q", "job"), ("RPOPLPUSH", "q", "p")),
    "ZPOPMIN": (("ZADD", "q", "1", "job"), ("ZPOPMIN", "q")),
    "XREAD": (("XADD", "q", "*", "a", "b"), ("XREAD", "STREAMS", "q", "0")),
    "KEYS": (("SET", "sign", "1"), ("KEYS", "sign")),
    "EVAL_RO": (("SET", "sign", "1"), ("EVAL_RO", "return redis.call('GET','k')", "0")),
    "MULTI": (("RPUSH", "q", "job"), ("LPOP", "q")),
}


@pytest.mark.parametrize("name", READS)
def test_a_reply_that_tells(scene: Scene, name: str) -> None:
    write, read = READS[name]
    worker = scene.client()
    scene.cache_old()
    scene.direct.cmd("SET", "k", "new")
    scene.direct.cmd(*write)
    if name == "MULTI":
        at_once(worker, [("MULTI",), read, ("EXEC",)])
    else:
        assert worker.cmd(*read)[1:2] != b"-"
    assert scene.read() == NEW


def test_a_transaction_that_failed_tells(scene: Scene) -> None:
    """Somebody has changed a key that was watched."""
    worker = scene.client()
    worker.cmd("WATCH", "k")
    worker.cmd("MULTI")
    worker.cmd("GET", "j")
    scene.cache_old()
    scene.direct.cmd("SET", "k", "new")
    assert worker.cmd("EXEC")[1:] in (b"-1\r\n", b"\r\n")
    assert scene.read() == NEW


def test_an_empty_queue_tells_nothing(scene: Scene) -> None:
    worker = scene.client()
    scene.cache_old()
    assert b"-1" in worker.cmd("LPOP", "none") or scene.proto == 3
    worker.cmd("XREAD", "BLOCK", "1", "STREAMS", "none", "$")
    assert scene.read() == OLD
    assert scene.reader.cmd("GET", "k", deadline=0.2) == OLD


def test_hot_keys(server: Server) -> None:
    """The same where the cache knows hot keys only."""
    settings = {**LONG, "cache.mode": "hot", "cache.rules": "[]"}
    with (
        tracking_proxy(server.port) as network,
        Cached(server, settings, upstream=network.url) as cached,
    ):
        scene = Scene(cached, network, 2, 0)
        scene.reader.cmd("SET", "k", "old")
        scene.reader.send(pack("GET", "k") * 20_000)
        scene.reader.read_replies(20_000)
        listener = subscriber("SUBSCRIBE", "c")(scene)
        scene.cache_old()
        scene.direct.cmd("SET", "k", "new")
        scene.direct.cmd("PUBLISH", "c", "m")
        listener.read_reply()
        assert scene.read() == NEW
        scene.cache_old()
        assert cached.near.cmd("EVAL", "return redis.call('SET','k','new')", "0") == b"+OK\r\n"
        assert scene.read() == NEW
