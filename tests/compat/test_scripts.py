"""EVAL, EVALSHA, functions, and iteration with SCAN and its relatives."""

from __future__ import annotations

import hashlib

import pytest

from tests.harness.pair import Pair, Session, pipeline
from tests.harness.process import wait_until
from tests.harness.wire import pack

LIBRARY = """#!lua name=lib
redis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)
redis.register_function{function_name='look', flags={'no-writes'},
  callback=function(keys) return redis.call('GET', keys[1]) end}
"""

SCRIPTS = [
    ("return 1", 0),
    ("return redis.call('SET', KEYS[1], ARGV[1])", 1, "k", "v"),
    ("return redis.call('GET', KEYS[1])", 1, "k"),
    ("return {1, 2, {3, 'four'}, false, true, 3.99}", 0),
    ("return {KEYS, ARGV}", 2, "a", "b", "c", "d"),
    ("return redis.error_reply('MY error')", 0),
    ("return redis.status_reply('MY status')", 0),
    ("return redis.call('INCR', KEYS[1])", 1, "k"),
    ("return redis.pcall('INCR', KEYS[1])", 1, "k"),
    ("return redis.call('NOSUCH')", 0),
    ("this is no lua", 0),
    ("error('thrown')", 0),
    ("redis.setresp(3); return redis.call('HGETALL', KEYS[1])", 1, "h"),
    ("return {map={a=1}}", 0),
    ("return {double=1.5}", 0),
    ("return string.rep('x', 100000)", 0),
    ("return redis.call('SELECT', 3)", 0),
    ("return redis.sha1hex('x')", 0),
    ("return 1", "x"),
    ("return 1", -1),
    ("return 1", 5, "a"),
    ("#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)", 1, "k"),
]


@pytest.mark.parametrize("protocol", [2, 3])
def test_eval(pair: Pair, protocol: int) -> None:
    """Every kind of value and error a script may return, by text, by digest, read-only."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.run("HSET h f v")
        for text, *rest in SCRIPTS:
            digest = hashlib.sha1(str(text).encode()).hexdigest()
            client.cmd("EVALSHA", digest, *rest)
            client.cmd("EVAL", text, *rest)
            client.cmd("EVALSHA", digest.upper(), *rest)
            client.cmd("EVAL_RO", text, *rest)
            client.cmd("EVALSHA_RO", digest, *rest)
            client.cmd("SCRIPT", "EXISTS", digest)
        client.run("GET k", "SCRIPT LOAD return(2)", "SCRIPT EXISTS a b", "SCRIPT FLUSH BOGUS")
        client.run("SCRIPT FLUSH", "SCRIPT KILL", "EVALSHA x 0", "EVALSHA", "PING")

    pair.same(script)


def test_scripts_are_shared_between_clients(pair: Pair) -> None:
    """What one client loads another may run; a flush ends that for both."""

    def script(session: Session) -> None:
        one, two = session.open(), session.open()
        digest = one.cmd("SCRIPT", "LOAD", "return ARGV[1]").split(b"\r\n")[1]
        two.cmd("EVALSHA", digest, 0, "hello")
        one.run("SCRIPT FLUSH")
        two.cmd("EVALSHA", digest, 0, "hello")

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
def test_functions(pair: Pair, protocol: int) -> None:
    """FUNCTION LOAD, FCALL, FCALL_RO, DUMP and RESTORE."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.cmd("FUNCTION", "LOAD", LIBRARY)
        client.cmd("FUNCTION", "LOAD", LIBRARY)
        client.cmd("FUNCTION", "LOAD", "REPLACE", LIBRARY)
        client.cmd("FUNCTION", "LOAD", "no library")
        client.run("FCALL put 1 k v", "FCALL look 1 k", "FCALL_RO look 1 k", "FCALL_RO put 1 k v")
        client.run("FCALL nosuch 0", "FCALL put", "FCALL put x", "FCALL put 3 a")
        dump = client.cmd("FUNCTION", "DUMP").split(b"\r\n", 1)[1][:-2]
        client.run("FUNCTION DELETE lib", "FUNCTION DELETE lib", "FCALL look 1 k")
        client.cmd("FUNCTION", "RESTORE", dump)
        client.cmd("FUNCTION", "RESTORE", dump)
        client.run("FCALL look 1 k", "FUNCTION STATS", "FUNCTION KILL", "FUNCTION NOSUCH")
        client.run("FUNCTION FLUSH", "FUNCTION LIST")

    pair.same(script)


