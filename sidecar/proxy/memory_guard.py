"""Keeps what requests and replies take below `limits.memory`.

Most of it bounds itself: sessions have few large replies in flight (core/link/weight.pyx), and
clients that do not read are not sent more. What is left is looked at every tick:

* above SOFT of the limit, no more is read from clients whose requests wait for room;
* above the limit, the clients that hold most are closed, until it holds again.

Closing is the last resort: a server without a limit of its own would be killed by the system.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from sidecar.proxy.io.plane import Plane

log = structlog.get_logger()

# One client may have this part of the limit waiting for room.
CLIENT_SHARES = 16
SOFT = 0.75
# Of the memory that the machine or container has, where the setting names no limit.
DEFAULT_SHARE = 0.4
# What is assumed where the system does not say how much memory there is.
UNKNOWN = 4 << 30


def memory_limit(setting: int, root: Path = Path("/")) -> int:
    """The limit in bytes: the setting, or a share of what the container or the machine has."""
    return setting or int(DEFAULT_SHARE * _available(root))


def _available(root: Path) -> int:
    found = [_number(root / "sys/fs/cgroup" / name) for name in _CGROUP_FILES]
    found.append(_total(root / "proc/meminfo"))
    return min((size for size in found if size), default=UNKNOWN)


_CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")


def _number(path: Path) -> int:
    """The number in a file; 0 when there is no file, or no limit in it."""
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _total(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    words = next((line.split() for line in lines if line.startswith("MemTotal:")), [])
    return int(words[1]) * 1024 if len(words) > 1 and words[1].isdigit() else 0


class MemoryGuard:
    """Looks after one plane's buffers. `limit` in bytes."""

    def __init__(self, plane: Plane, limit: int) -> None:
        self._plane = plane
        self.limit = limit

    def tick(self, now: float) -> None:
        """Look at what the buffers take."""
        taken = self._plane.buffered
        self._plane.short_of_memory = taken > SOFT * self.limit
        if taken > self.limit:
            self._close_heaviest(taken - self.limit)

    def _close_heaviest(self, excess: int) -> None:
        """Close the clients that hold most, until so many bytes are free."""
        clients = sorted(self._plane.clients, key=lambda client: client.buffered, reverse=True)
        for client in clients:
            held = client.buffered
            if excess <= 0 or held == 0:
                return
            log.warning("client closed", reason="limits.memory", client=client.id, bytes=held)
            client.close("limit")
            excess -= held
