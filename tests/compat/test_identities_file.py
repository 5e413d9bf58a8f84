"""The file of identities while the sidecar runs; certificates and peers; wrong passwords."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.passwords import hash_password
from sidecar.proxy.server import Proxy
from sidecar.settings.load import load
from tests.harness.admin import metric, metrics
from tests.harness.certificates import Authority, make_certificates
from tests.harness.identities import entry, judging, users
from tests.harness.process import free_port, wait_until
from tests.harness.servers import WORKERS, Server, Sidecar, valkey
from tests.harness.wire import Wire, call

OK = b"+OK\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path, server: Server) -> Path:
    users(server, "shop-user", "jobs-user")
    return tmp_path / "identities.toml"


def shop(*passwords: str, user: str = "shop-user", more: str = "") -> str:
    return entry("shop", *(passwords or ("pw",)), user=user, password=f"{user}-upstream", more=more)


def logs_in(sidecar: Sidecar, password: str, name: str = "shop") -> bool:
    with Wire(sidecar.port) as wire:
        return wire.cmd("AUTH", name, password) == OK


def swapped(file: Path, text: str, sidecar: Sidecar) -> None:
    """Put another file in its place, as Kubernetes does, and wait until every worker uses it."""
    before = sidecar.log().count("identities reload")
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)
    wanted = before + WORKERS
    wait_until(lambda: sidecar.log().count("identities reload") >= wanted, "another file")


# -- changes


def test_a_password_is_replaced_without_a_gap(server: Server, file: Path) -> None:
    settings = judging(file, shop("old"))
    with Sidecar(server.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
        wire.cmd("AUTH", "shop", "old")
        swapped(file, shop("old", "new"), sidecar)
        assert logs_in(sidecar, "old")
        assert logs_in(sidecar, "new")
        swapped(file, shop("new"), sidecar)
        assert not logs_in(sidecar, "old")
        assert logs_in(sidecar, "new")
        assert wire.cmd("PING") == b"+PONG\r\n"  # as at a server, who is in stays in


def test_who_is_removed_is_disconnected_and_nobody_else(server: Server, file: Path) -> None:
    jobs = entry("jobs", "pw", user="jobs-user", password="jobs-user-upstream")
    settings = judging(file, shop() + jobs)
    with (
        Sidecar(server.url, settings=settings) as sidecar,
        Wire(sidecar.port) as gone,
        Wire(sidecar.port) as subscribed,
        Wire(sidecar.port) as stays,
    ):
        gone.cmd("AUTH", "shop", "pw")
        subscribed.cmd("AUTH", "shop", "pw")
        subscribed.cmd("SUBSCRIBE", "c")
        stays.cmd("AUTH", "jobs", "pw")
        swapped(file, jobs, sidecar)
        assert gone.read_to_end() == b""
        assert subscribed.read_to_end() == b""
        assert stays.cmd("PING") == b"+PONG\r\n"
        assert not logs_in(sidecar, "pw")


def test_who_acts_as_another_user_from_now_on_is_disconnected(server: Server, file: Path) -> None:
    with (
        Sidecar(server.url, settings=judging(file, shop())) as sidecar,
        Wire(sidecar.port) as before,
    ):
        before.cmd("AUTH", "shop", "pw")
        swapped(file, shop(user="jobs-user"), sidecar)
        assert before.read_to_end() == b""
        with Wire(sidecar.port) as wire:
            wire.cmd("AUTH", "shop", "pw")
            assert wire.call("ACL", "WHOAMI") == "jobs-user"


def test_a_bad_file_is_not_used(server: Server, file: Path) -> None:
    with Sidecar(server.url, settings=judging(file, shop())) as sidecar:
        swapped(file, "[identities.shop]\npaswords = 1", sidecar)
        assert "did you mean passwords?" in sidecar.log()
        assert logs_in(sidecar, "pw")
        swapped(file, shop("other"), sidecar)
        assert logs_in(sidecar, "other")


def test_a_bad_file_at_the_start(server: Server, file: Path) -> None:
    settings = judging(file, "[identities.shop]")
    with Sidecar(server.url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: not sidecar.running, "the end of the sidecar")
        assert "without passwords, certificates and peers nobody can be it" in sidecar.log()


def test_a_password_at_the_server_is_replaced(server: Server, file: Path, tmp_path: Path) -> None:
    """The file with it is swapped first, while both are good; nobody sees an error."""
    secret = tmp_path / "secret"
    secret.write_text("shop-user-upstream\n")
    text = entry("shop", "pw", more=f'tenant = "t"\n[tenants.t]\nusername = "shop-user"\n'
                 f'password_file = "{secret}"')  # fmt: skip
    with (
        Sidecar(server.url, settings=judging(file, text)) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        wire.cmd("AUTH", "shop", "pw")
        call(server.port, "ACL", "SETUSER", "shop-user", ">next")
        swap = tmp_path / "next"
        swap.write_text("next\n")
        swap.replace(secret)
        wait_until(
            lambda: sidecar.log().count("identities reloaded") >= WORKERS, "the other password"
        )
        call(server.port, "ACL", "SETUSER", "shop-user", "<shop-user-upstream")
        call(server.port, "CLIENT", "KILL", "USER", "shop-user")
        assert wire.cmd("SELECT", 3) == OK  # a link of its own, made now
        assert wire.call("ACL", "WHOAMI") == "shop-user"


def test_a_wrong_password_at_the_server(server: Server, file: Path) -> None:
    text = entry("shop", "pw", user="shop-user", password="hunter2")
    with Sidecar(server.url, settings=judging(file, text)) as sidecar, Wire(sidecar.port) as wire:
        said = wire.cmd("AUTH", "shop", "pw")
        assert said.startswith(b"-ERR the upstream refuses the credentials that the sidecar has")
        assert wire.cmd("GET", "k") == NOAUTH
        assert "hunter2" not in sidecar.log()
        assert "hunter2" not in said.decode()
        swapped(file, shop(), sidecar)
        assert wire.cmd("AUTH", "shop", "pw") == OK


# -- without AUTH


@pytest.mark.parametrize("claim", ["CN:shop", "DNS:SHOP.svc", "URI:spiffe://corp/shop"])
def test_client_certificates(server: Server, file: Path, tmp_path: Path, claim: str) -> None:
    """By a name in the certificate; RESET leads back to it."""
    certificates, authority = make_certificates(tmp_path), Authority(tmp_path, "clients")
    other = authority.issue("other", "other.svc")
    shown = authority.issue("shop", "shop.svc")
    if claim.startswith("URI"):
        shown = authority.issue_uri("uri", "spiffe://corp/shop")
    text = entry("by-name", user="shop-user", password="shop-user-upstream",
                 more=f'certificates = ["{claim}"]')  # fmt: skip
    text += entry("jobs", "pw", user="jobs-user", password="jobs-user-upstream")
    settings = judging(file, text)
    settings |= {
        "listen.tls.cert_file": str(certificates.server.cert),
        "listen.tls.key_file": str(certificates.server.key),
        "listen.tls.ca_file": str(authority.cert_file),
        "listen.tls.client_auth": "optional",
    }
    with Sidecar(server.url, settings=settings, tls=certificates.client_context()) as sidecar:
        with Wire(sidecar.port, tls=certificates.client_context(shown)) as wire:
            assert wire.call("ACL", "WHOAMI") == "shop-user"
            assert wire.cmd("AUTH", "jobs", "pw") == OK
            assert wire.call("ACL", "WHOAMI") == "jobs-user"
            assert wire.cmd("RESET") == b"+RESET\r\n"
            assert wire.call("ACL", "WHOAMI") == "shop-user"
        for context in (certificates.client_context(other), certificates.client_context()):
            with Wire(sidecar.port, tls=context) as wire:
                assert wire.cmd("ACL", "WHOAMI") == NOAUTH


@pytest.mark.parametrize("claim", [f"uid:{os.getuid()}", f"gid:{os.getgid()}"])
def test_users_of_the_host(server: Server, file: Path, tmp_path: Path, claim: str) -> None:
    text = entry("me", more=f'peers = ["{claim}"]\nupstream_username = "shop-user"\n'
                 'upstream_password = "shop-user-upstream"')  # fmt: skip
    path = tmp_path / "socket"
    settings = judging(file, text)
    with Sidecar(server.url, settings=settings, also=[f"unix://{path}"]) as sidecar:
        with Wire(str(path)) as wire:
            assert wire.call("ACL", "WHOAMI") == "shop-user"
            swapped(file, text.replace(claim, "uid:4000000"), sidecar)
        with Wire(str(path)) as wire:
            assert wire.cmd("ACL", "WHOAMI") == NOAUTH
        with Wire(sidecar.port) as wire:
            assert wire.cmd("ACL", "WHOAMI") == NOAUTH  # the same user, by TCP


# -- wrong passwords


def test_wrong_passwords_slow_down_and_nobody_else(server: Server, file: Path) -> None:
    jobs = entry("jobs", "pw", user="jobs-user", password="jobs-user-upstream")
    settings = judging(file, shop() + jobs, audit__file=str(file.with_suffix(".audit")))
    admin = f"127.0.0.1:{free_port()}"
    with (
        Sidecar(server.url, settings=settings, admin=admin) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        began = time.monotonic()
        for _ in range(6):
            assert wire.cmd("AUTH", "shop", "wrong") == WRONG
        slowed = time.monotonic() - began
        assert slowed >= 0.1 + 0.2 + 0.4
        began = time.monotonic()
        assert logs_in(sidecar, "pw", "jobs")
        assert time.monotonic() - began < 0.1 + 0.2
        assert logs_in(sidecar, "pw")
        assert metric(sidecar, 'sidecar_logins_total{result="refused"}') == 6
        assert metric(sidecar, 'sidecar_logins_total{result="accepted"}') == 2
        audit = file.with_suffix(".audit")
        wait_until(lambda: audit.read_text().count('"login"') == 8, "all records")
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    logins = [line for line in lines if line["event"] == "login"]
    assert [line["result"] for line in logins] == ["refused"] * 6 + ["accepted"] * 2
    assert {line["user"] for line in logins} == {"shop", "jobs"}
    assert all(line["address"].startswith("127.0.0.1:") for line in logins)
    assert "wrong" not in json.dumps(lines)


@pytest.mark.one_worker("each worker slows wrong passwords down by itself")
def test_many_guesses_at_a_time(server: Server, file: Path) -> None:
    """Most are refused without a look; the others wait for their turn."""
    with Sidecar(server.url, settings=judging(file, shop())) as sidecar:
        wires = [Wire(sidecar.port, deadline=30) for _ in range(60)]
        for _ in range(3):
            assert wires[0].cmd("AUTH", "shop", "wrong") == WRONG
        for number, wire in enumerate(wires):
            wire.send(b"AUTH shop guess%d\r\n" % number)
        replies = [wire.read_reply() for wire in wires]
        for wire in wires:
            wire.close()
    assert set(replies) == {WRONG, b"-ERR too many logins at once; try again later\r\n"}
    assert replies.count(WRONG) <= 10


def test_many_logins_at_a_time_cost_one_verification(server: Server, file: Path) -> None:
    """With hashes of the usual cost: so many clients come back after a restart."""
    text = (
        f'[identities.shop]\npasswords = ["{hash_password(b"pw")}"]\n'
        'upstream_username = "shop-user"\nupstream_password = "shop-user-upstream"\n'
    )
    with Sidecar(server.url, settings=judging(file, text)) as sidecar:
        wires = [Wire(sidecar.port) for _ in range(200)]
        began = time.monotonic()
        for wire in wires:
            wire.send(b"AUTH shop pw\r\n")
        assert {wire.read_reply() for wire in wires} == {OK}
        took = time.monotonic() - began
        for wire in wires:
            wire.close()
    assert took < 200 * 0.02


def test_a_verification_does_not_hold_up_others(server: Server, file: Path) -> None:
    """It runs beside the loop, although it takes long."""
    slow = "$argon2id$v=19$m=65536,t=8,p=1$eHh4eHh4eHh4eHh4eHh4eA$wUkNjpF6G7fEflFeIsKSEJ"
    text = shop() + f'[identities.slow]\npasswords = ["{slow}"]\n'
    with (
        Sidecar(server.url, settings=judging(file, text)) as sidecar,
        Wire(sidecar.port) as known,
        Wire(sidecar.port, deadline=30) as guesser,
    ):
        known.cmd("AUTH", "shop", "pw")
        answered: list[bytes] = []
        waiting = threading.Thread(
            target=lambda: answered.append(guesser.cmd("AUTH", "slow", "guess"))
        )
        waiting.start()
        beside = 0
        while waiting.is_alive():
            assert known.cmd("PING") == b"+PONG\r\n"
            beside += not answered
        waiting.join()
    assert answered == [WRONG]
    assert beside > 20


def test_a_client_that_leaves_while_its_password_is_judged(server: Server, file: Path) -> None:
    with Sidecar(server.url, settings=judging(file, shop())) as sidecar:
        for _ in range(20):
            with Wire(sidecar.port) as wire:
                wire.send(b"AUTH shop pw\r\n")
        assert logs_in(sidecar, "pw")
        assert "internal error" not in sidecar.log()


def test_the_cache_goes_on_with_another_password(server: Server, file: Path) -> None:
    """Its link comes back as the user with the password that the file has by then."""
    users(server, "cached-user")
    admin = f"127.0.0.1:{free_port()}"
    settings = judging(file, shop(user="cached-user"), cache__mode="rules", cache__rules="*")
    with (
        Sidecar(server.url, settings=settings, admin=admin) as sidecar,
        Wire(sidecar.port) as wire,
    ):

        def hits() -> float:
            return metrics(sidecar).get("sidecar_cache_hits_total", 0.0)

        def answers() -> bool:
            before = hits()
            return wire.cmd("GET", "k") == b"$1\r\nv\r\n" and hits() > before

        wire.cmd("AUTH", "shop", "pw")
        wire.cmd("SET", "k", "v")
        wait_until(answers, "an answer of the cache")
        call(server.port, "ACL", "SETUSER", "cached-user", ">next")
        text = entry("shop", "pw", user="cached-user", password="next")
        swapped(file, text, sidecar)
        call(server.port, "ACL", "SETUSER", "cached-user", "<cached-user-upstream")
        call(server.port, "CLIENT", "KILL", "USER", "cached-user")
        wait_until(answers, "an answer of the cache again")
        assert "WRONGPASS" not in sidecar.log()


async def test_no_thread_is_left(server: Server, file: Path) -> None:
    """Of those that verify passwords, once the data plane is closed."""
    before = set(threading.enumerate())
    urls = {"listen__urls": "redis://127.0.0.1:0", "upstream__url": server.url}
    settings = load(None, judging(file, shop(), **urls), {})
    proxy = Proxy(settings, settings.upstream_endpoint)
    await proxy.start(time.monotonic() + 10)
    port = int(proxy.listening[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"AUTH shop pw\r\n")
    assert await reader.readline() == OK
    started = [t for t in set(threading.enumerate()) - before if t.name.startswith("passwords")]
    assert started
    writer.close()
    await proxy.close()
    for each in started:
        each.join(10)
        assert not each.is_alive()
