"""The snapshot's file: whole or not at all, for its owner only; what a fleet's key is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.core.protocol.request import split_arguments
from sidecar.policy.warm_set import Entry, SnapshotError, encode, from_member, score
from sidecar.proxy.nearcache import snapshot as warm_memory
from sidecar.proxy.nearcache.snapshot import CHUNK, Fleet, SnapshotFile

WEIGHTS = [(Entry.of(None, 0, b"get", b"k"), 0.0)]


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    """In a folder of its own."""
    return SnapshotFile(str(tmp_path / "hot set"))


def test_what_is_written_is_read(file: SnapshotFile) -> None:
    file.write(encode(WEIGHTS))
    assert file.read() == WEIGHTS
    assert oct(file.path.stat().st_mode & 0o777) == "0o600"
    assert os.listdir(file.path.parent) == ["hot set"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_changes_nothing(
    file: SnapshotFile, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(encode(WEIGHTS))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(warm_memory.os, fails, fail)
        with pytest.raises(OSError, match="No space"):
            file.write(encode([]))
    assert file.read() == WEIGHTS
    assert os.listdir(file.path.parent) == ["hot set"]


def test_it_is_on_the_disk_before_it_takes_the_place(
    file: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def note(*args: Any, name: str = name, real: Any = real) -> None:
            order.append(name)
            real(*args)

        monkeypatch.setattr(warm_memory.os, name, note)
    file.write(encode(WEIGHTS))
    assert order == ["fsync", "replace", "fsync"]


def test_what_is_no_snapshot(file: SnapshotFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        file.read()
    os.mkfifo(file.path)
    with pytest.raises(SnapshotError, match="not a file"):
        file.read()
    file.path.unlink()
    file.write(encode(WEIGHTS))
    monkeypatch.setattr(warm_memory, "FILE_MOST", 10)
    with pytest.raises(SnapshotError, match="too large"):
        file.read()


def test_what_is_asked_of_the_fleets_key() -> None:
    """In pieces, each entry with its score; then the worst go, and the key's TTL begins anew."""
    entries = [Entry.of(None, 0, b"get", b"%d" % n) for n in range(CHUNK + 3)]
    fleet = Fleet(cast(Any, None), "key", 700)
    asked = [split_arguments(request) for request in fleet._requests(entries, 6000.0)]
    assert [words[:3] for words in asked[:2]] == [[b"ZADD", b"key", b"GT"]] * 2
    pairs = [*asked[0][3:], *asked[1][3:]]
    assert [from_member(member) for member in pairs[1::2]] == entries
    assert [float(found) for found in pairs[::2]] == [
        score(rank, 6000.0) for rank in range(CHUNK + 3)
    ]
    assert len(asked[0]) == 3 + 2 * CHUNK
    assert asked[2:] == [
        [b"ZREMRANGEBYRANK", b"key", b"0", b"-701"],
        [b"EXPIRE", b"key", b"86400"],
    ]
