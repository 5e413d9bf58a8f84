"""Ids of clients in the requests of other clients, as servers number the links of those.

A client knows our ids; a server knows its connections. So the id of a client in a request becomes
that of its link on the server that the request is for; if the client has no link of its own there,
one that no client has. The servers of a cluster number theirs each for itself: the id of a link
on one of them is somebody else's on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.session import client_filters
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
        return any(self.client_of(args[at]) is None for at in places_of_ids(args))

    def server_of(self, up: Upstream) -> str:
        """The server of a link; see `Nodes.server_of`."""
        return self._nodes.server_of(up.target)

    def node_of(self, args: Sequence[bytes], crowds: Sequence[Crowd]) -> Node:
        """Where the client has its link whose id the arguments have; if it is none of ours, or has
        no link of its own, the home node."""
        at = next(iter(places_of_ids(args)), None)
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
        for at in places_of_ids(args):
            if (link := self._server_and_id(args[at], crowds)) is not None:
                known = link[1] and link[0] == server
                changed[at] = b"%d" % link[1] if known else NOBODY
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


def places_of_ids(args: Sequence[bytes]) -> Sequence[int]:
    """The indices of the ids of other clients, in UNBLOCK, KILL and TRACKING."""
    sub = args[1].upper()
    if sub == b"UNBLOCK":
        return (2,) if len(args) > 2 else ()
    if sub == b"KILL":
        return client_filters.places_of_ids(args)
    at = place_of_redirect(args) if sub == b"TRACKING" else 0
    return (at,) if at else ()


def place_of_redirect(args: Sequence[bytes]) -> int:
    """The index of the id after the first REDIRECT of CLIENT TRACKING; 0 if there is none."""
    places = (at for name, at in options_of_tracking(args) if name == b"REDIRECT")
    return next(places, 0)


def options_of_tracking(args: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """The options of CLIENT TRACKING, each with the index of its value; 0 if it has none. A prefix
    may be called like an option."""
    at = 3
    while at < len(args):
        name = args[at].upper()
        has_value = name in (b"REDIRECT", b"PREFIX") and at + 1 < len(args)
        yield name, at + 1 if has_value else 0
        at += 2 if has_value else 1
