"""URLs of listeners and of the upstream, parsed into an `Endpoint`.

`parse_listen` reads where clients connect, `parse_upstream` where the server is. Parsing only:
nothing is resolved or opened here. The network part is split by hand, because
`urllib.parse.urlsplit` supports neither several members in one URL nor brackets in more than one
place.

A URL may contain a password, so no message quotes anything before the last `@`. An `@` after the
network part is refused first: it means that the password contains an unescaped `/`, `?` or `#`,
and any part found after that could be a piece of the password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote, unquote

from sidecar.settings.addresses import join_host_port, parse_host_port

Kind = Literal["tcp", "unix", "embedded", "sentinel"]

REDIS_PORT = 6379
LISTEN_PORT = 6380
SENTINEL_PORT = 26379

# scheme -> (kind, tls)
_SCHEMES: Mapping[str, tuple[Kind, bool]] = MappingProxyType(
    {
        "redis": ("tcp", False),
        "valkey": ("tcp", False),
        "rediss": ("tcp", True),
        "valkeys": ("tcp", True),
        "unix": ("unix", False),
        "embedded": ("embedded", False),
        "redis+sentinel": ("sentinel", False),
        "valkey+sentinel": ("sentinel", False),
        "redis-sentinel": ("sentinel", False),
        "rediss+sentinel": ("sentinel", True),
        "valkeys+sentinel": ("sentinel", True),
        "rediss-sentinel": ("sentinel", True),
    }
)
_OPTIONS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {
        "tcp": frozenset({"db"}),
        "unix": frozenset({"db"}),
        "embedded": frozenset({"port"}),
        "sentinel": frozenset({"db", "sentinelMasterId"}),
    }
)
_SENTINEL_FORM = "redis+sentinel://host1:26379,host2:26379/service/0"
_UPSTREAM_FORMS = "redis://host:port/db, rediss://, unix:///path or embedded://"
_LISTEN_FORMS = "redis://address:port, rediss://address:port or unix:///path"
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to listen on or to connect to.

    `kind` says which fields mean something: `tcp` has `host` and `port`, `unix` has `path`,
    `sentinel` has `members` and `service`, `embedded` has only `options`. `password` is left
    out of `repr` and shown as `***` by `str`.
    """

    kind: Kind
    tls: bool = False
    host: str = ""
    port: int = 0
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    members: tuple[tuple[str, int], ...] = ()
    service: str = ""

    def __str__(self) -> str:
        """The URL in its shortest usual form, without the password; fit for logs."""
        user = quote(self.username, safe="")
        who = f"{user}:***@" if self.password else (f"{user}:@" if user else "")
        s = "s" if self.tls else ""
        if self.kind == "unix":
            return f"unix://{who}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        if self.kind == "embedded":
            port = self.options.get("port")
            return "embedded://" + (f"?port={port}" if port else "")
        db = f"/{self.db}" if self.db else ""
        if self.kind == "sentinel":
            members = ",".join(join_host_port(host, port) for host, port in self.members)
            return f"redis{s}+sentinel://{who}{members}/{quote(self.service, safe='')}{db}"
        return f"redis{s}://{who}{join_host_port(self.host, self.port)}{db}"


def parse_listen(url: str) -> Endpoint:
    """Read the URL of a listener: `redis://`, `rediss://` (and valkey aliases) or `unix://`.

    Port 0 lets the system choose. Raises ValueError with what was wrong and what would be
    right; the message never holds a password.
    """
    parts = _split(url, _LISTEN_FORMS)
    if parts.kind in ("embedded", "sentinel"):
        raise ValueError(f"the sidecar cannot listen on {parts.scheme}://; write {_LISTEN_FORMS}")
    if parts.userinfo is not None:
        raise ValueError(
            "a listener takes no user or password: clients authenticate with the upstream's; "
            f"write {_LISTEN_FORMS}"
        )
    if parts.query:
        raise ValueError(f"a listener takes no options after '?'; write {_LISTEN_FORMS}")
    if parts.kind == "unix":
        return Endpoint(kind="unix", path=_unix_path(parts))
    if parts.path.strip("/"):
        raise ValueError(f"a listener takes no database; write {_LISTEN_FORMS}")
    if not parts.netloc or parts.netloc.startswith(":"):
        raise ValueError(
            "no address to listen on; write redis://127.0.0.1:6380 for this host only, "
            "redis://0.0.0.0:6380 for every interface"
        )
    host, port = parse_host_port(parts.netloc, LISTEN_PORT)
    return Endpoint(kind="tcp", tls=parts.tls, host=host, port=port)


