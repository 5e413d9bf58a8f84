"""Talks to the servers of the upstream from the command line: one request at a time.

`servers_of` finds all servers that an ACL user must exist on, since servers do not pass users on to
their replicas: the one of a plain URL, the master that Sentinels name, or the primaries of a
cluster, each with its replicas.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import hiredis

from sidecar.credentials import CredentialError, fixed, source_of
from sidecar.settings.address_map import parse_map
from sidecar.settings.addresses import join_host_port
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint
from sidecar.tls.contexts import sentinel_context, upstream_context

WITHIN = 5.0  # seconds for connecting, and for each reply
CHUNK = 1 << 16


class ServerError(Exception):
    """A server cannot be reached, or refuses what was asked of it; the message is one line."""


@dataclass(frozen=True)
class Account:
    """A user of the server, and its password; without a user the default one, without both none."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Place:
    """A server, and how it is reached. `path`: by a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    role: str = "server"

    def __str__(self) -> str:
        return self.path or join_host_port(self.host, self.port)


class Server:
    """A connection to one server, logged in. Raises ServerError."""

    def __init__(
        self, place: Place, account: Account, tls: ssl.SSLContext | None, name: str = ""
    ) -> None:
        self.place = place
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace")
        self._sock: socket.socket
        try:
            if place.path:
                self._sock = socket.socket(socket.AF_UNIX)
                self._sock.settimeout(WITHIN)
                self._sock.connect(place.path)
            else:
                self._sock = socket.create_connection((place.host, place.port), WITHIN)
                if tls is not None:
                    self._sock = tls.wrap_socket(self._sock, server_hostname=name or place.host)
        except OSError as error:
            raise ServerError(f"{place}: {_words(error)}") from error
        if account.password or account.user:
            login = (account.user, account.password) if account.user else (account.password,)
            said = self.ask("AUTH", *login)
            if isinstance(said, hiredis.ReplyError):
                self.close()
                raise ServerError(f"{place}: {said}")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._sock.close()

    def ask(self, *request: str) -> Any:
        """The reply to a request; an error of the server is returned, as hiredis.ReplyError.
        Raises ServerError."""
        try:
            self._sock.sendall(hiredis.pack_command(request))
            while (reply := self._reader.gets()) is False:
                data = self._sock.recv(CHUNK)
                if not data:
                    raise ConnectionResetError("it has closed the connection")
                self._reader.feed(data)
        except (OSError, hiredis.ProtocolError) as error:
            raise ServerError(f"{self.place}: {_words(error)}") from error
        return reply

    def must(self, *request: str) -> Any:
        """The reply to a request. Raises ServerError if it is an error."""
        said = self.ask(*request)
        if isinstance(said, hiredis.ReplyError):
            raise ServerError(f"{self.place}: {' '.join(request[:2])}: {said}")
        return said


@dataclass(frozen=True)
class Upstream:
    """The upstream that settings name."""

    settings: Settings

    @property
    def endpoint(self) -> Endpoint:
        """`upstream.url`, parsed."""
        return self.settings.upstream_endpoint

    def account(self) -> Account:
        """The sidecar's own user. Raises ServerError."""
        endpoint = self.endpoint
        return self._account("upstream", endpoint.username, endpoint.password)

    def _account(self, section: str, user: str, password: str) -> Account:
        settings = getattr(self.settings, section)
        given = fixed(settings, user, password)
        source = source_of(section, settings, given)
        if source is not None:
            try:
                given = asyncio.run(source.read())
            except CredentialError as error:
                raise ServerError(str(error)) from error
        return Account(given.user.decode(), given.password.decode("utf-8", "replace"))

    def connect(self, place: Place, account: Account) -> Server:
        """Connect to one of its servers as this user. Raises ServerError."""
        tls = self.settings.upstream.tls
        context = upstream_context(tls) if self.endpoint.tls else None
        return Server(place, account, context, tls.server_name)

    def servers(self, account: Account) -> Sequence[Place]:
        """All of its servers, replicas included, asked as this user. Raises ServerError."""
        endpoint = self.endpoint
        if endpoint.is_embedded:
            raise ServerError("the embedded server has no users: name a server in upstream.url")
        if endpoint.kind == "cluster":
            return self._nodes(account)
        if endpoint.kind == "sentinel":
            return self._of_sentinels()
        first = Place(endpoint.host, endpoint.port, endpoint.path)
        with self.connect(first, account) as server:
            return [first, *_replicas(server)]

    def _nodes(self, account: Account) -> Sequence[Place]:
        """The nodes of a cluster, as the first of its seeds that answers tells."""
        reached = parse_map(self.settings.cluster.map).reached
        problem = ServerError("no node is named")
        for host, port in self.endpoint.members:
            try:
                with self.connect(Place(host, port), account) as server:
                    lines = str(server.must("CLUSTER", "NODES")).splitlines()
            except ServerError as error:
                problem = error
                continue
            return list(_nodes_in(lines, host, reached))
        raise problem

    def _of_sentinels(self) -> Sequence[Place]:
        """The master and the replicas, as the first Sentinel that answers tells."""
        endpoint, settings = self.endpoint, self.settings
        account = self._account("sentinel", "", "")
        context = sentinel_context(settings.sentinel, settings.upstream.tls, endpoint.tls)
        problem = ServerError("no Sentinel is named")
        for host, port in endpoint.members:
            try:
                with Server(Place(host, port), account, context) as sentinel:
                    master = sentinel.must("SENTINEL", "GET-MASTER-ADDR-BY-NAME", endpoint.service)
                    if master is None:
                        raise ServerError(f"{host}:{port}: no master {endpoint.service!r}")
                    rows = sentinel.must("SENTINEL", "REPLICAS", endpoint.service)
            except ServerError as error:
                problem = error
                continue
            replicas = [dict(zip(row[::2], row[1::2], strict=False)) for row in rows]
            return [
                Place(master[0], int(master[1]), role="master"),
                *(Place(each["ip"], int(each["port"]), role="replica") for each in replicas),
            ]
        raise problem


def _replicas(server: Server) -> Iterator[Place]:
    """The replicas that a server tells of, if it may be asked."""
    role = server.ask("ROLE")
    if isinstance(role, list) and role and role[0] == "master" and len(role) > 2:
        for host, port, *_ in role[2]:
            yield Place(host, int(port), role="replica")


def _nodes_in(lines: Sequence[str], seed: str, reached: Any) -> Iterator[Place]:
    for line in lines:
        words = line.split()
        flags = words[2].split(",")
        if "noaddr" in flags or "handshake" in flags:
            continue
        host, _, port = words[1].partition("@")[0].rpartition(":")
        place = reached((host.strip("[]") or seed, int(port)))
        yield Place(place[0], place[1], role="primary" if "master" in flags else "replica")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {WITHIN:g} s"
    return (getattr(error, "strerror", None) or str(error)).lower()
