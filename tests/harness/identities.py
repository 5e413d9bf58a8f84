"""Files of identities for tests, with hashes that cost little."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .servers import Server
from .wire import call


def hashed(password: str) -> str:
    """The PHC string of a password; it takes well under a millisecond."""
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=1, lanes=1, memory_cost=32)
    return kdf.derive_phc_encoded(password.encode())


def entry(
    name: str, *passwords: str, user: str = "", password: str = "", tenant: str = "", more: str = ""
) -> str:
    """An identity: its passwords, and the server's user that it acts as."""
    lines = [f"[identities.{name}]"]
    if passwords:
        lines.append(f"passwords = {[hashed(each) for each in passwords]}")
    if user:
        lines += [f'upstream_username = "{user}"', f'upstream_password = "{password}"']
    if tenant:
        lines.append(f'tenant = "{tenant}"')
    return "\n".join([*lines, more, ""])


def judging(file: Path, text: str, **settings: str) -> dict[str, str]:
    """The settings of a sidecar that judges logins by a file with this text. Other settings have
    `__` for the dot."""
    file.write_text(text)
    others = {name.replace("__", "."): value for name, value in settings.items()}
    return {"identities.mode": "terminate", "identities.file": str(file), **others}


def users(server: Server, *names: str, rules: str = "~* &* +@all") -> None:
    """Make these users of a server, each with the password `NAME-upstream`, and the rules, in which
    `NAME` is the name."""
    for name in names:
        own = rules.replace("NAME", name).split()
        call(server.port, "ACL", "SETUSER", name, "reset", "on", f">{name}-upstream", *own)
