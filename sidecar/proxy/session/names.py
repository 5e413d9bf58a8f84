"""What clients call themselves: CLIENT SETNAME and SETINFO, the name in HELLO.

The sidecar keeps these, since the connection behind is shared; a link that a client has to itself
is introduced to the server with them. A name can also ask for something: see `wants_fresh`, and
policy/trace_context.py for the one who is told of names.
"""

from __future__ import annotations

from collections.abc import Callable

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.session.hello import is_plain_word, wants_fresh


class ClientNames:
    """Sets and forgets names. `setinfo_known` tells whether the server has CLIENT SETINFO; `named`
    is told the name that a client has given itself."""

    def __init__(
        self, setinfo_known: Callable[[], bool], named: Callable[[Client, bytes], None]
    ) -> None:
        self._setinfo_known = setinfo_known
        self._named = named

    def set_name(self, client: Client, name: bytes) -> None:
        """A client has given itself this name; empty: none."""
        client.name = name
        client.fresh = wants_fresh(name)
        self._named(client, name)

    def set_info(self, client: Client, attribute: bytes, value: bytes) -> bool:
        """Keep what CLIENT SETINFO says; False when it might be an error, or news to the server."""
        if not self._setinfo_known() or not is_plain_word(value):
            return False
        if attribute.upper() == b"LIB-NAME":
            client.lib_name = value
        elif attribute.upper() == b"LIB-VER":
            client.lib_version = value
        else:
            return False
        return True

    def forget(self, client: Client) -> None:
        """As RESET does."""
        client.lib_name = client.lib_version = b""
        self.set_name(client, b"")

    def introduction(self, client: Client) -> list[bytes]:
        """Requests that make a pinned link look like its client to CLIENT LIST."""
        requests = []
        if client.name:
            requests.append(pack_command((b"CLIENT", b"SETNAME", client.name)))
        if client.lib_name and self._setinfo_known():
            requests.append(pack_command((b"CLIENT", b"SETINFO", b"LIB-NAME", client.lib_name)))
        if client.lib_version and self._setinfo_known():
            requests.append(pack_command((b"CLIENT", b"SETINFO", b"LIB-VER", client.lib_version)))
        return requests
