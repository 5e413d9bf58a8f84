"""Network addresses as text: `host:port`, `[ipv6]:port`.

Parsing only: nothing is resolved here.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def join_host_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this host can connect to an address bound to `host`; unsure means no."""
    from ipaddress import ip_address  # here: most callers of this module never need it

    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def is_number(host: str) -> bool:
    """Whether this is an IP address and no name."""
    from ipaddress import ip_address  # here: see above

    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def may_move(host: str) -> bool:
    """Whether a name may lead to another host later: a name that a resolver is asked for."""
    return not is_number(host) and host.lower().rstrip(".") != "localhost"


def parse_host_port(
    text: str, default_port: int | None = None, *, lowest: int = 0
) -> tuple[str, int]:
    """Take `host:port` or `[ipv6]:port` apart.

    `default_port` stands in for a missing port; without it the port is required. `lowest` is
    the smallest port allowed: 0 where the system may choose one, 1 where not. Raises
    ValueError with what was wrong and what would be right. It quotes nothing of `text`: where
    `@host` was forgotten, what stands in the port's place is a password.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        host = host.replace("%25", "%")  # a zone (fe80::1%eth0), as URLs must write it
        if not bracket or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise ValueError("bad IPv6 address; write it as [::1]:6379")
        port = rest[1:] if rest else None
    else:
        if text.count(":") > 1:
            raise ValueError("too many colons; write host:port, an IPv6 address as [::1]:6379")
        host, colon, tail = text.partition(":")
        port = tail if colon else None
        if not host:
            raise ValueError("no host; write host:port, for example 127.0.0.1:6379")
        if not _NAME.fullmatch(host):
            raise ValueError("bad host; write a name, an IPv4 address or [IPv6]")
    if port is None:
        if default_port is None:
            raise ValueError("no port; write host:port, for example 127.0.0.1:6379")
        return host, default_port
    if not (port.isascii() and port.isdigit() and len(port) < 6 and lowest <= int(port) < 65536):
        raise ValueError(f"bad port; write host:port with a number from {lowest} to 65535")
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    from ipaddress import IPv6Address  # here: most configurations never need it

    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
