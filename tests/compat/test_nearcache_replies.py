"""Every command whose replies are cached answers byte for byte as the server does: when its value
is read, and when it comes from the cache, in both protocols."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.policy.routing import CACHED, CACHED_EACH
from tests.harness.cached import Cached
from tests.harness.farm import BINARIES
from tests.harness.pair import words
from tests.harness.servers import Server

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]

DATA = """
SET s hello
SET n 42
SET e EMPTY
SETRANGE bits 100 x
HSET h a 1 b 2.5 c EMPTY
SADD members a b c
SADD numbers 1 2 3 -9007199254740993
ZADD z 1 a 2.5 b 1e300 c inf d -inf e 0.1 f 3 g
RPUSH l a b c b a
XADD x 1-1 f v g w
XADD x 2-1 f v
GEOADD g 13.361389 38.115556 palermo 15.087269 37.502669 catania
""".strip().splitlines()

SAMPLES = (
    """
GET s | GET n | GET e | GET missing | STRLEN s | STRLEN missing
GETRANGE s 1 3 | GETRANGE s -3 -1 | GETRANGE missing 0 -1 | SUBSTR s 0 1
GETBIT bits 801 | GETBIT missing 1 | BITCOUNT bits | BITCOUNT bits 0 5 | BITPOS bits 1
BITFIELD_RO bits GET u8 800 GET i5 3 | BITFIELD_RO missing GET u8 0
EXISTS s | EXISTS missing | TYPE s | TYPE h | TYPE missing
HGET h a | HGET h missing | HGET missing a | HMGET h a missing c | HMGET missing a b
HGETALL h | HGETALL missing | HEXISTS h a | HEXISTS h missing | HLEN h | HLEN missing
HSTRLEN h b | HSTRLEN h missing | HKEYS h | HKEYS missing | HVALS h | HVALS missing
SMEMBERS members | SMEMBERS numbers | SMEMBERS missing | SISMEMBER members a
SISMEMBER members missing | SMISMEMBER members a missing c | SMISMEMBER missing a
SCARD members | SCARD missing
ZSCORE z a | ZSCORE z b | ZSCORE z c | ZSCORE z d | ZSCORE z e | ZSCORE z f | ZSCORE z missing
ZSCORE missing a | ZMSCORE z a b missing c d | ZMSCORE missing a | ZCARD z | ZCARD missing
ZCOUNT z 1 3 | ZCOUNT z -inf +inf | ZLEXCOUNT z - + | ZRANK z a | ZRANK z missing
ZRANK z b WITHSCORE | ZRANK z missing WITHSCORE | ZRANK missing a WITHSCORE
ZREVRANK z a | ZREVRANK missing a | ZREVRANK z missing WITHSCORE
ZRANGE z 0 -1 | ZRANGE z 0 -1 WITHSCORES | ZRANGE z 1 3 BYSCORE | ZRANGE missing 0 -1
ZRANGE z 0 0 WITHSCORES | ZRANGE missing 0 -1 WITHSCORES
ZREVRANGE z 0 -1 | ZREVRANGE z 0 1 WITHSCORES | ZRANGEBYSCORE z 1 3 | ZREVRANGEBYSCORE z 3 1
ZRANGEBYSCORE z 1 3 WITHSCORES LIMIT 0 1 | ZREVRANGEBYSCORE z 3 1 WITHSCORES
ZRANGEBYLEX z - + | ZREVRANGEBYLEX z + - | ZRANGEBYLEX missing - +
LRANGE l 0 -1 | LRANGE missing 0 -1 | LLEN l | LLEN missing | LINDEX l 0 | LINDEX l 99
LPOS l b | LPOS l missing | LPOS l b COUNT 0 | LPOS l missing COUNT 0 | LPOS missing b
LPOS missing b COUNT 2
XLEN x | XLEN missing | XRANGE x - + | XRANGE x 1-1 1-1 | XRANGE missing - + | XREVRANGE x + -
XREVRANGE x + - COUNT 1
GEODIST g palermo catania | GEODIST g palermo catania km | GEODIST g palermo missing
GEODIST missing a b | GEOHASH g palermo catania missing | GEOHASH missing a
GEOPOS g palermo | GEOPOS g missing | GEOPOS g palermo missing catania | GEOPOS missing a
GEOSEARCH g FROMMEMBER palermo BYRADIUS 300 km ASC
GEOSEARCH g FROMMEMBER palermo BYRADIUS 300 km ASC WITHCOORD WITHDIST WITHHASH
GEOSEARCH missing FROMLONLAT 15 37 BYRADIUS 300 km
GEORADIUS_RO g 15 37 300 km ASC | GEORADIUS_RO g 15 37 300 km WITHDIST ASC
GEORADIUS_RO missing 15 37 300 km
GEORADIUSBYMEMBER_RO g palermo 300 km ASC | GEORADIUSBYMEMBER_RO g palermo 300 km WITHCOORD ASC
MGET s | MGET s n missing e s | MGET missing
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)

