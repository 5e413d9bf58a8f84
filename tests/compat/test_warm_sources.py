"""Warm start from named keys and from SCAN, and how loading goes: its limits and its end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.admin import checks, is_ready, wait_ready
from tests.harness.faults import FaultProxy
from tests.harness.process import wait_until
from tests.harness.server_stats import calls
from tests.harness.servers import Server, Sidecar
from tests.harness.warm import ask, fill, misses, warm_sidecar
from tests.harness.wire import Wire

Request = tuple[str | bytes, ...]


def names(count: int) -> list[str]:
    """Some keys."""
    return [f"k:{n}" for n in range(count)]


def gets(count: int) -> list[Request]:
    """A GET of each."""
    return [("GET", name) for name in names(count)]


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[str], str]:
    """Writes a file of keys and gives its path."""

    def write(text: str) -> str:
        (tmp_path / "keys").write_text(text)
        return str(tmp_path / "keys")

    return write


def progress(sidecar: Sidecar) -> list[int]:
    """What the log has said of it so far."""
    return [int(done) for done in re.findall(r'"done":(\d+)', sidecar.log())]


def fill_types(port: int, prefix: str = "t") -> None:
    """A key of each type that has a whole read, one of a type that has none, a large one."""
    commands: list[Request] = [
        ("SET", f"{prefix}:s", "v"),
        ("HSET", f"{prefix}:h", "f", "v"),
        ("SADD", f"{prefix}:m", "v"),
        ("RPUSH", f"{prefix}:l", "v"),
        ("ZADD", f"{prefix}:z", "1", "v"),
        ("SET", f"{prefix}:big", "x" * 10_000),
    ]
    ask(port, commands)


# The reads that load those, and the command by which the server counts them.
WHOLE: list[Request] = [
    ("GET", "t:s"),
    ("HGETALL", "t:h"),
    ("SMEMBERS", "t:m"),
    ("LRANGE", "t:l", "0", "-1"),
]


def test_a_key_file(plain_server: Server, key_file: Callable[[str], str]) -> None:
    """Keys by their type, reads as they stand, other databases; the rest is reported."""
    port = plain_server.port
    fill_types(port)
    ask(port, [("SET", "two", "2")], db=2)
    text = "t:s\nt:h\nt:m\nt:l\nt:z\nt:big\nnone\nHGET t:h f\nSELECT 2\ntwo\nFLUSHALL now\n"
    settings = {"warm.key_file": key_file(text), "cache.max_value": 4096}
    with warm_sidecar(plain_server.url, settings) as sidecar:
        for read in [*WHOLE, ("HGET", "t:h", "f")]:
            assert misses(sidecar, port, [read]) == 0, read
        assert misses(sidecar, port, [("GET", "two")], db=2) == 0
        assert '"first":11' in sidecar.log()
        assert '"key_file":6' in sidecar.log()
        assert '"loaded":6,"failed":0' in sidecar.log()


def test_a_key_file_in_hot_mode(plain_server: Server, key_file: Callable[[str], str]) -> None:
    """Cached without being hot, for `warm.hold` and no longer."""
    port = plain_server.port
    fill(port, names(300))
    # With this, nothing is ever hot.
    settings = {"cache.mode": "hot", "hotkeys.hot_share": 1.0, "hotkeys.cool_share": 1.0}
    settings |= {"warm.key_file": key_file("\n".join(names(300))), "warm.hold": 3}
    with warm_sidecar(plain_server.url, settings) as sidecar:
        assert misses(sidecar, port, gets(300)) == 0
        wait_until(lambda: misses(sidecar, port, gets(300)) == 300, "they are let go", 10)
        assert misses(sidecar, port, gets(300)) == 300


def test_a_scan(plain_server: Server) -> None:
    """Keys that fit the pattern, by their type; others are left alone."""
    port = plain_server.port
    fill_types(port)
    fill(port, names(3000))
    settings = {"warm.scan": "t:*", "cache.max_value": 4096}
    with warm_sidecar(plain_server.url, settings) as sidecar:
        for read in WHOLE:
            assert misses(sidecar, port, [read]) == 0, read
        assert '"scan":4' in sidecar.log()
        assert misses(sidecar, port, gets(1)) > 0


@pytest.mark.one_worker("each worker loads its own near cache")
def test_a_scan_has_bounds(plain_server: Server) -> None:
    """It looks at so many keys, and takes so many."""
    port = plain_server.port
    fill(port, names(20_000))
    before = calls(port, "scan")
    settings = {"warm.scan": "*", "warm.scan_count": 5000, "warm.keys": 100_000}
    with warm_sidecar(plain_server.url, settings) as sidecar:
        assert calls(port, "scan") == before + 5
        assert misses(sidecar, port, gets(20_000)) > 10_000
    before = calls(port, "get")
    with warm_sidecar(plain_server.url, {"warm.scan": "*", "warm.keys": 500}):
        assert calls(port, "get") == before + 500


@pytest.mark.one_worker("each worker loads its own near cache")
def test_sources_add_up(plain_server: Server, tmp_path: Path) -> None:
    """A key that several name is read once."""
    port = plain_server.port
    fill(port, names(60))
    (tmp_path / "keys").write_text("\n".join(names(40)))
    settings = {"warm.key_file": str(tmp_path / "keys"), "warm.scan": "k:*", "warm.fleet": "true"}
    before = calls(port, "get")
    with warm_sidecar(plain_server.url, settings) as sidecar:
        assert '"keys":60,"fleet":0,"key_file":40,"scan":20' in sidecar.log()
        assert calls(port, "get") == before + 60


@pytest.mark.one_worker("each worker loads its own near cache")
def test_rules_hold_for_what_is_loaded(
    plain_server: Server, key_file: Callable[[str], str]
) -> None:
    """A key that must never be cached is not, whoever names it; nor one that no rule names."""
    port = plain_server.port
    fill(port, ["secret:1", "open:1", "else:1"])
    settings = {
        "warm.key_file": key_file("secret:1\nopen:1\nelse:1\n"),
        "cache.mode": "rules",
        "cache.rules": "secret: never,open:",
    }
    before = calls(port, "get")
    with warm_sidecar(plain_server.url, settings) as sidecar:
        assert calls(port, "get") == before + 1
        assert misses(sidecar, port, [("GET", "open:1")]) == 0
        for name in ("secret:1", "else:1"):
            assert misses(sidecar, port, [("GET", name)] * 3) == 3


@pytest.mark.one_worker("each worker loads its own near cache")
def test_the_deadline(plain_server: Server) -> None:
    """With a slow server the sidecar is ready when it has passed, and not before; it serves
    meanwhile, and loading goes on behind."""
    port = plain_server.port
    fill(port, names(200))
    settings = {"warm.scan": "k:*", "warm.concurrency": 4, "warm.deadline": 2}
    with FaultProxy(port) as slow:
        slow.delay = 0.05
        with warm_sidecar(slow.url, settings, ready=False) as sidecar:
            wait_until(lambda: checks(sidecar).get("serving"), "it serves")
            begin = time.monotonic()
            assert not checks(sidecar)["warm"]
            assert ask(sidecar.port, gets(1)) == [b"$12\r\nvalue-of k:0\r\n"]
            assert not checks(sidecar)["warm"]
            wait_ready(sidecar)
            assert 1.0 < time.monotonic() - begin < 4.0
            assert '"warm start finished"' not in sidecar.log()
            wait_until(lambda: '"warm start finished"' in sidecar.log(), "all of it is loaded", 20)
            assert misses(sidecar, port, gets(200)) <= 2


@pytest.mark.one_worker("each worker loads its own near cache")
def test_the_rate(plain_server: Server) -> None:
    """So many reads each second."""
    port = plain_server.port
    fill(port, names(100))
    settings = {"warm.scan": "k:*", "warm.rate": 50}
    with warm_sidecar(plain_server.url, settings, ready=False) as sidecar:
        wait_until(lambda: '"warm start began"' in sidecar.log(), "it begins")
        begin = time.monotonic()
        wait_until(lambda: '"warm start finished"' in sidecar.log(), "all of it is loaded", 10)
        assert 1.0 < time.monotonic() - begin < 5


@pytest.mark.one_worker("each worker loads its own near cache")
def test_a_connection_that_is_lost(plain_server: Server) -> None:
    """What was read on it is read again."""
    port = plain_server.port
    fill(port, names(400))
    settings = {"warm.scan": "k:*", "warm.rate": 200, "warm.concurrency": 8}
    with FaultProxy(port) as proxy, warm_sidecar(proxy.url, settings, ready=False) as sidecar:
        wait_until(lambda: len(progress(sidecar)) >= 5, "half of it is loaded", 10)
        proxy.cut()
        wait_until(lambda: '"warm start finished"' in sidecar.log(), "all of it is loaded", 15)
        wait_until(lambda: is_ready(sidecar), "it is ready")
        assert misses(sidecar, port, gets(400)) <= 40


def test_keys_that_the_user_may_not_read(
    plain_server: Server, key_file: Callable[[str], str]
) -> None:
    """The sidecar is ready in time, and serves what the user may read."""
    port = plain_server.port
    fill(port, [*names(20), "else:1"])
    ask(port, [("ACL", "SETUSER", "cat", "on", ">pw", "+@all", "~k:*")])
    settings = {"warm.key_file": key_file("\n".join(["GET else:1", *names(20)]))}
    with warm_sidecar(f"redis://cat:pw@127.0.0.1:{port}", settings) as sidecar:
        assert ask(sidecar.port, gets(1)) == [b"$12\r\nvalue-of k:0\r\n"]
        with Wire(sidecar.port) as wire:
            assert wire.cmd("GET", "else:1").startswith(b"-NOPERM")
        assert "internal error" not in sidecar.log()
    ask(port, [("ACL", "DELUSER", "cat")])


def test_a_user_who_may_not_track(plain_server: Server) -> None:
    """No near cache, so nothing to wait for."""
    port = plain_server.port
    fill(port, names(20))
    ask(port, [("ACL", "SETUSER", "dan", "on", ">pw", "+@all", "-client|tracking", "~*")])
    with warm_sidecar(f"redis://dan:pw@127.0.0.1:{port}", {"warm.scan": "k:*"}) as sidecar:
        assert '"loaded":0,"failed":20' in sidecar.log()
        assert ask(sidecar.port, gets(1)) == [b"$12\r\nvalue-of k:0\r\n"]
    ask(port, [("ACL", "DELUSER", "dan")])


@pytest.mark.one_worker("each worker loads its own near cache")
def test_a_full_cache_is_not_filled_further(plain_server: Server) -> None:
    """What would push out what is used more is not read."""
    port = plain_server.port
    fill(port, names(400), value="x" * 8000)
    before = calls(port, "get")
    settings = {"warm.scan": "k:*", "cache.memory": "1MiB", "warm.concurrency": 8}
    with warm_sidecar(plain_server.url, settings) as sidecar:
        assert '"warm start finished"' in sidecar.log()
        assert 100 <= calls(port, "get") - before <= 150
