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

Kind = Literal["tcp", "unix", "embedded", "sentinel", "cluster", "embedded-cluster"]

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
        "redis+cluster": ("cluster", False),
        "valkey+cluster": ("cluster", False),
        "redis-cluster": ("cluster", False),
        "rediss+cluster": ("cluster", True),
        "valkeys+cluster": ("cluster", True),
        "rediss-cluster": ("cluster", True),
        "embedded+cluster": ("embedded-cluster", False),
    }
)
_OPTIONS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {
        "tcp": frozenset({"db"}),
        "unix": frozenset({"db"}),
        "embedded": frozenset({"port"}),
        "sentinel": frozenset({"db", "sentinelMasterId"}),
        "cluster": frozenset({"db"}),
        "embedded-cluster": frozenset({"replicas", "shards"}),
    }
)
_SENTINEL_FORM = "redis+sentinel://host1:26379,host2:26379/service/0"
_EMBEDDED_CLUSTER_FORM = "embedded+cluster://?shards=3&replicas=1"
_UPSTREAM_FORMS = (
    "redis://host:port/db, rediss://, redis+cluster://host:port,host:port, unix:///path "
    "or embedded://"
)
_LISTEN_FORMS = "redis://address:port, rediss://address:port or unix:///path"
# Of the servers that the sidecar starts itself: option -> (default, least, most).
_EMBEDDED_SIZES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"shards": (3, 1, 32), "replicas": (0, 0, 4)}
)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to listen on or to connect to.

    `kind` says which fields mean something: `tcp` has `host` and `port`, `unix` has `path`,
    `sentinel` has `members` and `service`, `cluster` has `members` (some nodes, to ask for the
    others), `embedded` and `embedded-cluster` have only `options`. `password` is left out of
    `repr` and shown as `***` by `str`. `policy` is the command policy of a listener; with another
    one it is still the same place, so it does not count when two are compared.
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
    policy: str = field(default="", compare=False)

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
        if self.kind == "embedded-cluster":
            return f"embedded+cluster://?shards={self.shards}&replicas={self.replicas}"
        db = f"/{self.db}" if self.db else ""
        members = ",".join(join_host_port(host, port) for host, port in self.members)
        if self.kind == "cluster":
            return f"redis{s}+cluster://{who}{members}{db}"
        if self.kind == "sentinel":
            return f"redis{s}+sentinel://{who}{members}/{quote(self.service, safe='')}{db}"
        return f"redis{s}://{who}{join_host_port(self.host, self.port)}{db}"

    @property
    def listen_url(self) -> str:
        """Of a listener: the URL with its options, as `listen.urls` has it."""
        return f"{self}?policy={quote(self.policy, safe='')}" if self.policy else str(self)

    @property
    def is_embedded(self) -> bool:
        """Whether the sidecar starts the servers itself."""
        return self.kind in ("embedded", "embedded-cluster")

    @property
    def is_cluster(self) -> bool:
        """Whether slots are on several shards."""
        return self.kind in ("cluster", "embedded-cluster")

    @property
    def shards(self) -> int:
        """How many primaries an `embedded-cluster` has."""
        return int(self.options.get("shards", _EMBEDDED_SIZES["shards"][0]))

    @property
    def replicas(self) -> int:
        """How many replicas each of them has."""
        return int(self.options.get("replicas", _EMBEDDED_SIZES["replicas"][0]))


