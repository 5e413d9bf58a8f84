"""Ids of clients in the requests of other clients, as servers number the links of those.

A client knows our ids; a server knows its connections. So the id of a client in a request becomes
that of its link on the server that the request is for; if the client has no link of its own there,
one that no client has. The servers of a cluster number theirs each for itself: the id of a link
on one of them is somebody else's on another.
"""

from __future__ import annotations

from collections.abc import Sequence

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.session.client_ids import NOBODY, ClientIds
from sidecar.proxy.session.client_list import Listed
from sidecar.proxy.session.others import Crowd


class LinkIds:
    """Translates ids."""

    def __init__(self, nodes: Nodes, ids: ClientIds) -> None:
        self._nodes = nodes
        self._ids = ids

    def client_of(self, number: bytes) -> Client | None:
        """Our client with this id; None if there is none, or this is no id."""
        return self._ids.get(int(number)) if number.isdigit() and len(number) < 19 else None

    def names_other(self, args: Sequence[bytes]) -> bool:
        """Whether the arguments have an id that is of no client of this worker."""
        at = place_of_id(args)
        return at is not None and self.client_of(args[at]) is None

    def server_of(self, up: Upstream) -> str:
        """The server of a link; see `Nodes.server_of`."""
        return self._nodes.server_of(up.target)

    def node_of(self, args: Sequence[bytes], crowds: Sequence[Crowd]) -> Node:
        """Where the client has its link whose id the arguments have; if it is none of ours, or has
        no link of its own, the home node."""
        at = place_of_id(args)
        server = self._server_and_id(args[at], crowds) if at is not None else None
        nodes = self._nodes.all if server is not None else ()
        found = (n for n in nodes if server and self.server_at(n) == server[0])
        return next(found, self._nodes.home)

    def server_at(self, node: Node) -> str:
        """The server of a node."""
        return self._nodes.server_of(node.dialer.target)

    def translated(self, args: Sequence[bytes], server: str, crowds: Sequence[Crowd] = ()) -> bytes:
        """The request, for this server. Ids that are none of our clients' stay as they are."""
        changed = list(args)
        at = place_of_id(args)
        link = self._server_and_id(args[at], crowds) if at is not None else None
        if at is not None and link is not None:
            changed[at] = b"%d" % link[1] if link[1] and link[0] == server else NOBODY
        return pack_command(tuple(changed))

    def _server_and_id(self, number: bytes, crowds: Sequence[Crowd]) -> tuple[str, int] | None:
        """The server of the link of this client, and its id there, 0 if others share it; None: it
        is no client of ours."""
        if (other := self.client_of(number)) is not None:
            up = other.dedicated
            return (self.server_of(up), up.server_id) if up is not None else ("", 0)
        listed = _listed_as(number, crowds)
        if listed is None:
            return None
        return listed.server, 0 if listed.carried else listed.link_id


def _listed_as(number: bytes, crowds: Sequence[Crowd]) -> Listed | None:
    """The client with this id, of other workers."""
    everybody = (each for crowd in crowds for each in crowd.clients)
    return next((each for each in everybody if number == b"%d" % each.id), None)


def place_of_id(args: Sequence[bytes]) -> int | None:
    """The index of the id of another client, in UNBLOCK, KILL and TRACKING."""
    words = [a.upper() for a in args]
    if words[1] == b"UNBLOCK":
        return 2 if len(args) > 2 else None
    mark = {b"KILL": b"ID", b"TRACKING": b"REDIRECT"}.get(words[1], b"")
    return words.index(mark, 2) + 1 if mark in words[2:-1] else None


def place_of_redirect(args: Sequence[bytes]) -> int:
    """The index of the id after REDIRECT; 0 if there is none."""
    words = [a.upper() for a in args[:-1]]
    return words.index(b"REDIRECT") + 1 if b"REDIRECT" in words else 0
