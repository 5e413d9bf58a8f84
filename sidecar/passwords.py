"""Makes and verifies hashed passwords: argon2id, or scrypt where the library has no argon2id.

Both cost memory and tens of milliseconds on purpose, and let other threads run meanwhile: call them
from a thread. `cryptography` is imported where it is used, because it takes half of the start time.
"""

from __future__ import annotations

import base64
import os

from sidecar.settings.phc import Hashed, parse_hash

# What OWASP recommends for argon2id (19 MiB, two passes), and for scrypt (16 MiB).
MEMORY_KIB, PASSES, LANES = 19456, 2, 1
SCRYPT_LOG2_N, SCRYPT_R, SCRYPT_P = 14, 8, 5
SALT, DIGEST = 16, 32  # bytes


def hash_password(password: bytes) -> str:
    """The PHC string of a password, with a new salt."""
    from cryptography.exceptions import UnsupportedAlgorithm

    salt = os.urandom(SALT)
    try:
        hashed = Hashed("argon2id", (MEMORY_KIB, PASSES, LANES), salt, b"")
        return _text(hashed, _digest(hashed, password, DIGEST))
    except UnsupportedAlgorithm:  # OpenSSL before 3.2, or one that is restricted
        hashed = Hashed("scrypt", (SCRYPT_LOG2_N, SCRYPT_R, SCRYPT_P), salt, b"")
        return _text(hashed, _digest(hashed, password, DIGEST))


def verify(password: bytes, phc: str) -> bool:
    """Whether a password is the one of a PHC string. The time it takes tells nothing about it.

    Raises ValueError for a string that `sidecar check` refuses, and
    cryptography.exceptions.UnsupportedAlgorithm if the library lacks the algorithm.
    """
    from cryptography.hazmat.primitives.constant_time import bytes_eq

    hashed = parse_hash(phc)
    return bytes_eq(_digest(hashed, password, len(hashed.hash)), hashed.hash)


def decoy(phc: str) -> str:
    """A PHC string that no password fits, and that takes as much work as this one."""
    hashed = parse_hash(phc)
    like = Hashed(hashed.kind, hashed.costs, os.urandom(len(hashed.salt)), b"")
    return _text(like, os.urandom(len(hashed.hash)))


def _digest(hashed: Hashed, password: bytes, length: int) -> bytes:
    first, second, lanes = hashed.costs
    if hashed.kind == "scrypt":
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        kdf = Scrypt(salt=hashed.salt, length=length, n=1 << first, r=second, p=lanes)
        return kdf.derive(password)
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    return Argon2id(
        salt=hashed.salt, length=length, memory_cost=first, iterations=second, lanes=lanes
    ).derive(password)


def _text(hashed: Hashed, digest: bytes) -> str:
    first, second, lanes = hashed.costs
    salt, end = _base64(hashed.salt), _base64(digest)
    if hashed.kind == "scrypt":
        return f"$scrypt$ln={first},r={second},p={lanes}${salt}${end}"
    return f"$argon2id$v=19$m={first},t={second},p={lanes}${salt}${end}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()
