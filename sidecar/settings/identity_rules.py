"""Checks between the settings and the file of identities: what is valid alone and wrong together.

The file is read here, so `sidecar check` reports its faults with those of the settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.settings.identities_file import IdentitiesError, read_identities
from sidecar.settings.schema import Settings
from sidecar.settings.sections.principals import BUILT_IN_POLICIES, IdentitiesFile
from sidecar.settings.suggestions import suggested
from sidecar.settings.urls import parse_listen

_PROVEN_BY = ("passwords", "certificates", "peers")


def identity_problems(settings: Settings) -> Iterator[str]:
    """Each reason why the identities cannot be used with these settings."""
    mode, file = settings.identities.mode, settings.identities.file
    if mode == "terminate" and not file:
        yield (
            'identities.file: empty, but identities.mode is "terminate", so nobody could log in; '
            "name a file with identities"
        )
    try:
        read = read_identities(file)
    except IdentitiesError as error:
        for problem in error.problems:
            yield f"identities.file: {problem}"
        return
    yield from _policies(settings, read)
    if mode == "terminate":
        yield from _terminating(settings, read)
    else:
        yield from _passing(read, file)


def _policies(settings: Settings, read: IdentitiesFile) -> Iterator[str]:
    """The policies that listeners name."""
    named = [("listen.policy", settings.listen.policy)]
    for url in settings.listen.urls:
        try:
            named.append(("listen.urls", parse_listen(url).policy))
        except ValueError:
            continue  # `combinations` says why
    known = (*read.policies, *BUILT_IN_POLICIES)
    for path, name in named:
        if name and name not in known:
            near = suggested(name, known)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            yield f"{path}: no policy {name!r} in identities.file; {advice}"


def _terminating(settings: Settings, read: IdentitiesFile) -> Iterator[str]:
    file = settings.identities.file
    unix = any(_is_unix(url) for url in settings.listen.urls)
    for name, principal in read.principals.items():
        path = f"identities.file: identities.{name}"
        if not any(getattr(principal, way) for way in _PROVEN_BY):
            yield (
                f"{path}: without passwords, certificates and peers nobody can be it; set one, or "
                f"remove it ({file})"
            )
        if principal.certificates and settings.listen.tls.client_auth == "none":
            yield (
                f'{path}.certificates: set, but listen.tls.client_auth is "none", so no client is '
                f'asked for one; set client_auth to "optional" or "required" ({file})'
            )
        if principal.peers and not unix:
            yield (
                f"{path}.peers: set, but no listener is unix://; add one or remove peers ({file})"
            )
    if file and not read.principals:
        yield f"identities.file: no [identities.NAME] in it, so nobody could log in ({file})"


def _passing(read: IdentitiesFile, file: str) -> Iterator[str]:
    """The server judges: what only the sidecar could judge is of no use."""
    names = (*_PROVEN_BY, "tenant", "upstream_username")
    for name, principal in read.principals.items():
        for way in names:
            if getattr(principal, way):
                yield (
                    f"identities.file: identities.{name}.{way}: set, but identities.mode is "
                    f'"passthrough", so the server judges who it is; set mode to "terminate", or '
                    f"remove it ({file})"
                )


def _is_unix(url: str) -> bool:
    try:
        return parse_listen(url).kind == "unix"
    except ValueError:
        return False  # `combinations` says why
