"""What a server counts and lists: commands executed, clients. The sidecar can't embellish it."""

from __future__ import annotations

import re

from .wire import Wire

SIDECAR = "redis-sidecar"
"""How a sidecar names its own connections (CLIENT LIST)."""


def all_calls(wire: Wire) -> dict[str, int]:
    """How often a server has executed each command, by name in small letters."""
    said = wire.cmd("INFO", "commandstats").decode()
    return {name: int(count) for name, count in re.findall(r"cmdstat_(\S+):calls=(\d+)", said)}


def calls(server: Wire | int, command: str) -> int:
    """How often a server, given by a connection to it or by its port, has executed a command."""
    if isinstance(server, int):
        with Wire(server) as wire:
            return calls(wire, command)
    return all_calls(server).get(command.lower(), 0)


def clients(wire: Wire) -> list[dict[str, str]]:
    """CLIENT LIST, field by field."""
    lines = wire.cmd("CLIENT", "LIST").decode().splitlines()
    rows = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return [row for row in rows if row]


def links(wire: Wire, *, tracked: bool) -> list[dict[str, str]]:
    """The connections of sidecars to a server: those of near caches, or the others."""
    found = [row for row in clients(wire) if row.get("name") == SIDECAR]
    return [row for row in found if ("t" in row["flags"]) == tracked]
