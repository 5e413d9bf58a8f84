"""The TLS contexts of both sides, and how long their certificates are valid.

Reads the files at start and at each reload. Neither listens nor dials: others take the contexts
from here.

The listeners' context is made anew every `listen.tls.ticket_rotation`, from files that have not
changed: with it go the keys of session tickets, so a stolen key opens what was recorded in that
time, and a client whose certificate is refused by now can resume for no longer than that.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from sidecar.file_version import Version, file_version
from sidecar.settings.schema import Settings
from sidecar.settings.sections.clients import ListenTls
from sidecar.tls.contexts import listener_context, upstream_context
from sidecar.tls.pem import Validity, first_list_to_expire, shown_first

log = structlog.get_logger()


@dataclass(frozen=True)
class Contexts:
    """`server` is the context of the listeners, `client` that of links; None means no TLS there.
    `validity` is that of their certificates and revocation lists. `listen` are the settings that
    `server` is made from, `versions` those of its files."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    validity: Mapping[str, Validity]
    listen: ListenTls
    versions: Mapping[str, Version]


class Certificates:
    """The contexts in use. Raises ssl.SSLError or OSError when a file is bad."""

    def __init__(self, settings: Settings, *, upstream: bool) -> None:
        self._upstream = upstream
        self._made = (
            0.0  # when the tickets' keys were made, on the clock of `tick`; 0: not yet seen
        )
        self._used = self.read(settings)

    @property
    def server(self) -> ssl.SSLContext | None:
        """The context of the listeners."""
        return self._used.server

    @property
    def client(self) -> ssl.SSLContext | None:
        """The context of links."""
        return self._used.client

    @property
    def validity(self) -> Mapping[str, Validity]:
        """How long certificates and revocation lists are valid, by section of the settings, with
        `-crl` behind it for a list."""
        return self._used.validity

    def use(self, contexts: Contexts) -> None:
        """Use these for new connections."""
        self._used = contexts
        self._made = 0.0

    def read(self, settings: Settings) -> Contexts:
        """Read the files. Raises ssl.SSLError or OSError when one is bad. Changes nothing."""
        listens = any(endpoint.tls for endpoint in settings.listeners)
        listen, upstream = settings.listen.tls, settings.upstream.tls
        versions = _versions(listen)  # before they are read: a later change is one
        client = upstream_context(upstream) if self._upstream else None
        server = listener_context(listen) if listens else None
        used: dict[str, tuple[str, Callable[[str], Validity]]] = {}
        for section, tls, is_used in (
            ("listen", listen, listens),
            ("upstream", upstream, self._upstream),
        ):
            if is_used:
                used[section] = (tls.cert_file, shown_first)
                used[f"{section}-crl"] = (tls.crl_file, first_list_to_expire)
        validity = {name: found(path) for name, (path, found) in used.items() if path}
        return Contexts(server, client, validity, listen, versions)

    def tick(self, now: float) -> None:
        """Make the listeners' context, and so the keys of session tickets, anew when it is due.
        Files that have changed wait for a reload: until then the context stays."""
        every = self._used.listen.ticket_rotation
        if self._used.server is None or not every:
            return
        self._made = self._made or now
        if now - self._made < every:
            return
        self._made = now
        used = self._used
        if _versions(used.listen) != used.versions:
            log.warning("session tickets not rotated", reason="the files have changed: reload")
            return
        try:
            server = listener_context(used.listen)
        except OSError as error:
            log.warning("session tickets not rotated", reason=str(error))
            return
        self._used = replace(used, server=server)


def _versions(tls: ListenTls) -> Mapping[str, Version]:
    files = (tls.cert_file, tls.key_file, tls.ca_file, tls.crl_file)
    return {path: file_version(path) for path in files if path}
