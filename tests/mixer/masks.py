"""What of a reply is different by nature, command by command; and what is not compared at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import hiredis

from tests.harness.resp import elements

Mask: TypeAlias = Callable[[bytes], bytes]


def unordered(reply: bytes) -> bytes:
    """The elements of the outermost aggregate in sorted order."""
    if reply[:1] not in (b"*", b"~", b"%"):
        return reply
    head, found = elements(reply)
    return head + b"".join(sorted(found))


def unordered_deep(reply: bytes) -> bytes:
    """Sorted at every depth; the types of strings are not told apart."""
    reader = hiredis.Reader()
    reader.feed(reply)
    return reply[:1] + repr(_sorted(reader.gets())).encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted(([_sorted(k), _sorted(v)] for k, v in value.items()), key=repr)
    if isinstance(value, (list, tuple, set)):
        return sorted(map(_sorted, value), key=repr)
    return value


def kind_only(reply: bytes) -> bytes:
    """Only the type of the reply; an error as it is."""
    return reply if reply[:1] == b"-" else reply[:1] + b"<content>"


def anything(reply: bytes) -> bytes:
    """Whatever it is."""
    return b"<anything>"


def info(reply: bytes) -> bytes:
    """INFO: the names of its fields, with the values of a few."""
    if b"redis_version" not in reply:
        return _put(rb"(_replid2?:|_offset:|_histlen:|_byte_offset:|_size:|_active:)\w+")(reply)
    return b"\n".join(sorted(re.findall(rb"(?m)^[a-z_]+(?=:)", reply)))


def _put(pattern: bytes, by: bytes = rb"\1<n>") -> Mask:
    return lambda reply: re.sub(pattern, by, reply)


_INTEGERS = rb"(?m)^(:)\d+(?=\r$)"
numbers = _put(_INTEGERS)
"""All integers from 0 on alike: times, and what remains of them."""

_zeros = _put(_INTEGERS, rb"\g<1>0")


def timed_deep(reply: bytes) -> bytes:
    """Sorted at every depth, with all integers from 0 on alike."""
    return unordered_deep(_zeros(reply))


KEPT = rb"(name|flags|db|sub|psub|ssub|multi|watch|user|redir|resp|lib-name|lib-ver|capa)=(\S*)"


def client_lines(reply: bytes) -> bytes:
    """CLIENT LIST and INFO: of each client what is its own, whatever carries it."""
    if b" addr=" not in reply:
        return reply
    lines = [line for line in reply.split(b"\n") if b" addr=" in line]
    # What a connection has once been through shows as multi=0 in place of -1.
    lines = [line.replace(b" multi=0 ", b" multi=-1 ") for line in lines]
    kept = [b" ".join(b"%b=%b" % pair for pair in re.findall(KEPT, line)) for line in lines]
    return b"\n".join(sorted(kept))


TIMES: dict[str, Mask] = dict.fromkeys(
    ["ttl", "pttl", "expiretime", "pexpiretime", "httl", "hpttl", "hexpiretime", "hpexpiretime",
     "lastsave", "object idletime", "object freq", "memory usage"],
    numbers,
)  # fmt: skip
CHANCE: dict[str, Mask] = dict.fromkeys(
    ["randomkey", "zrandmember", "hrandfield", "srandmember", "acl genpass", "lolwut",
     "VRANDMEMBER"],
    kind_only,
)  # fmt: skip
_DEEP: Mask = unordered_deep
_FLAT: Mask = unordered
ORDER: dict[str, Mask] = dict.fromkeys(
    ["keys", "smembers", "sdiff", "sinter", "sunion", "acl cat", "acl list", "acl users",
     "acl getuser", "hgetall", "hkeys", "hvals", "pubsub channels", "config get"],
    _FLAT,
) | dict.fromkeys(
    ["command", "command info", "command docs", "command list", "function list", "scan", "sscan",
     "hscan", "zscan", "command getkeysandflags"],
    _DEEP,
)  # fmt: skip
OWN: dict[str, Mask] = dict.fromkeys(
    ["acl log", "memory stats", "memory doctor", "memory malloc-stats", "time", "slowlog get",
     "slowlog len", "commandlog get", "commandlog len", "function dump", "latency latest",
     "latency doctor", "latency history", "latency reset", "latency histogram",
     "latency graph", "memory purge"],
    kind_only,
)  # fmt: skip
"""What each server says of itself: its memory, its clock, its past."""

MASKS: dict[str, Mask] = {
    **TIMES, **CHANCE, **ORDER, **OWN,
    "info": info, "bgsave": anything, "bgrewriteaof": anything,
    "hello": _put(rb"(\$2\r\nid\r\n:)\d+"),
    "client list": client_lines,
    "client info": client_lines,
    "xpending": _put(rb"(\$\d\r\n(?:C2?|[A-Za-z]+)\r\n:)\d+"),
    "xinfo consumers": _put(rb"(\$(?:4|8)\r\n(?:idle|inactive)\r\n:)\d+"),
    "xinfo stream": _put(rb"(:)\d{9,}"),
    "debug": _put(rb"((?:at:0x|lru:|lru_seconds_idle:))[0-9a-f]+"),
    "role": _put(rb"(:)\d+"),
    "vinfo": _put(rb"(max-level\r\n:)\d+"), "vlinks": kind_only,
}  # fmt: skip

NEVER: dict[str, str] = {
    "pfselftest": "keeps the server busy for seconds",
}
"""Commands without any form here."""

SKIPPED_FORMS: dict[tuple[str, str], str] = {
    ("shutdown", "bare"): "ends the server",
    ("sync", "bare"): "the connection becomes a replica's",
    ("monitor", "right"): "shows the commands of this harness: tests/compat/test_admin_commands.py",
    ("monitor", "odd case"): "the same",
}

DELIBERATE: dict[str, str] = {
    "client id": "`CLIENT ID`, and `id` in the reply to `HELLO`",
    "hello": "`CLIENT ID`, and `id` in the reply to `HELLO`",
    "client list": "`CLIENT LIST`, `CLIENT INFO`",
    "client info": "`CLIENT LIST`, `CLIENT INFO`",
    "info": "`INFO clients`, `SLOWLOG`, `ACL LOG`",
    "acl log": "`INFO clients`, `SLOWLOG`, `ACL LOG`",
    "slowlog get": "`INFO clients`, `SLOWLOG`, `ACL LOG`",
    "monitor": "`MONITOR`",
}
"""Different on purpose: where docs/compatibility.md says so. The masks above leave it out."""
