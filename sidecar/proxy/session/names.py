"""Names of clients: CLIENT SETNAME, CLIENT SETINFO, and SETNAME in HELLO.

The sidecar keeps the names, because a shared link cannot have them. A dedicated link gets those of
its client on the server, too: a transaction may ask for them. Some names have a meaning: `fresh`
(see `wants_fresh`), and trace contexts (see policy/trace_context.py).
"""

from __future__ import annotations

from collections.abc import Callable

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.session.hello import wants_fresh

# Of a client: its name, and the name and the version of its library.
Names = tuple[bytes, bytes, bytes]
NAMELESS: Names = (b"", b"", b"")


class ClientNames:
    """Sets and forgets names. `named` is called with each new name."""

    def __init__(self, named: Callable[[Client, bytes], None]) -> None:
        self._named = named

    def set_name(self, client: Client, name: bytes) -> None:
        """Set a client's name; empty: none."""
        client.name = name
        client.fresh = wants_fresh(name)
        self._named(client, name)

    @staticmethod
    def set_info(client: Client, attribute: bytes, value: bytes) -> None:
        """Keep an attribute of CLIENT SETINFO."""
        if attribute.upper() == b"LIB-NAME":
            client.lib_name = value
        else:
            client.lib_version = value

    def reset(self, client: Client) -> None:
        """Forget the name, as RESET does; the library behind the connection stays the same."""
        self.set_name(client, b"")

    @staticmethod
    def introduction(up: Upstream, protocol: int, names: Names = NAMELESS) -> list[bytes]:
        """The requests that give a link the names of a client on the server; none for those that it
        has, from this client or another. HELLO sets the name, because every user may say that."""
        before, up.names = up.names, names
        name, lib_name, lib_version = names
        words = [
            (b"HELLO", b"%d" % protocol, b"SETNAME", name),
            (b"CLIENT", b"SETINFO", b"LIB-NAME", lib_name),
            (b"CLIENT", b"SETINFO", b"LIB-VER", lib_version),
        ]
        if up.target is not None and up.target.refusals.setinfo_by is not None:
            del words[1:]  # the server has no CLIENT SETINFO
        return [
            pack_command(request)
            for at, request in enumerate(words)
            if before is None or before[at] != request[-1]
        ]
