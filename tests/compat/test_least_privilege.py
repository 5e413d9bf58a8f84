"""The sidecar with exactly the rights that docs/identities.md says it needs, and no others.

The rules are read from that page. Each run ends with a look at the server: nothing was refused to
the sidecar's user, and every command of the list was used.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.admin import api, checks, metrics
from tests.harness.cluster import Cluster
from tests.harness.identities import entry, judging, users
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster as Sentinels
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, call

PAGE = (Path(__file__).parents[2] / "docs/identities.md").read_text()
RULES = {
    words.strip(): rules.replace("\\|", "|").split()
    for words, rules in re.findall(r"^\| ([^|`]*(?:`[^`]*`[^|`]*)?) \| `([^`]*)` \|$", PAGE, re.M)
}
ALWAYS, CLUSTER = RULES["always"], RULES["a cluster"]
CACHE = RULES["the near cache"]
CACHE_ON_CLUSTER = [r.replace("NAME", "sidecar") for r in RULES["the near cache on a cluster"]]
EVERY = RULES["every user"]
WAIT = RULES["`WAIT` of clients"]
FLEET = RULES["`warm.fleet` (the sidecar's own user)"]
SCAN = RULES["`warm.scan` (likewise)"]
# What the test's own clients do as the sidecar's user.
OURS = ["~app:*", "+get", "+set"]
CACHED = {"cache.mode": "rules", "cache.rules": "*"}


def make(server: Server, *rules: str) -> None:
    """Make the sidecar's user, and forget what was refused and counted before."""
    call(server.port, "ACL", "SETUSER", "sidecar", "reset", "on", ">pw", *rules)
    call(server.port, "ACL", "LOG", "RESET")
    call(server.port, "CONFIG", "RESETSTAT")


def refused(*servers: Server) -> set[str]:
    """What was refused to anybody at these servers."""
    rows = [row for server in servers for row in call(server.port, "ACL", "LOG", "1000")]
    return {dict(zip(row[::2], row[1::2], strict=True))["object"] for row in rows}


def unused(rules: list[str], *servers: Server) -> set[str]:
    """The commands of these rules that no server has counted. ASKING is needed while a slot moves
    only, which tests of clusters are about."""
    stats = "".join(call(server.port, "INFO", "commandstats") for server in servers)
    names = [rule[1:] for rule in rules if rule[0] == "+" and rule != "+asking"]
    # COMMAND COUNT is a subcommand of its own to the statistics, and not to rules.
    return {name for name in names if not re.search(rf"cmdstat_{re.escape(name)}[:|]", stats)}


def start(url: str, **more: str) -> Sidecar:
    settings = {name.replace("__", "."): value for name, value in more.items()}
    return Sidecar(
        url.replace("://", "://sidecar:pw@"), admin=f"127.0.0.1:{free_port()}", settings=settings
    )


def healthy(sidecar: Sidecar) -> None:
    """The page has all that it shows of the server, and nothing was refused in the log."""
    wait_until(lambda: api(sidecar, "/api/health/redis")["status"] == "ok", "health")
    assert api(sidecar, "/api/health/redis")["server"]["version"]
    wait_until(lambda: all(checks(sidecar).values()), "readiness")
    assert "NOPERM" not in sidecar.log()


def hits(sidecar: Sidecar) -> float:
    return metrics(sidecar).get("sidecar_cache_hits_total", 0.0)


def test_the_page_has_the_rules() -> None:
    assert {"always", "a cluster", "the near cache"} <= RULES.keys()
    assert "+ping" in ALWAYS


