"""What the tests and the bench of the warm start share: a sidecar that caches, and counting."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from contextlib import suppress

from .process import free_port, wait_until
from .servers import Sidecar
from .wire import Wire, pack

BATCH = 500


def warm_sidecar(
    upstream: str, settings: Mapping[str, str | int | float] | None = None, *, ready: bool = True
) -> Sidecar:
    """One that caches every key unless `settings` say otherwise, and waits until it is warm."""
    everything: dict[str, str | int | float] = {"cache.mode": "rules", "cache.rules": "*"}
    if settings and "cache.mode" in settings:
        everything = {}
    sidecar = Sidecar(
        upstream, settings={**everything, **(settings or {})}, admin=f"127.0.0.1:{free_port()}"
    )
    if ready:
        wait_ready(sidecar)
    return sidecar


def checks(sidecar: Sidecar) -> dict[str, bool]:
    """What /readyz?verbose says, check by check; empty while nobody answers."""
    host, port = sidecar.admin.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    lines: list[str] = []
    with suppress(OSError):
        connection.request("GET", "/readyz?verbose")
        lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line[4:]: line[1] == "+" for line in lines if line.startswith("[")}


def is_ready(sidecar: Sidecar) -> bool:
    """Whether every check holds."""
    found = checks(sidecar)
    return bool(found) and all(found.values())


def wait_ready(sidecar: Sidecar, deadline: float = 20.0) -> None:
    """Wait for /readyz."""
    wait_until(lambda: is_ready(sidecar), "the sidecar is ready", deadline)


def calls(port: int, command: str) -> int:
    """How often a server has executed a command."""
    with Wire(port) as wire:
        for line in wire.cmd("INFO", "commandstats").decode().split("\r\n"):
            if line.startswith(f"cmdstat_{command}:"):
                return int(line.partition("calls=")[2].partition(",")[0])
    return 0


def ask(port: int, requests: Iterable[tuple[str | bytes, ...]], *, db: int = 0) -> list[bytes]:
    """Replies to many requests, in pipelines."""
    requests = list(requests)
    replies: list[bytes] = []
    with Wire(port, deadline=30) as wire:
        if db:
            assert wire.cmd("SELECT", db) == b"+OK\r\n"
        for at in range(0, len(requests), BATCH):
            chunk = requests[at : at + BATCH]
            wire.send(b"".join(pack(*request) for request in chunk))
            replies += wire.read_replies(len(chunk))
    return replies


def fill(port: int, names: Iterable[str], *, db: int = 0, value: str = "value-of") -> None:
    """SET every key to something with its own name in it."""
    ask(port, [("SET", name, f"{value} {name}") for name in names], db=db)


def misses(
    sidecar: Sidecar, server_port: int, requests: Iterable[tuple[str | bytes, ...]], *, db: int = 0
) -> int:
    """How many of these reads, all of one command, the server has had to answer."""
    requests = list(requests)
    command = str(requests[0][0]).lower()
    before = calls(server_port, command)
    for reply in ask(sidecar.port, requests, db=db):
        assert not reply.startswith(b"-"), reply
    return calls(server_port, command) - before


def make_cached(
    sidecar: Sidecar, server_port: int, requests: Iterable[tuple[str | bytes, ...]], *, db: int = 0
) -> None:
    """Read until the near cache answers nearly all of it."""
    requests = list(requests)
    few = len(requests) // 50
    wait_until(lambda: misses(sidecar, server_port, requests, db=db) <= few, "reads are cached", 30)
