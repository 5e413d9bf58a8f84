"""Connects to a server: address, TCP or unix socket, TLS.

Sends nothing on the connection; that is the greeting's part.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from dataclasses import dataclass, field

from sidecar.policy.server_version import ServerVersion
from sidecar.proxy.links.errors import Full, Unreachable
from sidecar.proxy.links.own_connections import OwnConnections
from sidecar.proxy.links.racing import Resolve, first_to_connect, resolve
from sidecar.settings.urls import Endpoint
from sidecar.telemetry.handshakes import Handshakes
from sidecar.tls.handshake import Layer, Resumption, handshake


@dataclass
class Refusals:
    """What the server of a target refused, as its connections found out."""

    setinfo_by: ServerVersion | None = None
    """A server that has no CLIENT SETINFO."""


@dataclass(frozen=True)
class Target:
    """A server's address, and how to connect to it. Times in seconds. `resolve` returns the
    addresses of the endpoint's name; it is asked for each connection. `number` is the address that
    was chosen among them, "" if any will do."""

    endpoint: Endpoint
    context: ssl.SSLContext | None
    server_name: str
    connect_timeout: float
    keepalive: int
    resumption: Resumption = field(default_factory=Resumption, compare=False)
    refusals: Refusals = field(default_factory=Refusals, compare=False)
    handshakes: Handshakes = field(default_factory=lambda: Handshakes("upstream"), compare=False)
    own: OwnConnections = field(default_factory=OwnConnections, compare=False)
    resolve: Resolve = field(default=resolve, compare=False)
    number: str = ""

    @property
    def address(self) -> str:
        """Where exactly it leads, for messages about changes: several servers have one name."""
        known = self.number in ("", self.endpoint.host)
        return str(self) if known else f"{self} ({self.number})"

    def __str__(self) -> str:
        e = self.endpoint
        return e.path if e.kind == "unix" else f"{e.host}:{e.port}"


async def connect(target: Target) -> tuple[socket.socket, Layer | None]:
    """Connect within the target's timeout, TLS included. Raises Unreachable."""
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(target.connect_timeout):
            sock = await _connect(target)
            return sock, await _handshake(sock, target)
    except TimeoutError:
        _close(sock)
        raise Unreachable(
            f"upstream {target} did not answer within {target.connect_timeout:g} s"
        ) from None
    except ssl.SSLError as error:
        _close(sock)
        fault = target.handshakes.failed(str(target), error)
        raise Unreachable(f"upstream {target}: TLS: {fault.words}") from error
    except OSError as error:
        _close(sock)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise Full(f"no link to upstream {target}: {_reason(error)}") from error
        raise Unreachable(f"upstream {target}: {_reason(error)}") from error
    except BaseException:
        _close(sock)
        raise


async def _handshake(sock: socket.socket, target: Target) -> Layer | None:
    if target.context is None:
        return None
    return await handshake(
        sock,
        target.context,
        server_side=False,
        server_name=target.server_name,
        resumption=target.resumption,
    )


async def _connect(target: Target) -> socket.socket:
    loop = asyncio.get_running_loop()
    e = target.endpoint
    if e.kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, e.path)
        except BaseException:
            sock.close()
            raise
        return sock
    addresses = await target.resolve(e.host, e.port)
    sock = await first_to_connect(addresses, target.connect_timeout)
    tune(sock, target.keepalive)
    return sock


def tune(sock: socket.socket, keepalive: float) -> None:
    """Send small writes at once; send keepalives after `keepalive` idle seconds (0: never)."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
        if idle is not None:
            sock.setsockopt(socket.IPPROTO_TCP, idle, max(1, int(keepalive)))
        if hasattr(socket, "TCP_KEEPINTVL"):
            step = max(1, int(keepalive) // 3)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, step)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


def _reason(error: OSError) -> str:
    """What the system says, without the "Connect call failed" around it."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)
