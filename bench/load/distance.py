"""A server that is further away: `delayline.c`, compiled and started."""

from __future__ import annotations

from pathlib import Path

from bench.load.compiled import compiled
from bench.load.readiness import wait_ready
from bench.load.shape import Address
from tests.harness.fleet import Fleet
from tests.harness.process import free_port

SOURCE = Path(__file__).with_name("delayline.c")


def further(fleet: Fleet, port: int, seconds: float, cache: Path | None = None) -> int:
    """A port that leads to the server at `port`; each round trip is longer by `seconds`."""
    near = free_port()
    argv = [str(compiled(SOURCE, cache)), str(near), str(port), str(round(seconds * 1e9))]
    wait_ready(fleet.start("delay", argv), Address(port=near))
    return near
