"""CLIENT LIST and INFO as a client expects them: with this sidecar's clients, not with its links.

The server knows only the sidecar's links. Their lines are taken out of its list, and a line for
each client is put in, made from the line of the link that carries it: what the server counts
(memory, flags, user) stays, what belongs to the client (id, address, names, age) is its own.
Pure: text and facts in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Line = dict[bytes, bytes]


@dataclass(frozen=True)
class Listed:
    """One client of the sidecar. `link_id` is its link's id on the server; `age` in seconds."""

    id: int
    link_id: int
    address: bytes
    name: bytes
    lib_name: bytes
    lib_version: bytes
    age: int
    asking: bool


def rewrite(reply: bytes, change: Callable[[dict[int, Line]], Iterable[Line]]) -> bytes:
    """A reply to CLIENT LIST or INFO, a bulk (RESP2) or verbatim string (RESP3), with its lines
    changed. Any other reply, an error above all, stays as it is."""
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
    """A client's line from the line of the link that carries it."""
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
    """The list with our links' lines replaced by our clients'.

    `links` are the server's ids of all our links; `spare` is the id of the connection that asked,
    whose line serves for clients whose link is not in the list.
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
    """A peer's address the way CLIENT LIST writes it; empty for unix sockets."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        return f"{host}:{peer[1]}".encode()
    return b""
