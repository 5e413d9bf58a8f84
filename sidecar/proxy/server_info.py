"""What the server says of itself in INFO: role, version, memory, replicas.

INFO is sent at most once in FRESH seconds, on a connection of its own (side_connection.py). A
server that does not answer delays only the asker, by at most WITHIN seconds.
"""

from __future__ import annotations

import asyncio
import time

import hiredis
from hiredis import pack_command

from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import is_error
from sidecar.proxy.links.info_reply import fields_of
from sidecar.proxy.side_connection import SideConnection
from sidecar.settings.addresses import join_host_port
from sidecar.telemetry.facts import Replica, Server

FRESH = 1.0
WITHIN = 1.0
# One section in each request: before Redis 7, INFO takes only one.
SECTIONS = ("server", "memory", "replication", "stats")
QUESTIONS = tuple(pack_command((b"INFO", section.encode())) for section in SECTIONS)


class ServerInfo:
    """Asks on `side`, and keeps what was answered."""

    def __init__(self, side: SideConnection) -> None:
        self._side = side
        self._known = Server()
        self._at = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> Server:
        """The facts, at most FRESH seconds old; `error` says why there are none."""
        async with self._asking:
            if time.monotonic() - self._at > FRESH or self._side.stale:
                self._known = await self._ask()
                self._at = time.monotonic()
        return self._known

    async def _ask(self) -> Server:
        try:
            replies = await self._side.ask(*QUESTIONS, within=WITHIN)
        except (Refused, Unreachable) as error:
            return Server(error=str(error))
        refused = next((reply for reply in replies if is_error(reply)), None)
        if refused is not None:
            return Server(error=refused[1:].decode("utf-8", "replace").strip())
        return facts_of("\n".join(map(_text, replies)), round(self._side.took, 6))


def _text(reply: bytes) -> str:
    reader = hiredis.Reader()
    reader.feed(reply)
    said = reader.gets()
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def facts_of(info: str, seconds: float | None = None) -> Server:
    """Parse the text of INFO, which took so many seconds to get."""
    fields = fields_of(info)
    role = {"slave": "replica"}.get(fields.get("role", ""), fields.get("role"))
    offset = _number(fields.get("master_repl_offset"))
    connected = _number(fields.get("connected_slaves"))
    lines = (fields.get(f"slave{i}", "") for i in range(min(connected or 0, len(fields))))
    return Server(
        software=fields.get("server_name") or "redis",
        version=fields.get("valkey_version") or fields.get("redis_version"),
        role=role,
        master_link=fields.get("master_link_status") if role == "replica" else None,
        uptime_s=_number(fields.get("uptime_in_seconds")),
        used_memory=_number(fields.get("used_memory")),
        maxmemory=_number(fields.get("maxmemory")),
        connected_replicas=connected,
        ops_per_second=_number(fields.get("instantaneous_ops_per_sec")),
        evicted_keys=_number(fields.get("evicted_keys")),
        replicas=[found for line in lines if (found := _replica(line, offset)) is not None],
        info_s=seconds,
    )


def _replica(line: str, offset: int | None) -> Replica | None:
    """Parse `ip=…,port=…,state=online,offset=…,lag=0`."""
    words = dict(word.split("=", 1) for word in line.split(",") if "=" in word)
    port = _number(words.get("port"))
    if "ip" not in words or port is None:
        return None
    own = _number(words.get("offset"))
    return Replica(
        address=join_host_port(words["ip"], port),
        state=words.get("state", "?"),
        lag_bytes=max(0, offset - own) if offset is not None and own is not None else None,
        lag_s=_number(words.get("lag")),
    )


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
