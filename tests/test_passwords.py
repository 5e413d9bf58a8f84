"""Hashed passwords: what is made can be verified, and nothing else."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives import constant_time

from sidecar import passwords
from sidecar.passwords import decoy, hash_password, verify
from sidecar.settings.phc import parse_hash

# Of RFC 7914: the password "password", the salt "NaCl".
RFC_7914 = (
    "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
    "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
)


def test_what_is_made_is_verified() -> None:
    made = hash_password(b"pass word \xff")
    assert verify(b"pass word \xff", made)
    assert not verify(b"pass word", made)
    assert parse_hash(made).kind == "argon2id"
    assert hash_password(b"x") != hash_password(b"x")  # another salt


def test_a_known_scrypt_hash() -> None:
    hashed = passwords.Hashed("scrypt", (10, 8, 16), b"NaCl", b"")
    assert passwords._digest(hashed, b"password", 64).hex() == RFC_7914


def test_scrypt_where_there_is_no_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    digest = passwords._digest

    def without(hashed: passwords.Hashed, password: bytes, length: int) -> bytes:
        if hashed.kind == "argon2id":
            raise UnsupportedAlgorithm("argon2id")
        return digest(hashed, password, length)

    monkeypatch.setattr(passwords, "_digest", without)
    made = hash_password(b"pw")
    assert made.startswith("$scrypt$ln=14,r=8,p=5$")
    assert verify(b"pw", made)
    assert not verify(b"pW", made)


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library's function for that: a clock would not show it reliably."""
    compare, seen = constant_time.bytes_eq, []

    def watched(a: bytes, b: bytes) -> bool:
        seen.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(constant_time, "bytes_eq", watched)
    phc = hash_password(b"pw")
    assert [verify(b"pw", phc), verify(b"other", phc)] == [True, False]
    assert [a == b for a, b in seen] == [True, False]


def test_a_decoy_costs_the_same_and_fits_nothing() -> None:
    made = hash_password(b"pw")
    other = decoy(made)
    assert parse_hash(other).costs == parse_hash(made).costs
    assert other != made
    took = []
    for each in (made, other):
        began = time.perf_counter()
        verify(b"guess", each)
        took.append(time.perf_counter() - began)
    assert not verify(b"pw", other)
    assert max(took) < 10 * min(took)


def test_what_is_no_hash() -> None:
    with pytest.raises(ValueError, match="not a hash"):
        verify(b"pw", "pw")
