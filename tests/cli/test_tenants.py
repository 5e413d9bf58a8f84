"""`sidecar tenants` at real servers: what is made, what is left alone, and what is proven."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_show_certs import cli
from tests.harness.admin import metrics
from tests.harness.cluster import Cluster
from tests.harness.identities import entry
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster as Sentinels
from tests.harness.servers import HAVE_REDIS7, HAVE_REDIS8, Server, Sidecar, redis7, redis8, valkey
from tests.harness.wire import Wire, call

MAKERS: dict[str, Callable[..., Server]] = {"valkey": valkey}
MAKERS |= {"redis7": redis7} if HAVE_REDIS7 else {}
MAKERS |= {"redis8": redis8} if HAVE_REDIS8 else {}
PREFIXED = '[tenants.jobs]\npassword = "jobs-secret"\nprefix = "jobs:"\n'
FILE = (
    entry("shop", "pw", tenant="shop")
    + entry("jobs", "pw", tenant="jobs")
    + '[tenants.shop]\nusername = "shop-user"\npassword = "shop-secret"\n'
    'keys = ["shop:*", "cart?"]\nchannels = ["shop.*"]\n' + PREFIXED
)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Valkey, or what the test names."""
    make = MAKERS[getattr(request, "param", "valkey")]
    with make(settings={"requirepass": "root-secret"}) as server:
        yield server


# Each step runs the program: so only one server's run is a short one.
everywhere = pytest.mark.parametrize(
    "server",
    [kind if kind == "valkey" else pytest.param(kind, marks=pytest.mark.slow) for kind in MAKERS],
    indirect=True,
)


@pytest.fixture
def config(server: Server, tmp_path: Path) -> str:
    return configured(tmp_path, f"redis://:root-secret@127.0.0.1:{server.port}")


def configured(folder: Path, url: str, text: str = FILE) -> str:
    """A configuration file for this upstream, with a file of identities."""
    (folder / "identities.toml").write_text(text)
    file = folder / "sidecar.toml"
    file.write_text(
        f'[identities]\nmode = "terminate"\nfile = "{folder / "identities.toml"}"\n'
        f'[upstream]\nurl = "{url}"\n'
    )
    return str(file)


def run(config: str, kind: str, *options: str) -> tuple[int, Any]:
    """Exit code, and the JSON that is printed."""
    code, out, err = cli("tenants", kind, "-c", config, "--json", *options)
    assert out, err
    return code, json.loads(out)


def states(found: Any) -> list[str]:
    return [step["state"] for step in found["steps"]]


def ask(server: Server, *request: str) -> Any:
    with Wire(server.port) as wire:
        wire.cmd("AUTH", "root-secret")
        return wire.call(*request)


@everywhere
def test_plan_apply_and_nothing_left(server: Server, config: str) -> None:
    code, found = run(config, "plan")
    assert (code, states(found)) == (1, ["make", "make"])
    assert ask(server, "ACL", "USERS") == ["default"]  # a plan changes nothing
    code, found = run(config, "apply")
    assert (code, [step["done"] for step in found["steps"]]) == (0, [True, True])
    before = ask(server, "ACL", "LIST")
    assert run(config, "plan")[0] == 0
    code, found = run(config, "apply")
    assert (code, states(found)) == (0, ["same", "same"])
    assert ask(server, "ACL", "LIST") == before
    assert "shop-secret" not in json.dumps(found)


@everywhere
def test_what_somebody_has_changed_is_seen_and_put_right(server: Server, config: str) -> None:
    run(config, "apply")
    everything = (
        (["+keys"], "commands -keys"),
        (["-get"], "commands +get"),
        (["~other:*"], "keys -~other:*"),
        (["&other:*"], "channels -&other:*"),
        (["off"], "off"),
        (["nopass"], "needs no password"),
        ([">more"], "password"),
        (["(+@all ~*)"], "selectors"),
    )
    for change, says in everything:
        ask(server, "ACL", "SETUSER", "shop-user", *change)
        code, found = run(config, "plan")
        assert code == 1
        assert says in "; ".join(found["steps"][0]["differences"]), change
        assert states(found) == ["change", "same"]
        assert run(config, "apply")[0] == 0
        assert run(config, "plan")[0] == 0


