"""Warm start: what one run has used is there in the next, and in the rest of the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.policy.warm_set import decode, from_member
from tests.harness.admin import checks, is_ready, wait_ready
from tests.harness.process import free_port, wait_until
from tests.harness.server_stats import calls
from tests.harness.servers import WORKERS, Server, Sidecar
from tests.harness.warm import ask, fill, make_cached, misses, warm_sidecar
from tests.harness.wire import Wire

MANY = 10_000
FLEET_KEY = "__redis-sidecar__:warm"


def names(count: int, prefix: str = "k") -> list[str]:
    """Some keys."""
    return [f"{prefix}:{n}" for n in range(count)]


def gets(count: int, prefix: str = "k") -> list[tuple[str, str]]:
    """A GET of each."""
    return [("GET", name) for name in names(count, prefix)]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Where the snapshot goes."""
    return tmp_path / "hot set"


@pytest.fixture
def warm(plain_server: Server, snapshot: Path) -> Iterator[Sidecar]:
    """A sidecar with a snapshot that caches everything."""
    with warm_sidecar(plain_server.url, {"warm.snapshot": str(snapshot)}) as sidecar:
        yield sidecar


@pytest.mark.one_worker("which worker has used a key, and so which file it is in, is chance")
def test_a_restart_is_warm(plain_server: Server, warm: Sidecar, snapshot: Path) -> None:
    """Of 10,000 reads after it the server sees next to none; the file holds names only."""
    port = plain_server.port
    fill(port, names(MANY))
    make_cached(warm, port, gets(MANY))
    assert warm.stop() == 0
    assert oct(snapshot.stat().st_mode & 0o777) == "0o600"
    assert list(snapshot.parent.iterdir()) == [snapshot]
    assert len(decode(snapshot.read_bytes())) >= 0.98 * MANY
    assert b"value-of" not in snapshot.read_bytes()
    warm.start()
    wait_ready(warm)
    assert misses(warm, port, gets(MANY)) <= 0.02 * MANY
    assert '"warm start finished"' in warm.log()


def test_loaded_values_are_invalidated_like_any_other(plain_server: Server, warm: Sidecar) -> None:
    """What was loaded and is changed by others afterwards is never served again."""
    port = plain_server.port
    fill(port, names(200))
    make_cached(warm, port, gets(200))
    warm.restart()
    wait_ready(warm)
    assert misses(warm, port, gets(200)) <= 4
    fill(port, names(200), value="changed")
    changed = [b"$%d\r\nchanged %b\r\n" % (8 + len(n), n.encode()) for n in names(200)]
    wait_until(lambda: ask(warm.port, gets(200)) == changed, "the new values", 2)
    assert all(ask(warm.port, gets(200)) == changed for _ in range(5))


def test_hot_keys_are_warm_after_a_restart(plain_server: Server, snapshot: Path) -> None:
    """cache.mode = hot: those that the detector has named."""
    settings = {"cache.mode": "hot", "warm.snapshot": str(snapshot)}
    fill(plain_server.port, names(20))
    reads = gets(20) * 50
    with warm_sidecar(plain_server.url, settings) as sidecar:
        make_cached(sidecar, plain_server.port, reads)
        sidecar.restart()
        wait_ready(sidecar)
        assert misses(sidecar, plain_server.port, gets(20)) == 0


def test_two_databases(plain_server: Server, warm: Sidecar) -> None:
    """Each gets its own back, though nobody has asked for the second one yet."""
    port = plain_server.port
    fill(port, names(300))
    fill(port, names(300, "other"), db=3)
    make_cached(warm, port, gets(300))
    make_cached(warm, port, gets(300, "other"), db=3)
    warm.restart()
    wait_ready(warm)
    assert misses(warm, port, gets(300, "other"), db=3) <= 6
    assert misses(warm, port, gets(300)) <= 6
    assert ask(warm.port, gets(1), db=3) == [b"$-1\r\n"]


def test_binary_keys_and_other_reads(plain_server: Server, warm: Sidecar) -> None:
    """A read is remembered with its arguments, whatever bytes they are."""
    port = plain_server.port
    keys = [bytes([n, 0, 13, 10, 255 - n]) for n in range(100)]
    ask(port, [("HSET", key, b"\r\n", "v") for key in keys])
    reads = [("HGET", key, b"\r\n") for key in keys]
    make_cached(warm, port, reads)
    warm.restart()
    wait_ready(warm)
    assert misses(warm, port, reads) <= 2


