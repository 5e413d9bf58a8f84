"""Rules for commands without keys, held against real servers: their own hints, and what a single
server with the same data answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sidecar.policy.fan_out import RULES, Where, rule_of
from sidecar.policy.merging import elements, merge
from sidecar.policy.merging_info import as_standalone
from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import SLOTS, Cluster
from tests.harness.process import wait_until
from tests.harness.programs import server_binary
from tests.harness.resp import Arg, Refused
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire

KEYS = 40
CHANNELS = ("c1", "c2", "c3")

# Where servers' hints are not followed; why is said in the table.
OVERRIDDEN = {
    "ping", "randomkey", "scan", "client|setinfo", "client|setname", "cluster|slot-stats",
    "slowlog|get", "commandlog|get", "latency|reset",
}  # fmt: skip


class Sides:
    """A cluster and a single server that hold the same."""

    def __init__(self, cluster: Cluster, single: Server, protocol: int) -> None:
        self.shards = [cluster.wire(shard.primary) for shard in cluster.shards]
        self.single = Wire(single.port)
        for wire in (*self.shards, self.single):
            wire.call("HELLO", protocol)

    def merged(self, *args: Arg) -> bytes:
        """What a client of the cluster gets."""
        words = [str(word) for word in args]
        rule = rule_of(words[0].lower(), words[1].lower() if len(words) > 1 else "")
        assert rule.where is Where.ALL, args
        replies = [wire.cmd(*args) for wire in self.shards]
        return merge(rule.merge, replies, [word.encode() for word in words])

    def both(self, *args: Arg) -> tuple[bytes, bytes]:
        """What a client of the cluster gets, and one of a single server."""
        return self.merged(*args), self.single.cmd(*args)

    def close(self) -> None:
        for wire in (*self.shards, self.single):
            wire.close()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(kind: str) -> Iterator[Cluster]:
    with Cluster(kind, settings={"slowlog-log-slower-than": 0}) as cluster:
        for count in range(KEYS):
            name = f"key{count}"
            cluster.call(cluster.owner(name), "SET", name, count, "EX", 10_000 + count)
        yield cluster


@pytest.fixture(scope="module")
def single(kind: str) -> Iterator[Server]:
    settings = {"slowlog-log-slower-than": 0}
    with (
        Server(server_binary(kind), kind, settings=settings) as server,
        Wire(server.port) as wire,
    ):
        for count in range(KEYS):
            wire.call("SET", f"key{count}", count, "EX", 10_000 + count)
        yield server


@pytest.fixture(params=[2, 3])
def sides(request: pytest.FixtureRequest, cluster: Cluster, single: Server) -> Iterator[Sides]:
    sides = Sides(cluster, single, request.param)
    yield sides
    sides.close()


def described(server: Server) -> Iterator[tuple[str, list[str], bool]]:
    """Each command and subcommand: its name, its hints, whether it names keys."""

    def each(row: Sequence[Any]) -> Iterator[tuple[str, list[str], bool]]:
        yield row[0], row[7], bool(row[3] or row[8])
        for inner in row[9]:
            yield from each(inner)

    with Wire(server.port) as wire:
        for row in wire.call("COMMAND"):
            yield from each(row)


def test_every_command_without_keys_has_a_rule(single: Server) -> None:
    """Each by its own name: no subcommand has what its command has by chance."""
    missing = [name for name, _, keyed in described(single) if not keyed and name not in RULES]
    assert missing == []


def test_hints_are_followed_but_for_those_that_are_named(single: Server) -> None:
    for name, hints, keyed in described(single):
        told = rule_of(f"unknown {name}", "", hints)
        if keyed or told.where is Where.ANY or name in OVERRIDDEN:
            continue
        if "response_policy:special" in hints:
            assert RULES[name].where is Where.ALL, name
        else:
            assert RULES[name] == told, name


@pytest.mark.parametrize(
    "args",
    [
        ("DBSIZE",),
        ("SCRIPT", "EXISTS", "0" * 40),
        ("SCRIPT", "LOAD", "return 1"),
        ("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0" * 40),
        ("SCRIPT", "KILL"),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"),
        ("FUNCTION", "LOAD", "REPLACE", "#!lua name=l\nnonsense"),
        ("FUNCTION", "STATS"),
        ("FUNCTION", "DELETE", "l"),
        ("FUNCTION", "KILL"),
        ("CONFIG", "SET", "maxmemory-samples", 7),
        ("CONFIG", "SET", "nonsense", 7),
        ("CONFIG", "RESETSTAT"),
        ("MEMORY", "PURGE"),
        ("ACL", "SETUSER", "u", "on"),
        ("ACL", "DELUSER", "u"),
        ("ACL", "LOG", "RESET"),
        ("ACL", "LOG"),
        ("SLOWLOG", "RESET"),
        ("LATENCY", "RESET"),
        ("LATENCY", "LATEST"),
        ("LATENCY", "HISTORY", "command"),
        ("LATENCY", "GRAPH", "nothing"),
        ("PUBSUB", "CHANNELS"),
        ("PUBSUB", "NUMPAT"),
        ("PUBSUB", "NUMSUB"),
        ("PUBSUB", "NUMSUB", "a", "b"),
        ("PUBSUB", "SHARDNUMSUB", "a"),
        ("KEYS", "nothing"),
        ("KEYS",),
        ("WAIT", 0, 0),
        ("DEBUG", "DIGEST"),
        ("DEBUG", "SET-ACTIVE-EXPIRE", 1),
    ],
    ids=lambda args: " ".join(map(str, args))[:30],
)
def test_as_one_server_says_it(sides: Sides, args: tuple[Arg, ...]) -> None:
    merged, direct = sides.both(*args)
    assert merged == direct


def test_all_keys(sides: Sides) -> None:
    merged, direct = sides.both("KEYS", "key1*")
    assert merged[:1] == direct[:1]
    assert sorted(elements(merged)) == sorted(elements(direct))
    assert len(elements(merged)) == 11


def test_subscribers(sides: Sides, cluster: Cluster, single: Server) -> None:
    """One at each shard, and all of them at the single server."""
    wires = []
    for number, shard in enumerate(cluster.shards):
        wires += [Wire(shard.primary.port), Wire(single.port)]
        for wire in wires[-2:]:
            wire.cmd("SUBSCRIBE", "c1", *CHANNELS[1 : number + 1])
            wire.cmd("PSUBSCRIBE", f"p{number}")
    try:
        for args in [("NUMSUB", *CHANNELS, "none"), ("NUMPAT",)]:
            merged, direct = sides.both("PUBSUB", *args)
            assert merged == direct
        merged, direct = sides.both("PUBSUB", "CHANNELS")
        assert sorted(elements(merged)) == sorted(elements(direct))
        assert merged[:4] == direct[:4]
    finally:
        for wire in wires:
            wire.close()


def test_logs(sides: Sides) -> None:
    for wire in (*sides.shards, sides.single):
        wire.call("SLOWLOG", "RESET")
        for count in range(6):
            wire.cmd("PING", count)
    assert len(elements(sides.merged("SLOWLOG", "GET"))) == 10
    assert len(elements(sides.merged("SLOWLOG", "GET", 3))) == 3
    everything = elements(sides.merged("SLOWLOG", "GET", -1))
    times = [int(elements(entry)[1][1:-2]) for entry in everything]
    assert times == sorted(times, reverse=True)
    assert len(everything) == sum(
        len(elements(w.cmd("SLOWLOG", "GET", -1))) - 1 for w in sides.shards
    )


def shape(reply: bytes) -> Any:
    """Kinds of what stands in a reply; names of maps as they are."""
    if reply[:1] not in b"*%~":
        return reply[:1]
    parts = elements(reply)
    if len(parts) % 2 == 0 and all(part[:1] in b"$+" for part in parts[::2]):
        return reply[:1], {n: shape(v) for n, v in zip(parts[::2], parts[1::2], strict=True)}
    return reply[:1], [shape(part) for part in parts[:1]]


def test_histograms_and_memory_have_the_shape_of_one_server(sides: Sides) -> None:
    for wire in (*sides.shards, sides.single):
        wire.cmd("CONFIG", "RESETSTAT")
        wire.cmd("ECHO", "x")
    merged, direct = sides.both("LATENCY", "HISTOGRAM", "echo")
    assert shape(merged) == shape(direct)
    merged, direct = sides.both("MEMORY", "STATS")
    of_cluster, of_single = shape(merged), shape(direct)
    assert of_cluster[0] == of_single[0]
    assert of_cluster[1] == of_single[1]
    for args in [("MEMORY", "DOCTOR"), ("LATENCY", "DOCTOR"), ("MEMORY", "MALLOC-STATS")]:
        merged, direct = sides.both(*args)
        assert merged[:1] == direct[:1]


def test_info(sides: Sides) -> None:
    """The fields of one server, in its order, and its keys."""
    for section in ((), ("keyspace",), ("everything",)):
        merged, direct = sides.both("INFO", *section)
        assert merged[:1] == direct[:1]
        shown = as_standalone(merged)
        ours, theirs = fields(shown), fields(direct)
        assert [f for f in ours if f in theirs] == [f for f in theirs if f in ours]
        assert theirs.keys() - ours.keys() == set()
        if b"cluster_enabled" in theirs:
            assert ours[b"cluster_enabled"] == theirs[b"cluster_enabled"] == b"0"
        if b"db0" in theirs:
            keys = b"keys=%d,expires=%d," % (KEYS, KEYS)
            assert ours[b"db0"].startswith(keys)
            assert theirs[b"db0"].startswith(keys)


def fields(reply: bytes) -> dict[bytes, bytes]:
    rows = [line.partition(b":") for line in reply.split(b"\r\n") if b":" in line]
    other = (b"latency_", b"txt", b"cmdstat_", b"errorstat_")  # of what either has been asked
    return {name: value for name, _, value in rows if not name.startswith(other)}


def test_saved_at(sides: Sides) -> None:
    times = [wire.call("LASTSAVE") for wire in sides.shards]
    assert sides.merged("LASTSAVE") == b":%d\r\n" % min(times)


def test_a_script_that_runs_is_found_and_killed(sides: Sides, cluster: Cluster) -> None:
    """At one shard; the others have nothing to kill."""
    busy = sides.shards[1]
    busy.cmd("CONFIG", "SET", "lua-time-limit", 1)
    with Wire(cluster.shards[1].primary.port) as caller:
        caller.send_command("EVAL", "while true do end", 0)
        try:
            wait_until(lambda: isinstance(busy.ask("PING"), Refused), "the script runs")
            assert sides.merged("SCRIPT", "KILL") == b"+OK\r\n"
        finally:
            busy.cmd("SCRIPT", "KILL")
        assert b"kill" in caller.read_reply().lower()


@pytest.fixture(scope="module")
def small() -> Iterator[Wire]:
    """A cluster with few keys, which may be debugged, and a client of the sidecar before it."""
    settings = {"enable-debug-command": "yes"}
    with Cluster(settings=settings) as own, Sidecar(own.url) as sidecar, Wire(sidecar.port) as wire:
        yield wire


SMALL = [f"small:{n}" for n in range(9)]


def test_debugging_commands(small: Wire) -> None:
    """DEBUG of a key goes to its shard; what changes a server changes all."""
    for name in SMALL:
        small.cmd("SET", name, 1, "PX", 1)
        small.cmd("SET", f"{name}:lasts", 1)
        assert small.cmd("DEBUG", "OBJECT", f"{name}:lasts").startswith(b"+Value at:")
    wait_until(lambda: small.call("DBSIZE") == len(SMALL), "keys expire", 10)
    assert small.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 0) == b"+OK\r\n"
    for name in SMALL:
        small.cmd("SET", name, 1, "PX", 1)
    assert small.call("DEBUG", "SLEEP", 0.2) == "OK"
    assert small.call("DBSIZE") == 2 * len(SMALL)
    assert small.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 1) == b"+OK\r\n"
    wait_until(lambda: small.call("DBSIZE") == len(SMALL), "keys expire", 10)


def test_scan_where_slots_are_all_mixed_up() -> None:
    """Each shard has hundreds of ranges: what it has said of one counts for the next ones."""
    with Cluster() as own, Sidecar(own.url) as sidecar, Wire(sidecar.port) as wire:
        for shard in range(3):
            own.migrate_atomically(range(shard * 20, SLOTS, 60), shard)
        names = {f"mixed:{n}" for n in range(500)}
        wire.pipeline([("SET", name, 1) for name in names])
        cursor, found = "0", set[str]()
        while cursor != "0" or not found:
            cursor, some = wire.call("SCAN", cursor, "COUNT", 50)
            found.update(some)
        assert found == names
        asked = [own.call(shard, "INFO", "commandstats") for shard in range(3)]
        calls = sum(int(re.findall(r"cmdstat_scan:calls=(\d+)", each)[0]) for each in asked)
        assert calls < 100


def test_scan_of_a_few_keys_takes_one_call(small: Wire) -> None:
    small.cmd("FLUSHALL")
    for name in SMALL:
        small.cmd("SET", name, 1)
    for words in ((), ("COUNT", 100), ("MATCH", "small:*")):
        cursor, found = small.call("SCAN", 0, *words)
        assert (cursor, sorted(found)) == ("0", SMALL)
    cursor, found = small.call("SCAN", 0, "COUNT", 1)
    assert cursor != "0"
    assert len(found) < len(SMALL)
