"""Keys that are served from the near cache stay in use at a server that evicts by use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.admin import metrics
from tests.harness.cached import Cached
from tests.harness.farm import BINARIES
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, valkey
from tests.harness.wire import Wire

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that evicts by LRU; LFU counts every access."""
    options = {"maxmemory": "512mb", "maxmemory-policy": "allkeys-lru", "lfu-log-factor": "0"}
    with BINARIES[request.param](options) as server:
        yield server


def watched(server: Server) -> Cached:
    """A sidecar whose counters can be read."""
    return Cached(server, admin=f"127.0.0.1:{free_port()}")


def touched(monitor: Wire, *, until: bytes) -> list[bytes]:
    """The lines of MONITOR that are TOUCHes, up to the first that names this key."""
    lines: list[bytes] = []
    while not lines or b'"%s"' % until not in lines[-1]:
        line = monitor.read_reply()
        if b'"TOUCH"' in line:
            lines.append(line)
    return lines


def test_what_is_served_is_touched_in_its_database(server: Server) -> None:
    """Whatever reads it, each key is named in the database it is in."""
    with watched(server) as cached, Wire(server.port) as monitor:
        client = cached.open(3)
        for command in (("SELECT", 9), ("SET", "text", "v"), ("SET", "many", "v")):
            client.cmd(*command)
        client.cmd("HSET", "hash", "field", "v")
        monitor.cmd("MONITOR")
        for command, key in (
            (("GET", "text"), b"text"),
            (("MGET", "many"), b"many"),
            (("HGET", "hash", "field"), b"hash"),
        ):
            cached.warm(*command, wire=client)
            client.cmd(*command)
            lines = touched(monitor, until=key)
            assert all(b" [9 " in line for line in lines)
        wait_until(
            lambda: metrics(cached.sidecar)["sidecar_cache_touched_keys_total"] >= 3, "count"
        )


def test_lfu_learns_how_often(server: Server) -> None:
    """A key that is served often has a higher count than one that was served once."""
    with watched(server) as cached:
        cached.near.cmd("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
        for key in ("often", "rare"):
            cached.near.cmd("SET", key, "v")
            cached.warm("GET", key)

        def more() -> bool:
            for _ in range(20):
                cached.near.cmd("GET", "often")
            often, rare = (cached.direct.ask("OBJECT", "FREQ", key) for key in ("often", "rare"))
            return int(often) >= int(rare) + 20

        wait_until(more, "the difference")


def test_a_policy_that_does_not_need_it() -> None:
    """Nothing is sent while the server evicts by something else; it is once the policy changes."""
    options = {"maxmemory": "512mb", "maxmemory-policy": "volatile-ttl"}
    with valkey(options) as server, watched(server) as cached, Wire(server.port) as monitor:
        for key in ("before", "after"):
            cached.near.cmd("SET", key, "v")
        monitor.cmd("MONITOR")
        cached.warm("GET", "before")
        cached.near.cmd("GET", "before")
        cached.near.cmd("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        cached.warm("GET", "after")

        def again() -> bool:
            cached.near.cmd("GET", "after")
            return metrics(cached.sidecar)["sidecar_cache_touched_keys_total"] > 0

        wait_until(again, "TOUCH")
        assert b'"before"' not in b"".join(touched(monitor, until=b"after"))


def test_a_user_who_may_not_touch(server: Server) -> None:
    """The cache works all the same, and the server is asked once."""
    with watched(server) as cached:
        cached.direct.cmd("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-touch")
        client = cached.open()
        assert client.cmd("AUTH", "bob", "pw") == b"+OK\r\n"
        client.cmd("SET", "k", "v")
        cached.warm("GET", "k", wire=client)

        def refused() -> int:
            client.cmd("GET", "k")
            stats = str(cached.direct.ask("INFO", "commandstats"))
            line = next((one for one in stats.splitlines() if "cmdstat_touch:" in one), "")
            return int(line.partition("rejected_calls=")[2].partition(",")[0] or 0)

        wait_until(refused, "a refusal")
        seen = metrics(cached.sidecar)["sidecar_cache_touched_keys_total"]
        cached.near.cmd("SET", "other", "v")
        cached.warm("GET", "other")

        def another() -> bool:
            cached.near.cmd("GET", "other")
            return metrics(cached.sidecar)["sidecar_cache_touched_keys_total"] > seen

        wait_until(another, "the default user's key is named")
        assert refused() == 1
        assert cached.seen(client, "GET", "k") == (b"$1\r\nv\r\n", 0)
