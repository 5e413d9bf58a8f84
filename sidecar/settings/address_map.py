"""The addresses of a cluster as its nodes announce them, and as they are reached (`cluster.map`).

An entry is written `announced=reachable`. Either both are `host:port`, or both are hosts alone, and
then the port stays. An entry with a port goes before one without. Text in, values or ValueError
out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sidecar.settings.addresses import parse_host_port

MOST = 4096
_FORM = "write announced=reachable, as in 10.0.0.1:6379=127.0.0.1:7001 or 10.0.0.1=node1.example"


@dataclass(frozen=True)
class AddressMap:
    """What is reached instead of what is announced."""

    places: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)

    def reached(self, address: tuple[str, int]) -> tuple[str, int]:
        """Where the node that announces this address is reached."""
        host, port = address[0].lower(), address[1]
        if (host, port) in self.places:
            return self.places[host, port]
        return (self.hosts[host], port) if host in self.hosts else address


def parse_map(texts: Iterable[str]) -> AddressMap:
    """All entries. Raises ValueError with what is wrong and what would be right."""
    found = AddressMap()
    for count, text in enumerate(texts):
        if count == MOST:
            raise ValueError(f"more than {MOST} entries")
        announced, equals, reachable = (part.strip() for part in text.partition("="))
        if not equals:
            raise ValueError(f"no '=' in {text!r}; {_FORM}")
        try:
            (host, port), (to, to_port) = (parse_host_port(s, 0) for s in (announced, reachable))
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        if bool(port) != bool(to_port):
            raise ValueError(f"a port on one side only in {text!r}; {_FORM}")
        host = host.lower()
        if host in found.hosts if not port else (host, port) in found.places:
            raise ValueError(f"{announced} is mapped twice; keep one of them")
        if port:
            found.places[host, port] = (to, to_port)
        else:
            found.hosts[host] = to
    return found
