"""What a server's reply to HELLO says: the connection's id, the server's version. Pure."""

from __future__ import annotations

import hiredis

from sidecar.policy.server_version import ServerVersion

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


def version_of(hello: bytes | None) -> ServerVersion:
    """The server's name and version."""
    reader = hiredis.Reader()
    reader.feed(hello if hello is not None and hello[:1] != b"-" else b"_\r\n")
    said = reader.gets()
    if isinstance(said, list):
        said = dict(zip(said[::2], said[1::2], strict=False))
    if not isinstance(said, dict):
        return ServerVersion()
    name, version = said.get(b"server", b""), said.get(b"version", b"")
    return ServerVersion(name.decode("latin-1"), version.decode("latin-1"))