def parse_listen(url: str) -> Endpoint:
    """Read the URL of a listener: `redis://`, `rediss://` (and valkey aliases) or `unix://`.

    Port 0 lets the system choose. Raises ValueError with what was wrong and what would be
    right; the message never holds a password.
    """
    parts = _split(url, _LISTEN_FORMS)
    if parts.kind not in ("tcp", "unix"):
        raise ValueError(f"the sidecar cannot listen on {parts.scheme}://; write {_LISTEN_FORMS}")
    if parts.userinfo is not None:
        raise ValueError(
            "a listener takes no user or password: clients authenticate with the upstream's; "
            f"write {_LISTEN_FORMS}"
        )
    policy = _policy(parts.query)
    if parts.kind == "unix":
        return Endpoint(kind="unix", path=_unix_path(parts), policy=policy)
    if parts.path.strip("/"):
        raise ValueError(f"a listener takes no database; write {_LISTEN_FORMS}")
    if not parts.netloc or parts.netloc.startswith(":"):
        raise ValueError(
            "no address to listen on; write redis://127.0.0.1:6380 for this host only, "
            "redis://0.0.0.0:6380 for every interface"
        )
    host, port = parse_host_port(parts.netloc, LISTEN_PORT)
    return Endpoint(kind="tcp", tls=parts.tls, host=host, port=port, policy=policy)


def _policy(query: str) -> str:
    """The command policy that the URL of a listener names; empty: none."""
    if not query:
        return ""
    name, _, policy = query.partition("=")
    if name != "policy" or not policy or "&" in policy:
        raise ValueError(
            f"a listener takes one option, '?policy=NAME', a command policy; write {_LISTEN_FORMS}"
        )
    return _decode(policy, "name of the policy")


def parse_upstream(url: str) -> Endpoint:
    """Read the URL of the server behind: TCP, unix socket, Sentinel, cluster or embedded form.

    Raises ValueError with what was wrong and what would be right; the message never holds a
    password.
    """
    parts = _split(url, _UPSTREAM_FORMS)
    username, password = _credentials(parts.userinfo)
    if parts.kind == "embedded":
        return _embedded(parts)
    if parts.kind == "embedded-cluster":
        return _embedded_cluster(parts)
    if parts.kind == "cluster":
        return _cluster(parts, username, password)
    if parts.kind == "sentinel":
        return _sentinel(parts, username, password)
    host, port, path = "", 0, ""
    if parts.kind == "unix":
        path = _unix_path(parts)
    else:
        host, port = parse_host_port(parts.netloc, REDIS_PORT, lowest=1)
    options = _options(parts)
    return Endpoint(
        kind=parts.kind,
        tls=parts.tls,
        host=host,
        port=port,
        path=path,
        username=username,
        password=password,
        db=_chosen(parts, options),
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


def _chosen(parts: _Parts, options: Mapping[str, str]) -> int:
    """The database, from the path (which of a unix socket is the socket's) or the options."""
    text = "" if parts.kind == "unix" else parts.path.strip("/")
    if text and "db" in options:
        raise ValueError("the database is given twice, as /N and as ?db=N; keep one of them")
    return _database(text or options.get("db", ""))


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


def _embedded_cluster(parts: _Parts) -> Endpoint:
    if parts.userinfo is not None or parts.netloc or parts.path.strip("/"):
        raise ValueError(
            f"embedded+cluster:// takes no user, host or path; write {_EMBEDDED_CLUSTER_FORM} "
            "(the data directory is the setting embedded.dir)"
        )
    options = _options(parts)
    for name, text in options.items():
        _, least, most = _EMBEDDED_SIZES[name]
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
            raise ValueError(f"bad number of {name}; write one from {least} to {most}")
    return Endpoint(kind="embedded-cluster", options=options)


def _members(parts: _Parts, port: int) -> tuple[tuple[str, int], ...]:
    return tuple(parse_host_port(member, port, lowest=1) for member in parts.netloc.split(","))


def _cluster(parts: _Parts, username: str, password: str) -> Endpoint:
    options = _options(parts)
    return Endpoint(
        kind="cluster",
        tls=parts.tls,
        username=username,
        password=password,
        db=_chosen(parts, options),
        options=options,
        members=_members(parts, REDIS_PORT),
    )


def _sentinel(parts: _Parts, username: str, password: str) -> Endpoint:
    members = _members(parts, SENTINEL_PORT)
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