@pytest.mark.one_worker("which worker has used a key, and so which file it is in, is chance")
def test_another_user_is_warm_once_it_is_there(plain_server: Server, warm: Sidecar) -> None:
    """Its password is not kept: its reads are loaded when its first client has proved it."""
    port = plain_server.port
    assert ask(port, [("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all")]) == [b"+OK\r\n"]
    fill(port, names(100))

    def missed() -> int:
        before = calls(port, "get")
        with Wire(warm.port) as wire:
            assert wire.cmd("AUTH", "ann", "pw") == b"+OK\r\n"
            for name in names(100):
                wire.cmd("GET", name)
        return calls(port, "get") - before

    wait_until(lambda: missed() <= 2, "reads of ann are cached")
    warm.restart()
    wait_ready(warm)
    before = calls(port, "get")
    with Wire(warm.port) as wire:
        assert wire.cmd("AUTH", "ann", "pw") == b"+OK\r\n"
        wait_until(lambda: calls(port, "get") >= before + 98, "ann's reads are loaded", 10)
        assert missed() <= 2
    assert b"pw" not in Path(warm.settings["warm.snapshot"]).read_bytes()
    ask(port, [("ACL", "DELUSER", "ann")])


# The file

BAD = {
    "garbage": b"\x00\xff" * 500,
    "empty": b"",
    "newer": b"redis-sidecar-warm 9 " + b"0" * 64 + b"\n\x90",
    "text": b"redis-sidecar-warm 1 " + b"0" * 64 + b"\n\x90",
}


@pytest.mark.one_worker("which worker has used a key, and so which file it is in, is chance")
@pytest.mark.parametrize("kind", [*BAD, "cut", "flipped"])
def test_a_bad_snapshot_is_ignored(
    plain_server: Server, warm: Sidecar, snapshot: Path, kind: str
) -> None:
    """One line says so; the start is a cold one, and the next snapshot is good again."""
    port = plain_server.port
    fill(port, names(100))
    make_cached(warm, port, gets(100))
    assert warm.stop() == 0
    good = snapshot.read_bytes()
    flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    snapshot.write_bytes({**BAD, "cut": good[:-1], "flipped": flipped}[kind])
    warm.mark()
    warm.start()
    wait_ready(warm)
    assert warm.news().count('"warm snapshot ignored"') == 1
    assert warm.news().count('"reason"') == 1
    assert misses(warm, port, gets(100)) >= 100
    make_cached(warm, port, gets(100))
    warm.restart()
    wait_ready(warm)
    assert misses(warm, port, gets(100)) <= 2


@pytest.mark.one_worker("which worker has used a key, and so which file it is in, is chance")
def test_it_is_saved_now_and_then(plain_server: Server, snapshot: Path) -> None:
    """A sidecar that is killed loses one interval at most."""
    port = plain_server.port
    fill(port, names(100))
    settings = {"warm.snapshot": str(snapshot), "warm.interval": 0.2}
    with warm_sidecar(plain_server.url, settings) as sidecar:
        make_cached(sidecar, port, gets(100))
        wait_until(
            lambda: snapshot.exists() and len(decode(snapshot.read_bytes())) >= 98, "a snapshot"
        )
        sidecar.kill()
        sidecar.start()
        wait_ready(sidecar)
        assert misses(sidecar, port, gets(100)) <= 2


def test_a_snapshot_that_cannot_be_written(plain_server: Server, tmp_path: Path) -> None:
    """Is said once, and nothing else changes."""
    folder = tmp_path / "folder"
    folder.mkdir()
    settings = {"warm.snapshot": str(folder / "file"), "warm.interval": 0.1}
    fill(plain_server.port, names(10))
    with warm_sidecar(plain_server.url, settings) as sidecar:
        folder.rmdir()
        make_cached(sidecar, plain_server.port, gets(10))
        wait_until(lambda: '"warm snapshot save failed"' in sidecar.log(), "a line in the log")
        assert sidecar.stop() == 0
        assert sidecar.log().count('"warm snapshot save failed"') == 1


