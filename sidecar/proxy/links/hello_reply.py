"""What a server's reply to HELLO says: the connection's id, the server's version. Pure."""

from __future__ import annotations

import hiredis

# Before this, Redis may send pushes inside of other replies. Any Valkey is new enough.
OLDEST_TO_TRACK = 7
# This Valkey has filters for all that CLIENT LIST tells, and ID became one of them.
FIRST_TO_FILTER = 9

_ID = b"$2\r\nid\r\n:"


def server_id(hello: bytes | None) -> int:
    """The connection's id on the server; 0 if the reply has none."""
    place = _place_of_id(hello or b"")
    return 0 if hello is None or place is None else int(hello[place])


def with_id(hello: bytes, client_id: int) -> bytes:
    """The reply with the id replaced by the client's own."""
    place = _place_of_id(hello)
    if place is None:
        return hello
    return hello[: place.start] + b"%d" % client_id + hello[place.stop :]


def _place_of_id(hello: bytes) -> slice | None:
    at = hello.find(_ID)
    if at < 0:
        return None
    begin = at + len(_ID)
    return slice(begin, hello.index(b"\r\n", begin))


def software(hello: bytes | None) -> tuple[bytes, bytes]:
    """The server's name and version, such as (b"redis", b"7.0.15"); empty if it does not say."""
    reader = hiredis.Reader()
    reader.feed(hello if hello is not None and hello[:1] != b"-" else b"_\r\n")
    said = reader.gets()
    if isinstance(said, list):
        said = dict(zip(said[::2], said[1::2], strict=False))
    if not isinstance(said, dict):
        return b"", b""
    return said.get(b"server", b""), said.get(b"version", b"")


def can_track(hello: bytes | None) -> bool:
    """Whether it is Redis 7 or Valkey, whose tracking the near cache can rely on."""
    server, version = software(hello)
    if server != b"redis":
        return server != b""
    return _major(version) >= OLDEST_TO_TRACK


def lists_ids_once(hello: bytes | None) -> bool:
    """Whether CLIENT LIST ID of this server shows a client once, that is named twice, and in the
    list's order. Redis and the first Valkeys show what was named, in that order."""
    server, version = software(hello)
    return server == b"valkey" and _major(version) >= FIRST_TO_FILTER


def _major(version: bytes) -> int:
    major = version.split(b".")[0]
    return int(major) if major.isdigit() else 0
