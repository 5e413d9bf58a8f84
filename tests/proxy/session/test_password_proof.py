"""Judging passwords: the same work for every name, one verification for the same password."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar import passwords
from sidecar.proxy.session import password_proof
from sidecar.proxy.session.identity_book import IdentityBook
from sidecar.proxy.session.password_proof import BusyError, PasswordProof
from sidecar.settings.load import load
from tests.harness.identities import entry, hashed, judging


@pytest.fixture
def book(tmp_path: Path) -> IdentityBook:
    text = (
        entry("one", "pw") + entry("three", "a", "b", "c") + entry("none", more='peers=["uid:1"]')
    )
    settings = judging(tmp_path / "identities.toml", text, listen__urls="unix:///run/x")
    return IdentityBook(load(None, settings, {}))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many hashes each verification has tried."""
    counts: list[int] = []
    fits = password_proof._fits_any

    def counting(password: bytes, hashes: Sequence[str]) -> bool:
        counts.append(len(hashes))
        return fits(password, hashes)

    monkeypatch.setattr(password_proof, "_fits_any", counting)
    return counts


@pytest.mark.parametrize("user", [b"one", b"three", b"none", b"nobody", b"\xff"])
async def test_the_same_work_for_every_name(
    book: IdentityBook, tried: list[int], user: bytes
) -> None:
    proof = PasswordProof(book)
    assert not await proof.judge("host", user, b"wrong")
    assert tried == [3]
    proof.close()


def test_all_hashes_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the first one fits: how long it takes tells nothing of which."""
    verify, seen = passwords.verify, []

    def counting(password: bytes, phc: str) -> bool:
        seen.append(phc)
        return verify(password, phc)

    monkeypatch.setattr(passwords, "verify", counting)
    hashes = [hashed(each) for each in ("a", "b", "c")]
    assert password_proof._fits_any(b"a", hashes)
    assert seen == hashes


async def test_each_of_several_passwords(book: IdentityBook) -> None:
    proof = PasswordProof(book)
    assert [await proof.judge("host", b"three", each) for each in (b"a", b"b", b"c")] == [True] * 3
    assert await proof.judge("host", b"one", b"pw")
    assert not await proof.judge("host", b"one", b"a")
    assert not await proof.judge("host", b"none", b"")
    proof.close()


async def test_the_same_password_is_verified_once(book: IdentityBook, tried: list[int]) -> None:
    proof = PasswordProof(book)
    judged = await asyncio.gather(*(proof.judge("host", b"one", b"pw") for _ in range(500)))
    assert judged == [True] * 500
    assert await proof.judge("elsewhere", b"one", b"pw")
    assert len(tried) == 1
    proof.close()


async def test_what_was_refused_is_not_remembered(book: IdentityBook, tried: list[int]) -> None:
    proof = PasswordProof(book)
    for _ in range(2):
        assert not await proof.judge("host", b"one", b"wrong")
    assert len(tried) == 2
    proof.close()


async def test_too_many_at_once_are_not_looked_at(
    book: IdentityBook, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(password_proof, "MOST_WAITING", 5)
    proof = PasswordProof(book)
    judged = await asyncio.gather(
        *(proof.judge(f"host{n}", b"one", b"guess%d" % n) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, BusyError) for each in judged) == 15
    assert len(tried) == 5
    proof.close()


async def test_another_file_counts_at_once(book: IdentityBook, tmp_path: Path) -> None:
    proof = PasswordProof(book)
    assert await proof.judge("host", b"one", b"pw")
    text = entry("one", "other")
    book.use(load(None, judging(tmp_path / "identities.toml", text), {}))
    assert not await proof.judge("host", b"one", b"pw")
    assert await proof.judge("host", b"one", b"other")
    proof.close()
