"""What an operator wants to know of two servers before clients go from one to the other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hiredis import pack_command

from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import ServerConnection, is_error, parsed
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.info_reply import fields_of
from sidecar.telemetry.facts import ComparedServer

SECTIONS = ("server", "replication", "memory", "keyspace", "modules")
QUESTIONS = (
    *(pack_command((b"INFO", section.encode())) for section in SECTIONS),
    pack_command((b"CONFIG", b"GET", b"notify-keyspace-events")),
)
# A keyspace that differs by more than this share is worth a warning.
DIFFERS = 0.01


async def ask(connection: ServerConnection) -> ComparedServer:
    """What this server tells of itself; what its user may not ask for is None."""
    address = connection.target.address
    try:
        *infos, notify = await connection.ask(*QUESTIONS)
    except Unreachable as error:
        return ComparedServer(address=address, error=str(error))
    refused = next((reply for reply in infos if is_error(reply)), b"")
    text = "\n".join(_text(reply) for reply in infos if not is_error(reply))
    fields = fields_of(text)
    valkey = fields.get("valkey_version")
    role = {"master": "master", "slave": "replica"}.get(fields.get("role", ""))
    return ComparedServer(
        address=address,
        run_id=fields.get("run_id"),
        software=("valkey" if valkey else "redis") if fields else None,
        version=valkey or fields.get("redis_version"),
        role=role,
        keys={int(db): int(n) for db, n in re.findall(r"^db(\d+):keys=(\d+)", text, re.M)},
        modules=sorted(re.findall(r"^module:name=([^,\s]+)", text, re.M)),
        used_memory=_number(fields.get("used_memory")),
        maxmemory=_number(fields.get("maxmemory")),
        maxmemory_policy=fields.get("maxmemory_policy"),
        notify_keyspace_events=_second(notify),
        error=refused.decode("utf-8", "replace").strip()[1:] or None,
    )


async def ask_own(own: NodeLinks) -> ComparedServer:
    """What the server in use tells, asked on a connection of its own."""
    target = own.node.dialer.target
    address = target.address if target is not None else "unknown"
    try:
        connection = await own.open(urgent=True)
    except (Refused, Unreachable) as error:
        return ComparedServer(address=address, error=str(error))
    try:
        return await ask(connection)
    finally:
        connection.close()


def warnings(old: ComparedServer, new: ComparedServer) -> Iterator[str]:
    """What may surprise those who go from the old server to the new one."""
    for which, server in (("old", old), ("new", new)):
        if server.error:
            yield f"the {which} server does not tell everything: {server.error}"
    if old.run_id and old.run_id == new.run_id:
        yield "both addresses lead to the same server"
    for db in sorted({*old.keys, *new.keys}):
        before, after = old.keys.get(db, 0), new.keys.get(db, 0)
        if abs(after - before) > DIFFERS * max(before, after):
            yield f"db {db} has {before} keys on the old server and {after} on the new one"
    for what in ("maxmemory", "maxmemory_policy", "notify_keyspace_events"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after and None not in (before, after):
            yield f"{what.replace('_', '-')} differs: {before!r} is {after!r} on the new server"
    for module in sorted({*old.modules} - {*new.modules}) if not new.error else ():
        yield f"the new server lacks the module {module}"
    if (new.maxmemory or 0) and (old.used_memory or 0) > (new.maxmemory or 0):
        yield "the old server uses more memory than the new one may (maxmemory)"


def _text(reply: bytes) -> str:
    said = parsed(reply)
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else ""


def _second(reply: bytes) -> str | None:
    said = parsed(reply) if not is_error(reply) else None
    if isinstance(said, list) and len(said) == 2 and isinstance(said[1], bytes):
        return said[1].decode("utf-8", "replace")
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