def test_users_of_others_are_never_touched(server: Server, config: str) -> None:
    ask(server, "ACL", "SETUSER", "shop-user", "on", ">theirs", "~theirs:*", "+get")
    ask(server, "ACL", "SETUSER", "somebody", "on", ">theirs", "~*", "+@all")
    before = [line for line in ask(server, "ACL", "LIST") if "jobs" not in line]
    code, found = run(config, "apply", "--remove")
    assert (code, states(found)) == (1, ["foreign", "make"])
    after = [line for line in ask(server, "ACL", "LIST") if " jobs " not in line]
    assert after == before


def test_a_tenant_that_is_gone(server: Server, config: str, tmp_path: Path) -> None:
    run(config, "apply")
    text = FILE.replace(PREFIXED, "").replace('tenant = "jobs"', 'policy = "production"')
    (tmp_path / "identities.toml").write_text(text)
    code, found = run(config, "apply")
    assert (code, states(found)) == (0, ["same", "left"])
    assert "jobs" in ask(server, "ACL", "USERS")
    assert run(config, "apply", "--remove")[0] == 0
    assert sorted(ask(server, "ACL", "USERS")) == ["default", "shop-user"]


@everywhere
def test_verify_proves_it(server: Server, config: str) -> None:
    code, found = run(config, "verify")
    assert code == 1  # there are no such users yet
    assert "WRONGPASS" in found["problems"][0]
    run(config, "apply")
    code, found = run(config, "verify")
    assert (code, found["apart"]) == (0, True), [p for p in found["proofs"] if not p["ok"]]
    tried = {proof["what"] for proof in found["proofs"]}
    assert {"reads GET", "writes SET", "publishes to PUBLISH", "may run FLUSHALL"} <= tried
    assert ask(server, "DBSIZE") == 0  # nothing is left behind


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        (["~jobs:*"], "reads GET"),
        (["~*"], "writes SET"),
        (["+keys"], "may run KEYS *"),
        (["+flushall"], "may run FLUSHALL"),
        (["+client|list"], "may run CLIENT LIST"),
        (["&*"], "publishes to PUBLISH"),
        (["+scan"], "may run SCAN 0"),
        (["+function|list"], "may run FUNCTION LIST"),
        (["-get"], "reads its own key"),
    ],
)
def test_verify_sees_what_is_open(server: Server, config: str, rules: list[str], what: str) -> None:
    run(config, "apply")
    if rules == ["&*"]:
        rules = ["resetchannels", "&*"]
    ask(server, "ACL", "SETUSER", "shop-user", *rules)
    code, found = run(config, "verify")
    assert (code, found["apart"]) == (1, False)
    assert what in {proof["what"] for proof in found["proofs"] if not proof["ok"]}
    assert ask(server, "DBSIZE") == 0


def test_as_another_user_and_for_people(server: Server, config: str, tmp_path: Path) -> None:
    ask(server, "ACL", "SETUSER", "admin", "on", ">admin-secret", "+acl")
    ask(server, "ACL", "SETUSER", "default", "-acl")
    assert cli("tenants", "plan", "-c", config)[0] == 1
    secret = tmp_path / "secret"
    secret.write_text("admin-secret\n")
    more = ("--user", "admin", "--password-file", str(secret))
    code, out, _ = cli("tenants", "plan", "-c", config, *more)
    assert code == 1
    assert "shop-user: to be made" in out
    assert "ACL SETUSER shop-user reset on #*** " in out
    code, out, _ = cli("tenants", "apply", "-c", config, *more)
    assert (code, out.count("✓")) == (0, 2)
    code, out, _ = cli("tenants", "verify", "-c", config, *more)
    assert code == 0
    assert "tenants are apart" in out
    assert "\x1b" not in out  # no terminal
    assert cli("tenants", "plan", "-c", config, "--user", "admin")[0] == 1


