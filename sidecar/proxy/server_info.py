"""What the server behind says of itself: role, version, memory, replicas.

Asked with INFO, on a connection of its own that is kept while somebody looks, at most once in
FRESH seconds however many look. It never takes part in what clients do: no probe for the circuit
breaker, and a server that does not answer costs no more than WITHIN seconds of whoever asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import hiredis
from hiredis import pack_command

from sidecar.proxy.links.dialer import Dialer
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection, is_error

FRESH = 1.0
WITHIN = 1.0
UNUSED = 30.0
# One section each: before Redis 7 INFO takes no more.
SECTIONS = ("server", "memory", "replication", "stats")
QUESTIONS = tuple(pack_command((b"INFO", section.encode())) for section in SECTIONS)

_NUMBERS = {
    "uptime_in_seconds": "uptime_s",
    "used_memory": "used_memory",
    "maxmemory": "maxmemory",
    "connected_slaves": "connected_replicas",
    "instantaneous_ops_per_sec": "ops_per_second",
    "evicted_keys": "evicted_keys",
}


class ServerInfo:
    """The facts of the server that `dialer` leads to. It is asked on a connection past the dialer,
    which is to count none of this."""

    def __init__(self, dialer: Dialer, login: Login, version: bytes) -> None:
        self._dialer = dialer
        self._login = login
        self._version = version
        self._connection: ServerConnection | None = None
        self._known: Mapping[str, Any] = {}
        self._at = 0.0
        self._asked = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> Mapping[str, Any]:
        """The facts, not older than FRESH; `error` says why there are none."""
        self._asked = time.monotonic()
        async with self._asking:
            if time.monotonic() - self._at > FRESH or self._stale:
                self._known = await self._ask()
                self._at = time.monotonic()
        return self._known

    @property
    def _stale(self) -> bool:
        """Whether what is known is of another server than that of now."""
        return self._connection is not None and self._connection.target is not self._dialer.target

    async def _ask(self) -> Mapping[str, Any]:
        if self._stale:
            self.close()
        try:
            async with asyncio.timeout(WITHIN):
                connection = self._connection or await self._open()
                began = time.monotonic()
                replies = await connection.ask(*QUESTIONS, within=WITHIN)
                seconds = time.monotonic() - began
        except (Refused, Unreachable) as error:
            self.close()
            return {"error": str(error)}
        except TimeoutError:
            self.close()
            return {"error": f"no answer within {WITHIN:g} s"}
        refused = next((reply for reply in replies if is_error(reply)), None)
        if refused is not None:
            return {"error": refused[1:].decode("utf-8", "replace").strip()}
        return facts_of("\n".join(map(_text, replies))) | {"info_s": round(seconds, 6)}

    async def _open(self) -> ServerConnection:
        target = self._dialer.target
        if target is None:
            raise Unreachable(self._dialer.unknown)
        connection = await ServerConnection.open(target)
        await connection.greet(self._login, self._version)
        self._connection = connection
        return connection

    def server_ids(self) -> set[int]:
        """The server's id of the connection, if there is one."""
        return {self._connection.server_id} if self._connection is not None else set()

    def tick(self, now: float) -> None:
        """Close the connection when nobody has asked for a while."""
        if self._connection is not None and now - self._asked > UNUSED:
            self.close()

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()


def _text(reply: bytes) -> str:
    reader = hiredis.Reader()
    reader.feed(reply)
    said = reader.gets()
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def facts_of(info: str) -> dict[str, Any]:
    """What INFO's text says, in this program's words; what is missing is left out."""
    fields = dict(
        line.split(":", 1) for line in info.splitlines() if ":" in line and line[:1] != "#"
    )
    facts: dict[str, Any] = {
        "software": fields.get("server_name") or "redis",
        "version": fields.get("valkey_version") or fields.get("redis_version"),
        "role": {"slave": "replica"}.get(fields.get("role", ""), fields.get("role")),
    }
    for field, name in _NUMBERS.items():
        with suppress(KeyError, ValueError):
            facts[name] = int(fields[field])
    offset = _number(fields.get("master_repl_offset"))
    facts["replicas"] = [
        replica
        for number in range(facts.get("connected_replicas", 0))
        if (replica := _replica(fields.get(f"slave{number}", ""), offset)) is not None
    ]
    if facts["role"] == "replica":
        facts["master_link"] = fields.get("master_link_status")
    return facts


def _replica(line: str, offset: int | None) -> dict[str, Any] | None:
    """`ip=…,port=…,state=online,offset=…,lag=0` of a master's INFO."""
    words = dict(word.split("=", 1) for word in line.split(",") if "=" in word)
    if "ip" not in words or "port" not in words:
        return None
    own = _number(words.get("offset"))
    behind = max(0, offset - own) if offset is not None and own is not None else None
    host = f"[{words['ip']}]" if ":" in words["ip"] else words["ip"]
    return {
        "address": f"{host}:{words['port']}",
        "state": words.get("state", "?"),
        "lag_bytes": behind,
        "lag_s": _number(words.get("lag")),
    }


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
