"""Hashed passwords as text."""

from __future__ import annotations

import pytest

from sidecar.settings.phc import parse_hash

SALT, DIGEST = "c29tZXNhbHQxMg", "wUkNjpF6G7fEflFeIsKSEJ"


def test_both_kinds() -> None:
    found = parse_hash(f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${DIGEST}")
    assert (found.kind, found.costs, found.salt) == ("argon2id", (19456, 2, 1), b"somesalt12")
    found = parse_hash(f"$scrypt$ln=14,r=8,p=1${SALT}${DIGEST}")
    assert (found.kind, found.costs) == ("scrypt", (14, 8, 1))
    assert SALT not in repr(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a hash that is known"),
        ("hunter2", "not a hash that is known"),
        (f"$argon2i$v=19$m=19456,t=2,p=1${SALT}${DIGEST}", "not a hash that is known"),
        (f"$argon2id$v=16$m=19456,t=2,p=1${SALT}${DIGEST}", "not a hash that is known"),
        (f"$argon2id$v=19$m=9999999,t=2,p=1${SALT}${DIGEST}", "costs too much"),
        (f"$argon2id$v=19$m=19456,t=65,p=1${SALT}${DIGEST}", "costs too much"),
        (f"$argon2id$v=19$m=19456,t=2,p=17${SALT}${DIGEST}", "costs too much"),
        (f"$argon2id$v=19$m=7,t=2,p=1${SALT}${DIGEST}", "too small"),
        (f"$argon2id$v=19$m=19456,t=0,p=1${SALT}${DIGEST}", "too small"),
        (f"$scrypt$ln=999,r=8,p=1${SALT}${DIGEST}", "costs too much"),
        (f"$scrypt$ln=14,r=8,p=0${SALT}${DIGEST}", "too small"),
        (f"$scrypt$ln=14,r=8,p=1$short${DIGEST}", "not Base64 of 8 to 128 bytes"),
        (f"$scrypt$ln=14,r=8,p=1${SALT}$****************", "not Base64 of 8 to 128 bytes"),
        (f"$scrypt$ln=14,r=8,p=1${SALT}${DIGEST}\n", "not a hash that is known"),
    ],
)
def test_what_is_no_hash(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_hash(text)