def test_cache_warm_start_and_page(tmp_path: Path) -> None:
    with valkey() as server:
        call(server.port, "CONFIG", "SET", "maxmemory", "100mb")
        call(server.port, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        call(server.port, "SET", "app:k", "v")
        rules = [*ALWAYS, *CACHE, *WAIT, *FLEET, *SCAN]
        make(server, *rules, *OURS, "+wait")
        call(server.port, "SET", "app:scanned", "v")
        more = {"cache__mode": "rules", "cache__rules": "*", "warm__fleet": "true",
                "warm__scan": "app:*", "warm__interval": "1s",
                "warm__snapshot": str(tmp_path / "warm")}  # fmt: skip
        with start(server.url, **more) as sidecar:
            with Wire(sidecar.port) as wire:
                assert wire.cmd("SET", "app:k", "v") == b"+OK\r\n"
                assert wire.cmd("WAIT", 0, 10) == b":0\r\n"
                wait_until(
                    lambda: wire.cmd("GET", "app:k") == b"$1\r\nv\r\n" and hits(sidecar) > 5, "hits"
                )
                healthy(sidecar)
            wait_until(lambda: call(server.port, "EXISTS", "__redis-sidecar__:warm") == 1, "names")
            wait_until(lambda: not unused(["+touch"], server), "a key in use to be named")
            sidecar.restart()
            healthy(sidecar)
        assert refused(server) == set()
        assert unused([*rules, "+wait"], server) == set()


def test_nothing_but_its_own_links(tmp_path: Path) -> None:
    """Every identity acts as another user: the sidecar's own has no keys, and reads none."""
    with valkey() as server:
        make(server, *ALWAYS)
        users(server, "shop", rules="~app:* +get +set " + " ".join(EVERY + CACHE))
        text = entry("shop", "pw", user="shop", password="shop-upstream")
        settings = judging(tmp_path / "identities.toml", text) | CACHED
        url = server.url.replace("://", "://sidecar:pw@")
        admin = f"127.0.0.1:{free_port()}"
        with Sidecar(url, admin=admin, settings=settings) as sidecar, Wire(sidecar.port) as wire:
            assert wire.cmd("AUTH", "shop", "pw") == b"+OK\r\n"
            assert wire.cmd("SET", "app:k", "v") == b"+OK\r\n"
            wait_until(
                lambda: wire.cmd("GET", "app:k") == b"$1\r\nv\r\n" and hits(sidecar) > 5, "hits"
            )
            healthy(sidecar)
        assert refused(server) == set()
        assert unused(ALWAYS, server) == set()


def test_a_failover() -> None:
    with Sentinels() as cluster:
        for node in cluster.nodes:
            make(node, *ALWAYS, *CACHE, *OURS)
        with start(cluster.url, cache__mode="rules", cache__rules="*") as sidecar:
            with Wire(sidecar.port, deadline=20) as wire:
                assert wire.cmd("SET", "app:k", "v") == b"+OK\r\n"
                before = cluster.current_master()
                cluster.failover()
                wait_until(lambda: cluster.current_master() != before, "another master")
                wait_until(lambda: "master followed" in sidecar.log(), "the sidecar to follow")
                assert wire.cmd("SET", "app:k", "w") == b"+OK\r\n"
                assert wire.cmd("GET", "app:k") == b"$1\r\nw\r\n"
            healthy(sidecar)
        assert refused(*cluster.nodes) == set()


def test_a_cluster() -> None:
    with Cluster(shards=2) as cluster:
        nodes = [cluster.shard(number).primary for number in range(2)]
        rules = [*ALWAYS, *CLUSTER, *CACHE, *CACHE_ON_CLUSTER]
        for node in nodes:
            make(node, *rules, *OURS)
        with start(cluster.url, cache__mode="rules", cache__rules="*") as sidecar:
            with Wire(sidecar.port) as wire:
                names = [f"app:{n}" for n in range(20)]
                assert set(wire.pipeline([("SET", name, "v") for name in names])) == {b"+OK\r\n"}
                wait_until(
                    lambda: wire.cmd("GET", names[0]) == b"$1\r\nv\r\n" and hits(sidecar) > 5,
                    "hits",
                )
            healthy(sidecar)
        assert refused(*nodes) == set()
        assert unused([rule for rule in rules if rule != "+touch"], *nodes) == set()


@pytest.mark.parametrize("rule", [each for each in ALWAYS if each != "+command"])
def test_each_of_them_is_missed(rule: str) -> None:
    """Without it something is refused; the sidecar serves all the same."""
    with valkey() as server:
        make(server, *(each for each in ALWAYS if each != rule), *OURS)
        with start(server.url, cache__mode="off") as sidecar, Wire(sidecar.port) as wire:
            assert wire.cmd("SET", "app:k", "v") == b"+OK\r\n"
            wait_until(lambda: rule[1:] in refused(server), f"{rule} to be missed")
