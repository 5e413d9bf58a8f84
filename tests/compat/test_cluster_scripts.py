"""Scripts on a real cluster: loaded once through the sidecar, they are found at every shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import redis
from redis.crc import key_slot

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=3, replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url) as sidecar:
        yield sidecar


@pytest.fixture
def wire(sidecar: Sidecar) -> Iterator[Wire]:
    with Wire(sidecar.port) as wire:
        yield wire


def digest(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def test_eval_at_one_shard_and_evalsha_at_all(cluster: Cluster, wire: Wire) -> None:
    script = f"{ADD} -- eval"
    names = [cluster.key(shard, "eval") for shard in range(3)]
    wire.pipeline([("SET", name, 0) for name in names])
    wire.call("EVAL", script, 1, names[0], 0)
    for name in names:
        assert wire.call("EVALSHA", digest(script).upper(), 1, name, 5) == 5
    requests = [("INCR", name) for name in names]
    requests += [("EVALSHA", digest(script), 1, name, 2) for name in names]
    assert wire.pipeline(requests) == [b":6\r\n"] * 3 + [b":8\r\n"] * 3


def test_in_a_pipeline(cluster: Cluster, wire: Wire) -> None:
    """Nothing overtakes it. Where a server has forgotten it, its client gets the server's answer if
    there is more for that shard behind it, and the script is there from then on."""
    script = f"{ADD} -- pipeline"
    name, other = cluster.key(1, "pipeline"), cluster.key(0, "pipeline")
    wire.call("SET", name, 0)
    wire.call("EVAL", script, 1, other, 1)
    requests = [("SET", name, 1), ("EVALSHA", digest(script), 1, name, 5)]
    done = [b"+OK\r\n", b":6\r\n"]
    assert wire.pipeline([*requests, ("GET", name)]) == [*done, b"$1\r\n6\r\n"]
    cluster.call(1, "SCRIPT", "FLUSH")
    assert wire.pipeline([*requests, ("GET", other)]) == [*done, b"$1\r\n1\r\n"]
    cluster.call(1, "SCRIPT", "FLUSH")
    ok, refused, found = wire.pipeline([*requests, ("GET", name)])
    assert (ok, refused[:10], found) == (b"+OK\r\n", b"-NOSCRIPT ", b"$1\r\n1\r\n")
    assert wire.pipeline([*requests, ("GET", name)]) == [*done, b"$1\r\n6\r\n"]


def test_read_only(cluster: Cluster, wire: Wire) -> None:
    script = "return redis.call('GET', KEYS[1])"
    names = [cluster.key(shard, "ro") for shard in range(3)]
    wire.call("MSET", *(word for name in names for word in (name, name)))
    wire.call("EVAL_RO", script, 1, names[2])
    assert [wire.call("EVALSHA_RO", digest(script), 1, name) for name in names] == names


def test_without_keys(cluster: Cluster, wire: Wire) -> None:
    wire.call("EVAL", "return 1 + 1", 1, cluster.key(2, "any"))
    assert wire.call("EVALSHA", digest("return 1 + 1"), 0) == 2


def test_what_no_client_has_given(cluster: Cluster, wire: Wire) -> None:
    """Though a shard has it."""
    script = "return 'from elsewhere'"
    cluster.call(0, "SCRIPT", "LOAD", script)
    name = cluster.key(1, "elsewhere")
    assert wire.cmd("EVALSHA", digest(script), 1, name).startswith(b"-NOSCRIPT ")
    assert wire.call("PING") == "PONG"


def test_script_flush_empties_all(cluster: Cluster, wire: Wire) -> None:
    sha = wire.call("SCRIPT", "LOAD", ADD)
    name = cluster.key(1, "flush")
    assert wire.call("EVALSHA", sha, 1, name, 3) == 3
    assert wire.call("SCRIPT", "FLUSH") == "OK"
    assert wire.cmd("EVALSHA", sha, 1, name, 3).startswith(b"-NOSCRIPT ")
    assert wire.call("GET", name) == "3"


def test_after_a_failover(cluster: Cluster, wire: Wire) -> None:
    """Replicas have no scripts."""
    sha = wire.call("SCRIPT", "LOAD", f"{ADD} -- failover")
    name = cluster.key(2, "failover")
    wire.call("SET", name, 0)
    cluster.failover(2)
    assert wire.call("EVALSHA", sha, 1, name, 4, deadline=20) == 4
    assert wire.call("GET", name) == "4"


@pytest.mark.one_worker("each worker knows the scripts of its own clients")
def test_at_a_new_shard(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """With a client that loads its script once."""
    client = redis.Redis(port=sidecar.port)
    add = client.register_script(f"{ADD} -- new")
    name = cluster.key(1, "new")
    assert add(keys=[name], args=[1]) == 1
    slot = key_slot(name.encode())
    new = cluster.add_shard()
    cluster.migrate(slot, new.number)
    cluster.settle()
    assert wire.call("EVALSHA", add.sha, 1, name, 1) == 2
    assert cluster.call(new.number, "GET", name) == "2"
    cluster.migrate(slot, 1)
    cluster.remove_shard(new.number)
    assert wire.call("EVALSHA", add.sha, 1, name, 1) == 3
    client.close()


def test_a_user_who_may_not_load(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """The server judges."""
    script = "return 'allowed'"
    wire.call("EVAL", script, 1, cluster.key(0, "acl"))
    rules = ("on", ">secret", "~*", "+@all", "-script")
    for node in cluster.nodes:
        cluster.order(node, "ACL", "SETUSER", "runner", *rules)
    with Wire(sidecar.port) as other:
        other.call("AUTH", "runner", "secret")
        assert other.call("EVALSHA", digest(script), 1, cluster.key(0, "acl")) == "allowed"
        name = cluster.key(1, "acl")
        assert other.cmd("EVALSHA", digest(script), 1, name).startswith(b"-NOSCRIPT ")
        assert wire.call("EVALSHA", digest(script), 1, name) == "allowed"
        assert other.call("EVALSHA", digest(script), 1, name) == "allowed"
