"""Makes listening sockets: of a name on all its addresses, of a path if nothing else is there.

Accepts nobody: listener.py does.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sidecar.settings.urls import Endpoint

# `localhost` means both, whatever the host's files say: clients try one or the other first.
LOCALHOST = ("127.0.0.1", "::1")
# A host without IPv6, or without this address of a name, listens on the others.
ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@dataclass(frozen=True)
class Listening:
    """A socket that listens. `file` tells the file of a unix socket from one that replaced it."""

    sock: socket.socket
    endpoint: Endpoint
    file: tuple[int, int] = (0, 0)

    def close(self) -> None:
        """Close it, and remove its file."""
        self.sock.close()
        path = self.endpoint.path
        if self.endpoint.kind == "unix" and _file(path) == self.file:
            with suppress(FileNotFoundError):
                os.unlink(path)


def listen(endpoint: Endpoint, backlog: int, unix_mode: int) -> Iterator[Listening]:
    """Listen at an endpoint: one socket for each of its addresses. Raises OSError."""
    if endpoint.kind == "unix":
        _remove_stale(endpoint)
        yield _bound(endpoint, socket.AF_UNIX, endpoint.path, backlog, unix_mode)
        return
    missing: OSError | None = None
    found = False
    for family, host in _addresses(endpoint):
        try:
            made = _bound(endpoint, family, (host, endpoint.port), backlog, unix_mode)
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            missing = error
            continue
        endpoint = made.endpoint  # where the system chose a port, it is the same for all
        found = True
        yield made
    if missing is not None and not found:
        raise missing


def _addresses(endpoint: Endpoint) -> Sequence[tuple[int, str]]:
    host = endpoint.host
    if host.lower().rstrip(".") == "localhost":
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in LOCALHOST]
    try:
        found = socket.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, f"{error.strerror}: {endpoint}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, *_, address in found))


def _bound(
    endpoint: Endpoint, family: int, address: str | tuple[str, int], backlog: int, unix_mode: int
) -> Listening:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and ":" not in endpoint.host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket too
        sock.bind(address)
        if family == socket.AF_UNIX:
            os.chmod(endpoint.path, unix_mode)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{error.strerror}: {endpoint}") from error
    if endpoint.kind == "unix":
        return Listening(sock, endpoint, _file(endpoint.path))
    return Listening(sock, replace(endpoint, port=sock.getsockname()[1]))


def _file(path: str) -> tuple[int, int]:
    """Which file is there; (0, 0): none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _remove_stale(endpoint: Endpoint) -> None:
    """Remove the socket file if no process listens on it. Raises OSError for any other file."""
    path = endpoint.path
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, f"there is a file that is no socket: {endpoint}")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass
    finally:
        probe.close()
