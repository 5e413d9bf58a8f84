"""Checks between settings: values that are valid alone and wrong together.

Each check yields a line with the path of the key, what is wrong and what would be right. Outside
the settings only files that they name are looked at: whether they exist, and the tokens in one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from sidecar.settings.address_map import parse_map
from sidecar.settings.addresses import is_loopback, parse_host_port
from sidecar.settings.cache_rules import parse_rules
from sidecar.settings.identity_rules import identity_problems
from sidecar.settings.schema import Settings
from sidecar.settings.sections.operations import Admin
from sidecar.settings.sections.upstream import Sentinel, Upstream
from sidecar.settings.tokens import TOKEN, read_tokens
from sidecar.settings.urls import Endpoint, parse_listen, parse_upstream

# Each of these settings needs at least one of the settings beside it.
_WARM_KEPT = {"snapshot", "fleet"}
_WARM_SOURCES = {*_WARM_KEPT, "key_file", "scan"}
_WARM_NEEDS = {
    "fleet_key": {"fleet"},
    "scan_count": {"scan"},
    "interval": _WARM_KEPT,
    **dict.fromkeys(("keys", "concurrency", "rate", "deadline", "hold"), _WARM_SOURCES),
}
# These work with any upstream, and these with any whose master is followed and with clusters. The
# other settings of [failover] need Sentinels.
_WITHOUT_SENTINEL = ("failover.min_replicas_ack", "failover.ack_timeout")
_FOLLOWED = ("failover.hold", "failover.hold_bytes")


def combinations(settings: Settings, *, strict: bool = True) -> Iterator[str]:
    """Each reason why `settings` cannot be used; none when they can. Unless `strict`, there may be
    settings for another kind of upstream: an operator has switched to this one."""
    yield from _listen(settings)
    try:
        yield from _upstream(settings, parse_upstream(settings.upstream.url), strict)
    except ValueError as error:
        yield f"upstream.url: {error}"
    yield from _admin(settings, strict)
    yield from _cache(settings)
    yield from _warm(settings)
    yield from identity_problems(settings)


def _listen(settings: Settings) -> Iterator[str]:
    listeners = []
    for url in settings.listen.urls:
        try:
            listeners.append(parse_listen(url))
        except ValueError as error:
            yield f"listen.urls: {error}"
    if not settings.listen.urls:
        yield "listen.urls: empty; name at least one, such as redis://127.0.0.1:6380"
    taken = [(each.host, each.port, each.path) for each in listeners if each.path or each.port]
    for host, port, path in sorted({place for place in taken if taken.count(place) > 1}):
        yield f"listen.urls: {path or f'{host}:{port}'} is listed twice; remove one"
    yield from _listen_tls(settings, listeners)


def _listen_tls(settings: Settings, listeners: Sequence[Endpoint]) -> Iterator[str]:
    tls = settings.listen.tls
    if any(listener.tls for listener in listeners):
        if not tls.cert_file:
            yield (
                "listen.tls.cert_file: empty, but a rediss:// listener needs a certificate; "
                "`sidecar certs dev` makes one for development"
            )
        elif tls.client_auth != "none" and not tls.ca_file:
            yield (
                f'listen.tls.client_auth: "{tls.client_auth}", but listen.tls.ca_file is empty; '
                "set it to the CA that signs the clients' certificates"
            )
        elif tls.client_auth == "none" and tls.crl_file:
            yield (
                'listen.tls.crl_file: set, but listen.tls.client_auth is "none", so no client is '
                'checked; set client_auth to "optional" or "required", or remove crl_file'
            )
        elif tls.client_auth == "none" and tls.ca_file:
            yield (
                'listen.tls.ca_file: set, but listen.tls.client_auth is "none", so no client is '
                'checked; set client_auth to "optional" or "required", or remove ca_file'
            )
    else:
        for name in _changed(tls):
            yield f"listen.tls.{name}: set, but no listener is rediss://; add one or remove it"
    yield from _key_pair("listen.tls", tls.cert_file, tls.key_file)
    yield from _files("listen.tls", tls)


def _upstream(settings: Settings, endpoint: Endpoint, strict: bool) -> Iterator[str]:
    upstream, tls = settings.upstream, settings.upstream.tls
    yield from _sentinel(settings, endpoint, strict)
    yield from _cluster(settings, endpoint, strict)
    yield from _credentials("upstream", upstream, endpoint.password)
    if endpoint.is_embedded:
        for name in ("username", "username_file", "password", "password_file"):
            if getattr(upstream, name):
                yield f"upstream.{name}: set, but the embedded server has no users; remove it"
    uses_tls = endpoint.tls or (endpoint.kind == "sentinel" and settings.sentinel.tls == "on")
    if strict and not uses_tls:
        for name in _changed(tls):
            yield (
                f"upstream.tls.{name}: set, but upstream.url ({endpoint}) is not rediss://; "
                "write rediss:// or remove it"
            )
    if tls.crl_file and tls.verify == "none":
        yield (
            'upstream.tls.crl_file: set, but upstream.tls.verify is "none", so nothing is checked; '
            'set verify to "full", or remove crl_file'
        )
    yield from _key_pair("upstream.tls", tls.cert_file, tls.key_file)
    yield from _files("upstream.tls", tls)
    if upstream.backoff_min > upstream.backoff_max:
        yield "upstream.backoff_min: above upstream.backoff_max; make it smaller"


def _admin(settings: Settings, strict: bool) -> Iterator[str]:
    admin = settings.admin
    if not admin.listen:
        return
    try:
        host, _ = parse_host_port(admin.listen)
    except ValueError as error:
        yield f"admin.listen: {error}"
        return
    if not admin.is_guarded and not is_loopback(host):
        yield (
            f"admin.listen: {admin.listen} can be reached from other hosts, and admin.token is "
            "empty; set SIDECAR_ADMIN__TOKEN_FILE to a file with a token, or listen on "
            "127.0.0.1:6381"
        )
    yield from _tokens(admin)
    if strict and admin.failover and "sentinel" not in settings.upstream.url.partition("://")[0]:
        yield (
            "admin.failover: set, but upstream.url is not redis+sentinel://; write the URL of the "
            "Sentinels or remove it"
        )
    yield from _key_pair("admin.tls", admin.tls.cert_file, admin.tls.key_file)
    yield from _files("admin.tls", admin.tls)
    if admin.tls.client_auth != "none" and not (admin.tls.cert_file and admin.tls.ca_file):
        yield (
            f'admin.tls.client_auth: "{admin.tls.client_auth}" needs admin.tls.cert_file and '
            "admin.tls.ca_file; set them"
        )
    if admin.tls.client_auth == "none" and admin.tls.crl_file:
        yield (
            'admin.tls.crl_file: set, but admin.tls.client_auth is "none", so no client is '
            'checked; set client_auth to "optional" or "required", or remove crl_file'
        )


def _tokens(admin: Admin) -> Iterator[str]:
    for name in ("token", "read_token"):
        if (token := getattr(admin, name)) and not TOKEN.fullmatch(token):
            yield (
                f"admin.{name}: too short, or not printable ASCII without blanks; write 16 to 512 "
                "characters, for example those of `openssl rand -hex 32`"
            )
    if admin.token_file:
        try:
            read_tokens(admin.token_file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            yield f"admin.token_file: cannot use {admin.token_file}: {why}"


def _cache(settings: Settings) -> Iterator[str]:
    hot, cache = settings.hotkeys, settings.cache
    if hot.width & (hot.width - 1):
        yield f"hotkeys.width: {hot.width} is not a power of two; write 16384"
    if hot.cool_share > hot.hot_share:
        yield "hotkeys.cool_share: above hotkeys.hot_share; make it smaller"
    if cache.mode in ("hot", "observe") and not hot.enabled:
        yield f'cache.mode: "{cache.mode}" needs hotkeys.enabled; turn it on, or set mode = "off"'
    if cache.mode == "rules" and not cache.rules:
        yield 'cache.rules: empty, but cache.mode is "rules"; name prefixes, "*" for every key'
    if cache.mode not in ("off", "hot") and settings.upstream.pooling == "session":
        yield 'cache.mode: upstream.pooling = "session" bypasses the cache; set mode = "off"'
    try:
        parse_rules(cache.rules)
    except ValueError as error:
        yield f"cache.rules: {error}"


def _warm(settings: Settings) -> Iterator[str]:
    warm, changed = settings.warm, set(_changed(settings.warm))
    off = None
    if settings.cache.mode in ("off", "observe"):
        off = f'cache.mode is "{settings.cache.mode}"'
    elif settings.upstream.pooling == "session":
        off = 'upstream.pooling is "session"'
    if changed and off:
        yield f"warm.{min(changed)}: set, but {off}, so nothing is cached; remove it"
        return
    for name, needs in _WARM_NEEDS.items():
        if name in changed and not changed & needs:
            others = " or ".join(f"warm.{other}" for other in sorted(needs))
            yield f"warm.{name}: set without {others}; set that too, or remove it"
    folder = os.path.dirname(os.path.abspath(warm.snapshot))
    if warm.snapshot and (os.path.isdir(warm.snapshot) or not os.path.isdir(folder)):
        yield (
            f"warm.snapshot: {warm.snapshot!r} cannot be a file; name a file in an existing folder"
        )
    if warm.key_file and not os.path.isfile(warm.key_file):
        yield f"warm.key_file: no file {warm.key_file!r}; give the path of a list of keys"
    if warm.fleet and not warm.fleet_key:
        yield "warm.fleet_key: empty, but warm.fleet is set; name a key"


def _sentinel(settings: Settings, endpoint: Endpoint, strict: bool) -> Iterator[str]:
    if strict and endpoint.kind != "sentinel":
        followed = settings.follows_name or endpoint.is_cluster
        usable = _WITHOUT_SENTINEL + (_FOLLOWED if followed else ())
        for section in ("sentinel", "failover"):
            for name in _changed(getattr(settings, section)):
                if f"{section}.{name}" not in usable:
                    yield (
                        f"{section}.{name}: set, but upstream.url ({endpoint}) is not "
                        "redis+sentinel://; write the URL of the Sentinels or remove it"
                    )
    if strict and settings.upstream.follow == "off" and endpoint.kind not in ("tcp", "unix"):
        yield (f"upstream.follow: set, but upstream.url ({endpoint}) is not one address; remove it")
    yield from _credentials("sentinel", settings.sentinel)
    if settings.breaker.open_for > settings.breaker.open_max:
        yield "breaker.open_for: above breaker.open_max; make it smaller"


def _cluster(settings: Settings, endpoint: Endpoint, strict: bool) -> Iterator[str]:
    if strict and not endpoint.is_cluster:
        for name in _changed(settings.cluster):
            yield (
                f"cluster.{name}: set, but upstream.url ({endpoint}) is not redis+cluster://; "
                "write the URL of the cluster or remove it"
            )
    if endpoint.is_cluster and settings.upstream.pooling == "session":
        yield (
            'upstream.pooling: "session" gives a client one connection, but a cluster '
            f"({endpoint}) has several nodes; remove it"
        )
    try:
        parse_map(settings.cluster.map)
    except ValueError as error:
        yield f"cluster.map: {error}"


def _credentials(path: str, section: Upstream | Sentinel, url_password: str = "") -> Iterator[str]:
    sources = ("password", "password_file", "credential_command")
    named = [name for name in sources if getattr(section, name)]
    if len(named) > 1:
        yield f"{path}.{named[1]}: set, but {path}.{named[0]} is set as well; keep one"
    if section.username and section.username_file:
        yield f"{path}.username_file: set, but {path}.username is set as well; keep one"
    if section.credential_command and section.username_file:
        yield f"{path}.username_file: set, but credential_command gives the user; remove it"
    for name in ("username", "username_file"):
        if getattr(section, name) and not named and not url_password:
            yield f"{path}.{name}: set, but {path}.password is empty; set it too"
    for name in ("username_file", "password_file"):
        file = getattr(section, name)
        if file and not os.path.isfile(file):
            yield f"{path}.{name}: no file {file!r}; give the path of a text file"


def _changed(section: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        if getattr(section, field.name) != field.default:
            yield field.name


def _key_pair(path: str, cert_file: str, key_file: str) -> Iterator[str]:
    if key_file and not cert_file:
        yield f"{path}.key_file: set, but {path}.cert_file is empty; name the key's certificate"


def _files(path: str, section: msgspec.Struct) -> Iterator[str]:
    for name in ("cert_file", "key_file", "ca_file", "crl_file"):
        file = getattr(section, name, "")
        if file and not os.path.isfile(file):
            yield f"{path}.{name}: no file {file!r}; give the path of a PEM file"