def test_what_the_sidecar_needs_is_given_to_a_tenant_with_few_commands(
    server: Server, tmp_path: Path
) -> None:
    text = entry("a", "pw", tenant="a") + (
        '[tenants.a]\npassword = "x"\nkeys = ["a:*"]\ncommands = ["+get"]\n'
    )
    config = configured(tmp_path, f"redis://:root-secret@127.0.0.1:{server.port}", text)
    assert run(config, "apply")[0] == 0
    assert run(config, "plan")[0] == 0
    may = ask(server, "ACL", "GETUSER", "a")
    rules = set(may[may.index("commands") + 1].split())
    assert {"+get", "+role", "+ping", "+pttl", "+touch", "+client|tracking"} <= rules
    assert "+ssubscribe" not in rules


def test_wrong_settings(tmp_path: Path) -> None:
    config = configured(tmp_path, "redis://127.0.0.1:1", "[tenants.a]\nkeys = 5")
    code, found = run(config, "plan")
    assert code == 2
    assert any("tenants.a.keys" in each for each in found["problems"])
    text = entry("a", "pw", tenant="a") + '[tenants.a]\npassword = "x"\nkeys = ["*"]\n'
    config = configured(tmp_path, "redis://127.0.0.1:1", text + 'channels = ["*"]\n')
    code, _, err = cli("tenants", "plan", "-c", config)
    assert (code, "all keys and all channels" in err) == (1, True)


# -- every server


def test_every_node_of_a_cluster(tmp_path: Path) -> None:
    with Cluster(shards=2, replicas=1) as cluster:
        config = configured(tmp_path, cluster.url)
        code, found = run(config, "apply")
        assert (code, states(found)) == (0, ["make"] * 8), found
        assert run(config, "plan")[0] == 0
        code, found = run(config, "verify")
        assert (code, found["apart"]) == (0, True), [p for p in found["proofs"] if not p["ok"]]
        assert len({proof["server"] for proof in found["proofs"]}) == 4
        tenants_are_served_from_the_cache(cluster, tmp_path)
        assert run(config, "plan", "--set", "cache.mode=off")[0] == 1  # then they need less


def tenants_are_served_from_the_cache(cluster: Cluster, folder: Path) -> None:
    """With what they were given, and nothing was refused to anybody."""
    nodes = [cluster.shard(number).primary for number in range(2)]
    for node in nodes:
        call(node.port, "ACL", "LOG", "RESET")
    settings = {"identities.mode": "terminate", "identities.file": str(folder / "identities.toml"),
                "cache.mode": "rules", "cache.rules": "*"}  # fmt: skip
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(cluster.url, admin=admin, settings=settings) as sidecar:
        for tenant, key in (("shop", "shop:k"), ("jobs", "k")):
            before = metrics(sidecar).get("sidecar_cache_hits_total", 0)
            with Wire(sidecar.port) as wire:
                assert wire.cmd("AUTH", tenant, "pw") == b"+OK\r\n"
                assert wire.cmd("SET", key, tenant) == b"+OK\r\n"
                wait_until(
                    lambda wire=wire, key=key, before=before: (
                        wire.cmd("GET", key)
                        and metrics(sidecar)["sidecar_cache_hits_total"] > before + 5
                    ),
                    "hits",
                )
                assert wire.call("GET", key) == tenant
    assert [call(node.port, "ACL", "LOG") for node in nodes] == [[], []]


def test_every_server_that_sentinels_name(tmp_path: Path) -> None:
    with Sentinels() as cluster:
        config = configured(tmp_path, cluster.url)
        code, found = run(config, "apply")
        assert code == 0, found
        places = {step["server"] for step in found["steps"]}
        assert len(places) == 1 + len(cluster.replicas)
        for place in places:
            users = call(int(place.rpartition(":")[2]), "ACL", "USERS")
            assert "shop-user" in users
