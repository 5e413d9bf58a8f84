"""The near cache on a real cluster: a tracked link for each shard, and slots that move.

`LONG` staleness: whatever is seen earlier was told by a push, not by a lease that ran out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.compat.cluster_kinds import KINDS
from tests.harness.admin import checks, is_ready, metric
from tests.harness.cached import RULES
from tests.harness.cluster import Cluster
from tests.harness.process import free_port, wait_until
from tests.harness.server_stats import calls, links
from tests.harness.servers import Sidecar
from tests.harness.warm import warm_sidecar
from tests.harness.wire import Wire

pytestmark = pytest.mark.one_worker("each worker has a near cache of its own")

SHARDS = 3
LONG = {**RULES, "cache.max_staleness": "30s"}
SOON = 2.0
NIL = b"$-1\r\n"


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=SHARDS, replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url, settings=LONG, admin=f"127.0.0.1:{free_port()}") as sidecar:
        yield sidecar


@pytest.fixture
def wire(sidecar: Sidecar) -> Iterator[Wire]:
    with Wire(sidecar.port) as wire:
        yield wire


def executed(cluster: Cluster, command: str) -> int:
    """How often the cluster's nodes have executed a command."""
    return sum(calls(node.port, command) for node in cluster.running)


def warm(cluster: Cluster, wire: Wire, *command: str) -> bytes:
    """Ask until the near cache answers: that answer."""

    def answered() -> bytes:
        before = executed(cluster, command[0])
        reply = wire.cmd(*command)
        return b"" if executed(cluster, command[0]) > before else reply

    return wait_until(answered, f"{command} answered by the cache", 10)


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