def parse_upstream(url: str) -> Endpoint:
    """Read the URL of the server behind: TCP, unix socket, embedded or Sentinel form.

    Raises ValueError with what was wrong and what would be right; the message never holds a
    password.
    """
    parts = _split(url, _UPSTREAM_FORMS)
    username, password = _credentials(parts.userinfo)
    if parts.kind == "embedded":
        return _embedded(parts)
    if parts.kind == "sentinel":
        return _sentinel(parts, username, password)
    host, port, path, db_text = "", 0, "", ""
    if parts.kind == "unix":
        path = _unix_path(parts)
    else:
        host, port = parse_host_port(parts.netloc, REDIS_PORT, lowest=1)
        db_text = parts.path.strip("/")
    options = _options(parts)
    if db_text and "db" in options:
        raise ValueError("the database is given twice, as /N and as ?db=N; keep one of them")
    return Endpoint(
        kind=parts.kind,
        tls=parts.tls,
        host=host,
        port=port,
        path=path,
        username=username,
        password=password,
        db=_database(db_text or options.get("db", "")),
        options=options,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """A URL cut at its separators; nothing decoded yet. Never shown: it holds the password."""

    scheme: str
    kind: Kind
    tls: bool
    userinfo: str | None
    netloc: str
    path: str
    query: str
    fragment: str


def _split(url: str, forms: str) -> _Parts:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"not a URL (no '://'); write {forms}")
    if scheme.lower() not in _SCHEMES:
        shown = f" {scheme!r}" if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,31}", scheme) else ""
        raise ValueError(f"unknown URL scheme{shown}; write {forms}")
    kind, tls = _SCHEMES[scheme.lower()]
    if _UNPRINTABLE.search(rest):
        raise ValueError("blanks or control characters in the URL; percent-encode them (%20)")
    end = min((i for i in map(rest.find, "/?#") if i >= 0), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    if "@" in tail:
        raise ValueError(
            "an '@' after the host; percent-encode '/', '?', '#' and '@' in the user, the "
            "password and the path (%2F, %3F, %23, %40)"
        )
    if _BAD_PERCENT.search(rest):
        raise ValueError("a '%' that is not followed by two hex digits; write a literal one as %25")
    userinfo, at, netloc = authority.rpartition("@")
    tail, _, fragment = tail.partition("#")
    path, _, query = tail.partition("?")
    if fragment and kind != "sentinel":
        raise ValueError("a '#' in the URL; percent-encode it as %23")
    return _Parts(
        scheme.lower(), kind, tls, userinfo if at else None, netloc, path, query, fragment
    )


def _decode(text: str, what: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"the {what} is not UTF-8 after percent-decoding") from None


def _credentials(userinfo: str | None) -> tuple[str, str]:
    if userinfo is None:
        return "", ""
    user, colon, password = userinfo.partition(":")
    if not colon:
        raise ValueError(
            "a user without a password; write user:password@host, :password@host for the "
            "default user, or user:@host for a user who needs none"
        )
    return _decode(user, "user name"), _decode(password, "password")


def _options(parts: _Parts) -> dict[str, str]:
    known = _OPTIONS[parts.kind]
    options: dict[str, str] = {}
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        name = _decode(name, "name of an option")
        if name not in known:
            choices = ", ".join(sorted(known))
            raise ValueError(
                f"unknown option {name!r} after '?'; {parts.scheme}:// supports: {choices} "
                "(everything else is a setting, such as upstream.tls.ca_file)"
            )
        if name in options:
            raise ValueError(f"the option {name!r} is given twice; keep one of them")
        options[name] = _decode(value, "value of an option")
    return options


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("bad database; write a number, as in redis://host:6379/0")
    return int(text)


def _unix_path(parts: _Parts) -> str:
    path = _decode(parts.path, "path")
    if parts.netloc or not path.strip("/") or path.endswith("/"):
        raise ValueError("no absolute path to a socket; write unix:///run/redis.sock (3 slashes)")
    if "\0" in path:
        raise ValueError("a NUL in the path of the socket; write unix:///run/redis.sock")
    if len(path.encode()) > 103:  # sun_path: 104 bytes on BSD and macOS, 108 on Linux, with a NUL
        raise ValueError("the path of the socket is too long for the system; 103 bytes at most")
    return path


def _embedded(parts: _Parts) -> Endpoint:
    if parts.userinfo is not None or parts.netloc or parts.path.strip("/"):
        raise ValueError(
            "embedded:// takes no user, host or path; write embedded:// or embedded://?port=6379"
            " (the data directory is the setting embedded.dir)"
        )
    options = _options(parts)
    if "port" in options:
        parse_host_port(f"127.0.0.1:{options['port']}", lowest=1)
    return Endpoint(kind="embedded", options=options)


def _sentinel(parts: _Parts, username: str, password: str) -> Endpoint:
    members = tuple(
        parse_host_port(member, SENTINEL_PORT, lowest=1) for member in parts.netloc.split(",")
    )
    options = _options(parts)
    segments = [_decode(segment, "path") for segment in parts.path.strip("/").split("/") if segment]
    service = options.get("sentinelMasterId", "") or _decode(parts.fragment, "service name")
    if not service and segments:
        service = segments.pop(0)
    if not service:
        raise ValueError(f"no service (master) name; write {_SENTINEL_FORM}")
    if len(segments) > 1 or (segments and "db" in options):
        raise ValueError(f"too much after the service name; write {_SENTINEL_FORM}")
    return Endpoint(
        kind="sentinel",
        tls=parts.tls,
        username=username,
        password=password,
        db=_database(segments[0] if segments else options.get("db", "")),
        options=options,
        members=members,
        service=service,
    )
