"""What a server announces of the work that is done on it: pushes of Redis Software, Redis Cloud and
managed services, to connections that have asked for them by CLIENT MAINT_NOTIFICATIONS.

    MOVING number seconds address     the connection's endpoint goes away; null: no other is named
    MIGRATING, FAILING_OVER number seconds    the server may be slow to answer meanwhile
    MIGRATED, FAILED_OVER number              that is over

The number counts announcements; the same one may come on several connections. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

# Nobody is believed to need more seconds than this.
LONGEST = 3600.0

_BEGINNING = ("MIGRATING", "FAILING_OVER")
_ENDING = ("MIGRATED", "FAILED_OVER")
KINDS = ("MOVING", *_BEGINNING, *_ENDING)


@dataclass(frozen=True)
class Announcement:
    """One of KINDS; `within` in seconds, 0 for what is over. `endpoint`: host and port that a
    moving server names."""

    kind: str
    within: float
    endpoint: tuple[str, int] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it ends what another one began."""
        return self.kind in _ENDING


def announced_in(push: Sequence[object]) -> Announcement | None:
    """What a push announces; None if it is about something else. Raises ValueError if it is one of
    KINDS and cannot be understood."""
    kind = _text(push[0]) if push else ""
    if kind not in KINDS:
        return None
    if kind in _ENDING:
        return Announcement(kind, 0.0)
    if len(push) < 3:
        raise ValueError(f"{kind} does not tell when")
    seconds = push[2] if isinstance(push[2], int) else _number(_text(push[2]))
    within = min(max(float(seconds), 0.0), LONGEST)
    if kind != "MOVING":
        return Announcement(kind, within)
    return Announcement(kind, within, _endpoint(push[3]) if len(push) > 3 else None)


def endpoint_type(host: str, *, tls: bool) -> str:
    """How a server is asked to name the address that it moves to: as the name in use is, since that
    is what can be reached from here, and what certificates are for."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "external-fqdn" if tls else "external-ip"
    scope = "internal" if address.is_private else "external"
    return f"{scope}-{'fqdn' if tls else 'ip'}"


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text[:40]!r} is no number of seconds")
    return int(text[:9])


def _endpoint(value: object) -> tuple[str, int] | None:
    """host:port; an IPv6 address may stand in brackets."""
    if value is None:
        return None
    text = _text(value)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise ValueError(f"{text[:80]!r} is no address")
    return host, int(port)