def test_slow_script_of_one_client(pair: Pair) -> None:
    """Others wait for the server as they would directly, and get their own replies."""
    spin = "local n = 0 for i = 1, 3000000 do n = n + i % 7 end return ARGV[1]"

    def script(session: Session) -> None:
        slow, other = session.open(), session.open()
        slow.send(pack("EVAL", spin, 0, "slow") + pack("ECHO", "behind slow"))
        other.send(b"".join(pack("ECHO", f"other {n}") for n in range(100)))
        slow.read(2)
        other.read(100)

    pair.same(script)


def _fill(pair: Pair) -> None:
    """Something to iterate over, on the server behind the sidecar."""

    def script(session: Session) -> None:
        client = session.open()
        for kind, add in (("s", "SADD s {}"), ("h", "HSET h {} v"), ("z", "ZADD z 1 {}")):
            client.send(pipeline(add.format(f"{kind}{n}") for n in range(700)))
            client.wire.read_replies(700)
        client.send(pipeline(f"SET key:{n} {n}" for n in range(1500)))
        client.wire.read_replies(1500)
        client.run("DBSIZE")

    pair.play(script, pair.sidecar.port, pair.behind)


def _iterate(session: Session, *command: str, options: tuple[str, ...] = ()) -> None:
    """Follow the cursor to its end."""
    client = session.open()
    cursor = b"0"
    for _ in range(1000):
        reply = client.cmd(*command, cursor, *options)
        cursor = reply.split(b"\r\n")[2]
        if cursor == b"0":
            return
    raise AssertionError("the cursor does not end")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("SCAN",), ("COUNT", "50")),
        (("SCAN",), ("MATCH", "key:1*", "COUNT", "100")),
        (("SCAN",), ("TYPE", "hash", "COUNT", "500")),
        (("SSCAN", "s"), ("COUNT", "20")),
        (("HSCAN", "h"), ("COUNT", "20")),
        (("ZSCAN", "z"), ("COUNT", "20")),
    ],
)
def test_iteration(valkey_pair: Pair, command: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Each step of an iteration is what the same server says directly."""
    pair = valkey_pair
    _fill(pair)

    def script(session: Session) -> None:
        _iterate(session, *command, options=options)

    def direct() -> object:
        return pair.play(script, pair.behind.port, pair.behind)

    wait_until(lambda: direct() == direct(), "the tables at rest")
    record = pair.same_server(script)
    assert len(record) > 4


def test_iteration_errors(pair: Pair) -> None:
    """Cursors and options that make no sense."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("SCAN", "SCAN x", "SCAN 0 COUNT x", "SCAN 0 COUNT 0", "SCAN 0 BOGUS 1", "SCAN 0")
        client.run("SCAN 0 TYPE", "SET str v", "HSCAN str 0", "SSCAN missing 0", "ZSCAN z")

    pair.same(script)


def test_sort_and_migrate_style_keys(pair: Pair) -> None:
    """SORT with BY, GET and STORE; keys that are not the first argument."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("RPUSH ids 3 1 2", "MSET w1 30 w2 20 w3 10 o1 a o2 b o3 c")
        client.run("SORT ids", "SORT ids BY w*", "SORT ids BY w* GET o* GET #", "SORT ids DESC")
        client.run("SORT ids BY w* STORE out", "LRANGE out 0 -1", "SORT ids GET o* STORE out")
        client.run("LRANGE out 0 -1", "SORT ids LIMIT 0 1 ALPHA", "SORT missing STORE out")
        client.run("EXISTS out", "ZADD z1 1 a", "ZADD z2 2 a", "ZUNIONSTORE z 2 z1 z2")
        client.run("OBJECT ENCODING z", "ZRANGE z 0 -1 WITHSCORES", "XREAD STREAMS x y 0 0")
        client.run("MIGRATE 127.0.0.1 1 k 0 10", "MEMORY USAGE ids SAMPLES 0")

    pair.same(script)
