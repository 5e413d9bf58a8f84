"""Rewrites CLIENT LIST and CLIENT INFO: the clients of this sidecar instead of its links.

The server lists the sidecar's links. Their lines are removed, and each client gets a line, made
from that of its link: what the server counts (memory, flags) stays; id, address, names, age and
traffic are the client's. Pure: text and facts in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sidecar.proxy.links.greeting import NAME

Line = dict[bytes, bytes]


UNUSED: Line = {
    b"flags": b"N", b"sub": b"0", b"psub": b"0", b"ssub": b"0", b"multi": b"-1", b"watch": b"0",
    b"redir": b"-1", b"capa": b"", b"qbuf": b"0", b"qbuf-free": b"0", b"argv-mem": b"0",
    b"multi-mem": b"0", b"obl": b"0", b"oll": b"0", b"omem": b"0",
}  # fmt: skip
"""What a line says of a connection that has not been used yet."""


@dataclass(frozen=True)
class Listed:
    """The facts of one client, by field.

    `link_id` is the id of its link on the `server`, which is named where there are several;
    `carried`: others may share that link. `told` is what only the sidecar knows; `own` is what the
    server knows as well, if the link is the client's own. `redirected`: the client to which its
    tracking is redirected, by the id of that one's link; `added`: how many requests of the
    sidecar's own are in its transaction.
    """

    id: int
    link_id: int
    carried: bool
    own: Line
    told: Line
    redirected: Mapping[bytes, bytes] = field(default_factory=dict)
    added: int = 0
    server: str = ""


def rewrite(reply: bytes, change: Callable[[dict[int, Line]], Iterable[Line]]) -> bytes:
    """Change the lines of a reply to CLIENT LIST or INFO: a bulk string (RESP2) or a verbatim
    string (RESP3). Any other reply, such as an error, stays as it is."""
    kind = reply[:1]
    if kind not in (b"$", b"="):
        return reply
    text = reply.partition(b"\r\n")[2][:-2]
    mark = b"txt:" if kind == b"=" else b""
    lines = change(parse(text[len(mark) :]))
    body = mark + b"".join(render(line) + b"\n" for line in lines)
    return b"%b%d\r\n%b\r\n" % (kind, len(body), body)


def lines_of(reply: bytes) -> dict[int, Line]:
    """The lines of a reply to CLIENT LIST, by id; none of any other reply."""
    if reply[:1] not in (b"$", b"="):
        return {}
    return parse(reply.partition(b"\r\n")[2].removeprefix(b"txt:"))


def parse(text: bytes) -> dict[int, Line]:
    """The lines of a CLIENT LIST, by id."""
    lines: dict[int, Line] = {}
    for raw in text.splitlines():
        line = {k: v for k, _, v in (word.partition(b"=") for word in raw.split(b" ")) if k}
        if line.get(b"id", b"").isdigit():
            lines[int(line[b"id"])] = line
    return lines


def render(line: Mapping[bytes, bytes]) -> bytes:
    """One line, without its line end."""
    return b" ".join(k + b"=" + v for k, v in line.items())


def own_line(template: Mapping[bytes, bytes] | None, client: Listed) -> Line:
    """Make a client's line from that of its link; without one, of what the sidecar knows."""
    changes = {b"id": b"%d" % client.id, **client.told}
    if client.carried or template is None:
        changes |= client.own
    elif NAME in (template.get(b"name"), template.get(b"lib-name")):
        # The server has refused to know the link by the client's names.
        changes |= {field: client.own[field] for field in (b"name", b"lib-name", b"lib-ver")}
    if template is None:
        return changes
    if (redirect := template.get(b"redir", b"")) in client.redirected:
        changes[b"redir"] = client.redirected[redirect]
    if client.added and (queued := template.get(b"multi", b"")).isdigit():
        changes[b"multi"] = b"%d" % (int(queued) - client.added)
    return {k: changes.get(k, v) for k, v in template.items()}


def at_server(client: Listed, server: str) -> Listed:
    """As that server knows it: of a link to another one, nothing."""
    return client if client.server == server else replace(client, link_id=0, carried=True)


def merge(
    lines: Mapping[int, Line], links: Iterable[int], clients: Iterable[Listed], spare: int
) -> list[Line]:
    """Replace the lines of our links by those of our clients.

    `links` are the ids of all our links on the server. `spare` is the id of the one that asked; its
    line, without what is going on there, is the template for clients whose link is not in the list.
    """
    hidden = {*links, spare}
    shown = list(clients)
    out = [dict(line) for number, line in lines.items() if number not in hidden]
    carried = {b"%d" % client.link_id: b"%d" % client.id for client in shown if not client.carried}
    for line in out:
        if line.get(b"redir") in carried:
            line[b"redir"] = carried[line[b"redir"]]
    for client in shown:
        template = lines.get(client.link_id)
        if template is None:
            client = replace(client, carried=True)
            template = _nothing_on(lines.get(spare))
        out.append(own_line(template, client))
    return out


def _nothing_on(line: Mapping[bytes, bytes] | None) -> Line | None:
    """This line, as if its connection had not been used yet."""
    return {k: UNUSED.get(k, v) for k, v in line.items()} if line is not None else None


def addresses_of(peer: object, local: object) -> tuple[bytes, bytes]:
    """A client's addresses as CLIENT LIST writes them. Of one on a unix socket servers tell the
    socket's path, twice."""
    if isinstance(local, str) and local:
        return f"{local}:0".encode(), f"{local}:0".encode()
    return printable_address(peer), printable_address(local)


def printable_address(peer: object) -> bytes:
    """A peer's address as CLIENT LIST writes it; empty for unix sockets."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        return f"{host}:{peer[1]}".encode()
    return b""
