"""Hashed passwords as text, in the PHC string format: "$argon2id$v=19$m=19456,t=2,p=1$salt$hash".

Only the form and the cost are looked at; sidecar/passwords.py makes and verifies them. The costs
are capped, because a login takes as much memory and time as its hash says. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal

# Of one verification: 1 GiB of memory, and passes over it. Whoever writes more means something
# else, or wants logins to exhaust the host.
MOST_MEMORY = 1 << 30
MOST_PASSES = 64
MOST_LANES = 16
_KiB = 1 << 10
_SHORTEST = 8  # bytes of a salt, and of a hash
_LONGEST = 128

_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,10}),t=(\d{1,10}),p=(\d{1,10})\$([^$\s]+)\$([^$\s]+)"
)
_SCRYPT = re.compile(r"\$scrypt\$ln=(\d{1,3}),r=(\d{1,10}),p=(\d{1,10})\$([^$\s]+)\$([^$\s]+)")


@dataclass(frozen=True)
class Hashed:
    """A hashed password. `costs` are (m, t, p) of argon2id, with m in KiB, or (ln, r, p) of
    scrypt."""

    kind: Literal["argon2id", "scrypt"]
    costs: tuple[int, int, int]
    salt: bytes
    hash: bytes

    def __repr__(self) -> str:
        return f"<Hashed {self.kind} {self.costs}>"


# The least of what OWASP recommends: memory, and memory times passes (argon2id: KiB; scrypt: N,
# and N r p).
_LEAST_MEMORY, _LEAST_WORK = 7168, 35840
_LEAST_LOG2_N, _LEAST_SCRYPT_WORK = 13, 655360


def is_weak(hashed: Hashed) -> bool:
    """Whether trying passwords against it costs less than what is recommended."""
    first, second, lanes = hashed.costs
    if hashed.kind == "scrypt":
        return first < _LEAST_LOG2_N or (second * lanes << min(first, 40)) < _LEAST_SCRYPT_WORK
    return first < _LEAST_MEMORY or first * second < _LEAST_WORK


def parse_hash(text: str) -> Hashed:
    """What a PHC string says. Raises ValueError, which shows nothing of it."""
    found = _ARGON2ID.fullmatch(text)
    kind: Literal["argon2id", "scrypt"] = "argon2id"
    if found is None:
        found, kind = _SCRYPT.fullmatch(text), "scrypt"
    if found is None:
        raise ValueError(
            "not a hash that is known: an argon2id or scrypt string is expected, as "
            "`sidecar identities hash` prints it"
        )
    first, second, lanes = (int(part) for part in found.groups()[:3])
    memory = first * _KiB
    passes = second
    if kind == "scrypt":
        passes = lanes
        memory = 128 * second << min(first, 40)
    if memory > MOST_MEMORY or passes > MOST_PASSES or lanes > MOST_LANES:
        raise ValueError(
            "a hash that costs too much: at most 1 GiB of memory, 64 passes and 16 lanes"
        )
    if not (first and second and lanes) or (kind == "argon2id" and first < 8 * lanes):
        raise ValueError("a hash whose costs are too small to be computed")
    return Hashed(kind, (first, second, lanes), _bytes(found[4]), _bytes(found[5]))


def _bytes(text: str) -> bytes:
    """Base64 without padding."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not _SHORTEST <= len(found) <= _LONGEST:
        raise ValueError("a hash whose salt or digest is not Base64 of 8 to 128 bytes")
    return found