ERRORS = [
    "GET h", "HGET s a", "LRANGE s 0 -1", "ZRANGE s 0 -1", "SMEMBERS s", "XRANGE s - +", "GET",
    "GETRANGE s a b", "ZRANGE z a b", "HMGET h", "BITPOS bits 2", "GEOSEARCH g BYRADIUS 1 km",
    "GETBIT s -1", "ZRANGEBYSCORE z a b", "LPOS l b COUNT -1", "MGET", "TYPE",
]  # fmt: skip

TWICE_ASKED = (
    "WITHSCORES", "WITHSCORE", "WITHCOORD", "WITHDIST", "XRANGE", "XREVRANGE", "GEOPOS",
)  # fmt: skip
"""Replies that have no form in RESP2 that could be kept: the server may be asked each time."""


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with the data."""
    with BINARIES[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def cached(server: Server) -> Iterator[Cached]:
    """A sidecar in front of it."""
    with Cached(server) as cached:
        for line in DATA:
            reply = cached.direct.cmd(*[b"" if w == b"EMPTY" else w for w in words(line)])
            assert not reply.startswith(b"-"), (line, reply)
        cached.warm("GET", "s")  # its own connection is there now
        yield cached


def test_every_cached_command_has_a_sample() -> None:
    sampled = {line.split()[0].lower() for line in SAMPLES}
    assert set(CACHED + CACHED_EACH) == sampled


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", SAMPLES)
def test_as_the_server_itself(cached: Cached, line: str, protocol: int) -> None:
    direct, client = cached.connect(cached.server.port), cached.open(protocol)
    if protocol == 3:
        direct.cmd("HELLO", 3)
    expected = direct.cmd(*words(line))
    name = line.split()[0]
    hits = 0
    for _ in range(5):
        before = cached.calls("get" if name == "MGET" else name)
        assert client.cmd(*words(line)) == expected
        hits += cached.calls("get" if name == "MGET" else name) == before
    asked_each_time = protocol == 2 and any(word in line for word in TWICE_ASKED)
    assert hits or asked_each_time or expected.startswith(b"-"), "never from the cache"
    for wire in (direct, client):
        wire.close()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", ERRORS)
def test_errors_as_the_server_itself(cached: Cached, line: str, protocol: int) -> None:
    direct, client = cached.connect(cached.server.port), cached.open(protocol)
    for wire in (direct, client) if protocol == 3 else ():
        wire.cmd("HELLO", 3)
    expected = direct.cmd(*words(line))
    assert expected.startswith(b"-")
    assert [client.cmd(*words(line)) for _ in range(3)] == [expected] * 3
    for wire in (direct, client):
        wire.close()


@pytest.mark.one_worker("each worker has a near cache of its own")
@pytest.mark.parametrize("first", [2, 3])
def test_one_value_serves_both_protocols(cached: Cached, first: int) -> None:
    clients = {protocol: cached.open(protocol) for protocol in (2, 3)}
    direct = {protocol: cached.connect(cached.server.port) for protocol in (2, 3)}
    direct[3].cmd("HELLO", 3)
    for line in ("HGETALL h", "SMEMBERS members", "ZSCORE z b", "HGET h missing", "GET s"):
        cached.near.cmd("PEXPIRE", line.split()[1], 10**9)  # drops what is there
        cached.warm(*line.split(), wire=clients[first])
        for protocol in (2, 3):
            got, calls = cached.seen(clients[protocol], *line.split())
            assert got == direct[protocol].cmd(*words(line))
            assert calls == 0
    for wire in (*clients.values(), *direct.values()):
        wire.close()


def test_protocols_change(cached: Cached) -> None:
    """HELLO in the middle of a connection."""
    client = cached.open()
    cached.warm("HGETALL", "h", wire=client)
    assert client.cmd("HGETALL", "h")[:1] == b"*"
    client.cmd("HELLO", 3)
    assert client.cmd("HGETALL", "h")[:1] == b"%"
    client.cmd("HELLO", 2)
    assert client.cmd("HGETALL", "h")[:1] == b"*"


def test_inline_and_mixed_case(cached: Cached) -> None:
    cached.warm("GET", "s")
    before = cached.calls("get")
    cached.near.send(b"GET s\r\nget s\r\ngEt 's'\r\n*2\r\n$3\r\ngeT\r\n$1\r\ns\r\n")
    assert cached.near.read_replies(4) == [b"$5\r\nhello\r\n"] * 4
    assert cached.calls("get") == before


def test_mget_of_what_is_partly_here(cached: Cached) -> None:
    """Also with keys of other types, of which it says nil, and more keys than are served here."""
    names = [f"m{number}" for number in range(300)]
    cached.direct.cmd("MSET", *[word for name in names for word in (name, name)])
    cached.warm("GET", "m1")
    for keys in (["m0", "m1", "missing", "m1"], ["m1", "h", "m2"], names[:128], names):
        expected = cached.direct.cmd("MGET", *keys)
        for _ in range(3):
            assert cached.near.cmd("MGET", *keys) == expected
