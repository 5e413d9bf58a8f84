"""What the tests and the bench of the warm start share: a sidecar that caches, and counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .admin import wait_ready
from .process import free_port, wait_until
from .server_stats import calls
from .servers import Sidecar
from .wire import Wire


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


def ask(port: int, requests: Iterable[tuple[str | bytes, ...]], *, db: int = 0) -> list[bytes]:
    """Replies to many requests, in pipelines."""
    with Wire(port, deadline=30) as wire:
        if db:
            assert wire.cmd("SELECT", db) == b"+OK\r\n"
        return wire.pipeline(requests)


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
