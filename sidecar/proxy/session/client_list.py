"""Rewrites CLIENT LIST and CLIENT INFO: the clients of this sidecar instead of its links.

The server lists the sidecar's links. Their lines are removed, and each client gets a line, made
from that of its link: what the server counts (memory, flags, user) stays; id, address, names and
age are the client's. Pure: text and facts in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Line = dict[bytes, bytes]


@dataclass(frozen=True)
class Listed:
    """The facts of one client. `link_id` is its link's id on the server; `age` in seconds."""

    id: int
    link_id: int
    address: bytes
    name: bytes
    lib_name: bytes
    lib_version: bytes
    age: int
    asking: bool


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


def own_line(template: Mapping[bytes, bytes], client: Listed) -> Line:
    """Make a client's line from that of its link."""
    changes = {
        b"id": b"%d" % client.id,
        b"addr": client.address or template.get(b"addr", b""),
        b"name": client.name,
        b"age": b"%d" % client.age,
        b"lib-name": client.lib_name,
        b"lib-ver": client.lib_version,
    }
    if client.asking:
        changes |= {b"cmd": b"client|list", b"idle": b"0"}
    return {k: changes.get(k, v) for k, v in template.items()}


def merge(
    lines: Mapping[int, Line], links: Iterable[int], clients: Iterable[Listed], spare: int
) -> list[Line]:
    """Replace the lines of our links by those of our clients.

    `links` are the ids of all our links on the server. `spare` is the id of the connection that
    asked; its line is the template for clients whose link is not in the list.
    """
    hidden = {*links, spare}
    out = [line for number, line in lines.items() if number not in hidden]
    fallback = lines.get(spare)
    for client in clients:
        template = lines.get(client.link_id, fallback)
        if template is not None:
            out.append(own_line(template, client))
    return out


def printable_address(peer: object) -> bytes:
    """A peer's address as CLIENT LIST writes it; empty for unix sockets."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        return f"{host}:{peer[1]}".encode()
    return b""