def test_every_shard_is_served_from(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """In pipelines that mix what is here and what is not, too; and MGET over all shards."""
    here = [cluster.key(shard, prefix) for prefix in "abcd" for shard in range(SHARDS)]
    away = [cluster.key(shard, prefix) for prefix in "efgh" for shard in range(SHARDS)]
    for name in (*here, *away):
        assert wire.cmd("SET", name, name) == b"+OK\r\n"
    for name in here:
        assert warm(cluster, wire, "GET", name) == bulk(name)
    before = executed(cluster, "get")
    assert wire.pipeline([("GET", name) for name in here]) == [bulk(name) for name in here]
    assert wire.call("MGET", *here) == here
    assert executed(cluster, "get") == before
    assert executed(cluster, "mget") == 0
    mixed = [name for pair in zip(here, away, strict=True) for name in pair]
    for _ in range(3):
        asked = [("GET", name) for name in mixed] + [("INCR", "counter"), ("GET", here[0])]
        replies = wire.pipeline(asked)
        assert replies[: len(mixed)] == [bulk(name) for name in mixed]
        assert replies[-1] == bulk(here[0])
    assert metric(sidecar, "sidecar_cache_hits_total") > 4 * len(here)
    for node in (cluster.shard(number).primary for number in range(SHARDS)):
        with cluster.wire(node) as direct:
            assert len(links(direct, tracked=True)) == 1


def test_a_write_elsewhere_is_told_by_its_shard(cluster: Cluster, wire: Wire) -> None:
    for shard in range(SHARDS):
        name = cluster.key(shard, "elsewhere")
        wire.cmd("SET", name, "old")
        assert warm(cluster, wire, "GET", name) == bulk("old")
        cluster.call(shard, "SET", name, "new")
        wait_until(lambda name=name: wire.cmd("GET", name) == bulk("new"), "the new value", SOON)


def test_own_writes_are_seen(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """Those that are split, and those of other clients of this sidecar, too."""
    names = [cluster.key(shard, "own") for shard in range(SHARDS)]
    with Wire(sidecar.port) as other:
        for round_ in range(5):
            for name in names:
                other.cmd("GET", name)
            wire.cmd("MSET", *(word for name in names for word in (name, f"{round_}")))
            assert other.pipeline([("GET", n) for n in names]) == [bulk(f"{round_}")] * SHARDS
            written = wire.pipeline([w for n in names for w in (("INCR", n), ("GET", n))])
            assert written == [b":%d\r\n" % (round_ + 1), bulk(f"{round_ + 1}")] * SHARDS
            wire.cmd("EVAL", "return redis.call('SET', KEYS[1], 'by script')", 1, names[0])
            assert other.cmd("GET", names[0]) == bulk("by script")
        assert wire.cmd("FLUSHALL") == b"+OK\r\n"
        assert other.pipeline([("GET", name) for name in names]) == [NIL] * SHARDS


@pytest.mark.parametrize("at_once", [False, True], ids=["key by key", "at once"])
def test_a_slot_that_moves_and_comes_back(cluster: Cluster, wire: Wire, at_once: bool) -> None:
    """Nobody asks here meanwhile. Its first owner tells that it has lost the slot, and what was
    read there is of no use any more, although that server has never heard of the write."""
    if at_once and cluster.kind != "valkey":
        pytest.skip("only Valkey moves slots at one moment")
    name = cluster.key(0, f"moves:{at_once}")
    slot = key_slot(name.encode())
    wire.cmd("SET", name, "old")
    assert warm(cluster, wire, "GET", name) == bulk("old")

    def move(to: int) -> None:
        if at_once:
            cluster.migrate_atomically([slot], to)
        else:
            cluster.migrate(slot, to)

    move(1)
    cluster.call(1, "SET", name, "new")
    wait_until(lambda: wire.cmd("GET", name) == bulk("new"), "what the new owner has", SOON)
    assert warm(cluster, wire, "GET", name) == bulk("new")
    move(2)
    cluster.call(2, "SET", name, "newer")
    move(1)
    cluster.settle()
    wait_until(lambda: wire.cmd("GET", name) == bulk("newer"), "the newest value", SOON)
    assert warm(cluster, wire, "GET", name) == bulk("newer")
    move(0)


def test_what_does_not_exist_is_not_kept(cluster: Cluster, sidecar: Sidecar) -> None:
    """While its slot is on its way it may be created at the new owner, and nobody tells the old."""
    name = cluster.key(0, "absent")
    slot = key_slot(name.encode())
    with Wire(sidecar.port) as wire:
        for _ in range(5):
            assert wire.cmd("GET", name) == NIL
        cluster.begin_migration(slot, 1)
        try:
            with cluster.wire(cluster.shard(1).primary) as direct:
                made = direct.pipeline([("ASKING",), ("SET", name, "made")])
            assert made == [b"+OK\r\n"] * 2
            assert wire.cmd("GET", name) == bulk("made")
            assert wire.cmd("SET", name, "mine") == b"+OK\r\n"
            assert wire.cmd("GET", name) == bulk("mine")
        finally:
            cluster.move_keys(slot)
            cluster.end_migration(slot)
            cluster.migrate(slot, 0)


def test_a_write_that_waits(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """MSET cannot be executed before both keys are in one place. What its client reads meanwhile,
    it reads behind that; what others read is kept as it is until then."""
    one, two = "{waits}1", "{waits}2"
    slot = key_slot(one.encode())
    cluster.migrate(slot, 0)
    wire.cmd("MSET", one, "old", two, "old")
    cluster.begin_migration(slot, 1)
    cluster.move_keys(slot, 1)
    here, moved = (two, one) if cluster.call(0, "EXISTS", two) else (one, two)
    with Wire(sidecar.port) as other:
        wire.send_command("MSET", one, "new", two, "new")
        assert warm(cluster, other, "GET", here) == bulk("old")
        wire.send_command("GET", here)
        assert other.cmd("GET", moved) == bulk("old")
        cluster.move_keys(slot)
        cluster.end_migration(slot)
        assert wire.read_replies(2) == [b"+OK\r\n", bulk("new")]
        assert other.call("MGET", one, two) == ["new", "new"]
    cluster.migrate(slot, 0)


def test_a_failover_empties_one_shard_only(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    names = [cluster.key(shard, "failover") for shard in range(SHARDS)]
    for name in names:
        wire.cmd("SET", name, "kept")
        assert warm(cluster, wire, "GET", name) == bulk("kept")
    cluster.failover(0)
    cluster.call(0, "SET", names[0], "new")
    wait_until(lambda: wire.cmd("GET", names[0]) == bulk("new"), "the new value", SOON)
    before = executed(cluster, "get")
    assert wire.pipeline([("GET", name) for name in names[1:]]) == [bulk("kept")] * 2
    assert executed(cluster, "get") == before
    assert warm(cluster, wire, "GET", names[0]) == bulk("new")


def test_a_user_that_may_not_subscribe_has_no_cache(cluster: Cluster, sidecar: Sidecar) -> None:
    """It gets its answers from the servers, and the log says why."""
    name = cluster.key(1, "mute")
    rules = ("on", ">pw", "~*", "resetchannels", "+@all")
    for node in cluster.running:
        cluster.order(node, "ACL", "SETUSER", "mute", *rules)
    try:
        with Wire(sidecar.port) as wire:
            assert wire.cmd("AUTH", "mute", "pw") == b"+OK\r\n"
            wire.cmd("SET", name, "old")

            def refused() -> bool:
                return wire.cmd("GET", name) == bulk("old") and "SSUBSCRIBE" in sidecar.log()

            wait_until(refused, "the log", SOON)
            for value in ("1", "2", "3"):
                cluster.call(1, "SET", name, value)
                assert wire.cmd("GET", name) == bulk(value)
    finally:
        for node in cluster.running:
            cluster.order(node, "ACL", "DELUSER", "mute")


def test_a_server_cut_off_from_the_others_proves_nothing() -> None:
    """It does not serve its keys any more, but answers PING."""
    settings = {**RULES, "failover.hold": "500ms"}
    with Cluster(node_timeout=1000) as cluster, Sidecar(cluster.url, settings=settings) as sidecar:
        name = cluster.key(0, "alone")
        with Wire(sidecar.port) as wire:
            wire.cmd("SET", name, "old")
            assert warm(cluster, wire, "GET", name) == bulk("old")
            alone = cluster.shard(0).primary
            cluster.kill(1)
            cluster.kill(2)
            with cluster.wire(alone) as direct:
                wait_until(lambda: direct.cmd("GET", name).startswith(b"-CLUSTERDOWN"), "alone", 20)
            wait_until(lambda: wire.cmd("GET", name).startswith(b"-"), "an error", SOON)


def test_a_warm_start_of_all_shards(cluster: Cluster, tmp_path: Path) -> None:
    """What one sidecar used, the next has from each shard's server: by its snapshot, by the fleet's
    set, and by SCAN."""
    names = [cluster.key(shard, f"warm:{n}") for n in range(10) for shard in range(SHARDS)]
    snapshot = {"warm.snapshot": str(tmp_path / "snapshot")}
    fleet = {"warm.fleet": "true"}
    settings = {**LONG, **snapshot, **fleet}
    with Sidecar(cluster.url, settings=settings) as first, Wire(first.port) as wire:
        for name in names:
            wire.cmd("SET", name, name)
        for name in names:
            warm(cluster, wire, "GET", name)
        assert first.stop() == 0
    for sources in (snapshot, fleet, {"warm.scan": "warm:*"}):
        with warm_sidecar(cluster.url, sources) as second:
            assert is_ready(second), checks(second)
            assert metric(second, 'sidecar_warmup_keys{state="loaded"}') >= len(names)
            with Wire(second.port) as wire:
                before = executed(cluster, "get")
                replies = wire.pipeline([("GET", name) for name in names])
                assert replies == [bulk(name) for name in names]
                assert executed(cluster, "get") == before