@pytest.mark.one_worker("which worker has used a key, and so which file it is in, is chance")
def test_a_start_without_the_server_keeps_it(
    plain_server: Server, warm: Sidecar, snapshot: Path
) -> None:
    """Nothing could be loaded, and nothing was used: the hot set is still what it was."""
    fill(plain_server.port, names(100))
    make_cached(warm, plain_server.port, gets(100))
    assert warm.stop() == 0
    before = {entry for entry, _ in decode(snapshot.read_bytes())}
    settings = {"warm.snapshot": str(snapshot), "warm.interval": 0.1, "upstream.start": "wait"}
    nobody = f"redis://127.0.0.1:{free_port()}"
    with warm_sidecar(nobody, settings, ready=False) as sidecar:
        stamp = snapshot.stat().st_mtime_ns
        wait_until(lambda: snapshot.stat().st_mtime_ns != stamp, "it is saved again")
        assert checks(sidecar) == {
            "serving": True,
            "upstream": False,
            "accepting": True,
            "unpaused": True,
            "warm": False,
        }
        assert sidecar.stop() == 0
    assert {entry for entry, _ in decode(snapshot.read_bytes())} == before


# The fleet


def test_a_second_sidecar_starts_warm(plain_server: Server) -> None:
    """What one has in use, the next has from the start; the key holds names, few, for a day."""
    port = plain_server.port
    fill(port, names(1000))
    settings = {"warm.fleet": "true", "warm.interval": 0.2, "warm.keys": 900}
    with warm_sidecar(plain_server.url, settings) as first:
        make_cached(first, port, gets(1000))
        wait_until(lambda: ask(port, [("ZCARD", FLEET_KEY)]) == [b":900\r\n"], "they are shared")
        with warm_sidecar(plain_server.url, settings) as second:
            # Of the hundred that it cannot know, each is asked for, and read for the cache.
            assert misses(second, port, gets(1000)) <= 220
            fill(port, names(500, "other"))
            before = calls(port, "zadd")
            make_cached(second, port, gets(500, "other"))
            wait_until(lambda: calls(port, "zadd") > before + 8, "both have shared again")
            wait_until(lambda: ask(port, [("ZCARD", FLEET_KEY)]) == [b":900\r\n"], "few are kept")
        with Wire(port) as wire:
            members = wire.cmd("ZRANGE", FLEET_KEY, 0, -1)
            assert b"value-of" not in members
            assert 86000 < int(wire.cmd("TTL", FLEET_KEY)[1:]) <= 86400
        member = ask(port, [("ZRANGE", FLEET_KEY, "0", "0")])[0].split(b"\r\n", 2)[2][:-2]
        assert from_member(member) is not None


def test_what_others_put_there_does_no_harm(plain_server: Server) -> None:
    """Members that are no reads are left out, and so are commands that are none."""
    port = plain_server.port
    ask(port, [("ZADD", FLEET_KEY, "1", b"\x93\x00\xc4\x08flushall\xc4\x05$1\r\nk\r\n")])
    ask(port, [("ZADD", FLEET_KEY, "1", member) for member in (b"", b"x", b"\x93\x00\xc0")])
    fill(port, names(1))
    with warm_sidecar(plain_server.url, {"warm.fleet": "true"}) as sidecar:
        assert ask(sidecar.port, gets(1)) == [b"$12\r\nvalue-of k:0\r\n"]
        assert "internal error" not in sidecar.log()
    assert ask(port, [("EXISTS", "k:0")]) == [b":1\r\n"]


@pytest.mark.parametrize("why", ["acl", "type"])
def test_a_server_that_refuses(plain_server: Server, why: str) -> None:
    """One line, then the sidecar does without."""
    port = plain_server.port
    fill(port, names(10))
    if why == "type":
        fill(port, [FLEET_KEY])
    ask(port, [("ACL", "SETUSER", "bob", "on", ">pw", "+@all", "~k:*")])
    login = "bob:pw@" if why == "acl" else ""
    settings = {"warm.fleet": "true", "warm.interval": 0.1}
    with warm_sidecar(f"redis://{login}127.0.0.1:{port}", settings) as sidecar:
        make_cached(sidecar, port, gets(10))
        assert '"warm fleet disabled"' in sidecar.log()
        begin = calls(port, "zadd")
        assert is_ready(sidecar)
        assert sidecar.stop() == 0
        assert sidecar.log().count("warm fleet disabled") == WORKERS
        assert calls(port, "zadd") == begin
    ask(port, [("ACL", "DELUSER", "bob")])
