"""Credentials of the sidecar itself that change under load: no client sees an error."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.failover import Load, news, times_logged
from tests.harness.process import wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire

RULES = ("on", "~*", "&*", "+@all")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with a user `app`, and without rights for anybody who does not log in."""
    with valkey() as server:
        _acl(server, "SETUSER", "app", *RULES, ">pw-0")
        yield server


def _acl(server: Server, *words: str) -> None:
    with Wire(server.port) as wire:
        assert wire.cmd("ACL", *words) == b"+OK\r\n"


class Swapped:
    """A file behind a symlink that is replaced as a whole, as Kubernetes does it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path, self._folder, self._number = folder / "password", folder, 0
        self.put(text)

    def put(self, text: str) -> None:
        self._number += 1
        fresh = self._folder / f"data-{self._number}"
        fresh.write_text(f"{text}\n")
        link = self._folder / "link"
        link.symlink_to(fresh)
        os.replace(link, self.path)


def _program(folder: Path, text: str) -> list[str]:
    """A credential command: what it is to print stands in a file."""
    said = folder / "said"
    said.write_text(text)
    return [sys.executable, "-S", "-c", f"print(open({str(said)!r}).read())"]


def _renewed(sidecar: Sidecar, times: int = 1) -> None:
    """Wait until all workers have logged in again so often."""
    wait_until(lambda: times_logged(sidecar, "links logged in again") >= times, "renewed")


def test_a_password_file_is_rotated_under_load(server: Server, tmp_path: Path) -> None:
    """Each time the server takes both passwords, the file is swapped, and the old one goes."""
    file = Swapped(tmp_path, "pw-0")
    settings: dict[str, str | int | float] = {
        "upstream.username": "app",
        "upstream.password_file": str(file.path),
        "cache.mode": "hot",
    }
    with Sidecar(server.url, settings=settings) as sidecar, Load(sidecar.port) as load:
        for number in range(1, 4):
            load.until_served()
            _acl(server, "SETUSER", "app", f">pw-{number}")
            file.put(f"pw-{number}")
            wait_until(
                lambda n=number: times_logged(sidecar, "links logged in again") >= n, "renewed"
            )
            _acl(server, "SETUSER", "app", f"<pw-{number - 1}")
            with Wire(server.port) as direct:  # whoever is cut must log in anew
                direct.cmd("CLIENT", "KILL", "TYPE", "normal", "USER", "app", "MAXAGE", 999999)
        load.until_served()
        load.stop()
        with Wire(sidecar.port) as client:
            assert client.cmd("ACL", "WHOAMI") == b"$3\r\napp\r\n"
        assert load.judge(server.port) == Counter()
        assert load.errors == Counter()
        assert "pw-" not in sidecar.log()


def test_a_refused_password_is_read_again_at_once(server: Server, tmp_path: Path) -> None:
    """The file has changed and nobody has looked since: no client is told WRONGPASS."""
    file = Swapped(tmp_path, "pw-0")
    settings: dict[str, str | int | float] = {
        "upstream.username": "app",
        "upstream.password_file": str(file.path),
        "upstream.pool_spare": 0,
    }
    with Sidecar(server.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
        file.put("pw-1")
        _acl(server, "SETUSER", "app", "resetpass", ">pw-1")
        # In a database of its own it needs another link.
        assert client.cmd("SELECT", 3) == b"+OK\r\n"
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"


def test_a_token_that_expires(server: Server, tmp_path: Path) -> None:
    """A program gives a new token before the old one ends, and the server then closes whatever was
    opened with that."""
    argv = _program(tmp_path, json.dumps({"username": "app", "password": "pw-0", "expires_in": 1}))
    settings: dict[str, str | int | float] = {"upstream.credential_command": json.dumps(argv)}
    with Sidecar(server.url, settings=settings) as sidecar, Load(sidecar.port) as load:
        for number in range(1, 4):
            _acl(server, "SETUSER", "app", f">pw-{number}")
            token = {"username": "app", "password": f"pw-{number}", "expires_in": 1}
            _program(tmp_path, json.dumps(token))
            wait_until(
                lambda n=number: times_logged(sidecar, "links logged in again") >= n, "renewed"
            )
            _acl(server, "SETUSER", "app", f"<pw-{number - 1}")
        load.until_served()
        load.stop()
        assert load.judge(server.port) == Counter()
        assert load.errors == Counter()


def test_another_user(server: Server, tmp_path: Path) -> None:
    """The user changes as well: links go on as the new one, and what the old one read is gone."""
    argv = _program(tmp_path, json.dumps({"username": "app", "password": "pw-0", "expires_in": 1}))
    settings: dict[str, str | int | float] = {
        "upstream.credential_command": json.dumps(argv),
        "cache.mode": "rules",
        "cache.rules": "*",
    }
    with Sidecar(server.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
        assert client.cmd("SET", "secret", "v") == b"+OK\r\n"
        assert client.cmd("GET", "secret") == b"$1\r\nv\r\n"
        _acl(server, "SETUSER", "other", "on", ">pw-1", "~public", "+@all")
        _program(tmp_path, json.dumps({"username": "other", "password": "pw-1"}))
        _renewed(sidecar)
        wait_until(lambda: client.cmd("ACL", "WHOAMI") == b"$5\r\nother\r\n", "another user")
        assert client.cmd("GET", "secret").startswith(b"-NOPERM ")


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("no json", "what it prints is not JSON"),
        ("{}", 'no object with a "password"'),
        ('{"password": "x", "expires_in": "soon"}', '"expires_in" is not a number'),
        ('{"password": "x", "expires_in": 0}', '"expires_in" is not above zero'),
        ('{"password": "x", "expires_in": NaN}', '"expires_in" is not above zero'),
        ('{"password": "\\ud800"}', "not Unicode text"),
        ("[" * 100_000, "what it prints is not JSON"),
        ("x" * (1 << 20), "it prints more than 1 MiB"),
    ],
)
def test_a_program_that_prints_rubbish(server: Server, tmp_path: Path, says: str, why: str) -> None:
    """The start fails with one line, without what was printed."""
    argv = json.dumps(_program(tmp_path, says))
    settings = {"upstream.credential_command": argv}
    with Sidecar(server.url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: not sidecar.running, "it gives up", 20)
        assert f"upstream.credential_command: {why}" in sidecar.log() or why in sidecar.log()
        assert len(says) < 3 or says not in sidecar.log()


@pytest.mark.parametrize("does", ["yes", "sleep 60", "sleep 60 & wait"])
def test_a_program_that_does_not_end(server: Server, tmp_path: Path, does: str) -> None:
    """It has `credential_timeout`, whatever it prints and starts; nothing of it is left."""
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    settings: dict[str, str | int | float] = {
        "upstream.credential_command": json.dumps(["sh", "-c", f"exec 9>{fifo}; {does}"]),
        "upstream.credential_timeout": 2,
    }
    with Sidecar(server.url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: not sidecar.running, "it gives up", 20)
        assert "did not end within 2 s" in sidecar.log() or "more than 1 MiB" in sidecar.log()
        os.set_blocking(held, True)
        assert _ends(held), "a process holds the file open"
    os.close(held)


def _ends(descriptor: int) -> bool:
    """Whether nobody can write into this pipe any more."""
    readable, _, _ = select.select([descriptor], [], [], 5)
    return bool(readable) and os.read(descriptor, 1) == b""


def test_a_password_that_the_server_takes_later(server: Server, tmp_path: Path) -> None:
    """The file is swapped first: links log in again as soon as the server has heard of it."""
    file = Swapped(tmp_path, "pw-0")
    settings: dict[str, str | int | float] = {
        "upstream.username": "app",
        "upstream.password_file": str(file.path),
    }
    with Sidecar(server.url, settings=settings) as sidecar, Load(sidecar.port) as load:
        load.until_served()
        file.put("pw-1")
        wait_until(lambda: bool(news(sidecar, "credentials refused")), "it is refused")
        _acl(server, "SETUSER", "app", ">pw-1")
        _renewed(sidecar)
        load.stop()
        assert load.judge(server.port) == Counter()
        assert load.errors == Counter()


def test_a_program_that_fails_later(server: Server, tmp_path: Path) -> None:
    """What it gave before is used on; the log says so once, and when it works again."""
    said = json.dumps({"username": "app", "password": "pw-0", "expires_in": 1})
    argv = _program(tmp_path, said)
    settings: dict[str, str | int | float] = {"upstream.credential_command": json.dumps(argv)}
    with Sidecar(server.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
        (tmp_path / "said").unlink()
        wait_until(lambda: bool(news(sidecar, "credentials unread")), "it has failed")
        begun = time.monotonic()
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        _acl(server, "SETUSER", "app", ">pw-1")
        _program(tmp_path, said.replace("pw-0", "pw-1"))
        wait_until(lambda: bool(news(sidecar, "credentials renewed")), "it works again", 10)
        assert times_logged(sidecar, "credentials unread") <= 2 + (time.monotonic() - begun) // 1.5


def test_those_of_the_sentinels(tmp_path: Path) -> None:
    """Their password comes from a file, too, and is rotated."""
    with Cluster(replicas=1, sentinels=1, quorum=1, sentinel_password="s-0") as cluster:
        file = Swapped(tmp_path, "s-0")
        settings = {"sentinel.password_file": str(file.path)}
        with Sidecar(cluster.url, settings=settings) as sidecar:
            (sentinel,) = cluster.sentinels
            with Wire(sentinel.port) as wire:
                assert wire.cmd("AUTH", "s-0") == b"+OK\r\n"
                assert wire.cmd("ACL", "SETUSER", "default", "resetpass", ">s-1") == b"+OK\r\n"
                wire.cmd("CLIENT", "KILL", "TYPE", "pubsub")
                wait_until(lambda: bool(news(sidecar, "sentinel failed")), "it is refused", 10)
                file.put("s-1")
                wait_until(lambda: bool(news(sidecar, "sentinel recovered")), "it is back", 10)
