"""Names of clients: CLIENT SETNAME, CLIENT SETINFO, and SETNAME in HELLO.

The sidecar keeps the names, because a shared link cannot have them; a pinned link gets them on the
server, too. Some names have a meaning: `fresh` (see `wants_fresh`), and trace contexts (see
policy/trace_context.py).
"""

from __future__ import annotations

from collections.abc import Callable

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.session.hello import is_plain_word, wants_fresh


class ClientNames:
    """Sets and forgets names. `setinfo_known` says whether the server has CLIENT SETINFO; `named`
    is called with each new name."""

    def __init__(
        self, setinfo_known: Callable[[], bool], named: Callable[[Client, bytes], None]
    ) -> None:
        self._setinfo_known = setinfo_known
        self._named = named

    def set_name(self, client: Client, name: bytes) -> None:
        """Set a client's name; empty: none."""
        client.name = name
        client.fresh = wants_fresh(name)
        self._named(client, name)

    def set_info(self, client: Client, attribute: bytes, value: bytes) -> bool:
        """Keep an attribute of CLIENT SETINFO; False if only the server can tell its meaning."""
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
        """Forget all names, as RESET does."""
        client.lib_name = client.lib_version = b""
        self.set_name(client, b"")

    def introduction(self, client: Client) -> list[bytes]:
        """The requests that give a pinned link its client's names on the server."""
        requests = []
        if client.name:
            requests.append(pack_command((b"CLIENT", b"SETNAME", client.name)))
        if client.lib_name and self._setinfo_known():
            requests.append(pack_command((b"CLIENT", b"SETINFO", b"LIB-NAME", client.lib_name)))
        if client.lib_version and self._setinfo_known():
            requests.append(pack_command((b"CLIENT", b"SETINFO", b"LIB-VER", client.lib_version)))
        return requests
