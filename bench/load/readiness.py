"""Whether what was started lets a load through."""

from __future__ import annotations

from bench.load.shape import Address
from tests.harness.errors import GONE
from tests.harness.process import Process

READY_DEADLINE = 10.0


def _serves(address: Address) -> bool:
    """A GET through it is answered with a value, or with none."""
    try:
        with address.connect(1.0) as wire:
            return wire.cmd("GET", "key:000000000000")[:1] in b"$_"
    except GONE:
        return False


def wait_ready(process: Process, address: Address) -> None:
    """Wait until it serves; `Unavailable` when it ends, or after a deadline."""
    process.wait_ready(lambda: _serves(address), READY_DEADLINE)
