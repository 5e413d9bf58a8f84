"""The connection's id in a server's reply to HELLO. Pure: bytes in, bytes out."""

from __future__ import annotations

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
