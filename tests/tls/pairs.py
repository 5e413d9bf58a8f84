"""A handshake of two `SSLObject`s in memory, as far as it comes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass
class Pair:
    """Both ends, and the error of each; None: its handshake has ended well."""

    server: ssl.SSLObject
    client: ssl.SSLObject
    server_error: ssl.SSLError | None
    client_error: ssl.SSLError | None


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> Pair:
    """Shake hands. With TLS 1.3 the client hears of being refused when it reads."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = {
        "client": client.wrap_bio(to_client, to_server, server_hostname=name),
        "server": server.wrap_bio(to_server, to_client, server_side=True),
    }
    errors: dict[str, ssl.SSLError | None] = {"client": None, "server": None}
    for _ in range(4):
        for which, end in ends.items():
            if errors[which] is None:
                errors[which] = _step(end)
    if errors["client"] is None:
        errors["client"] = _read(ends["client"])
    return Pair(ends["server"], ends["client"], errors["server"], errors["client"])


def _step(end: ssl.SSLObject) -> ssl.SSLError | None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError as error:
        return error
    return None


def _read(end: ssl.SSLObject) -> ssl.SSLError | None:
    try:
        end.read(1)
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError as error:
        return error
    return None
