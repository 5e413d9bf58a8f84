"""Makes listening sockets: of a name on all its addresses, of a path if nothing else is there.

Accepts nobody: listener.py does.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sidecar.proxy.links.errors import ProxyStartError
from sidecar.settings.addresses import join_host_port
from sidecar.settings.urls import Endpoint, parse_listen

# Not in the socket module; linux/asm-generic/socket.h, linux/filter.h: BPF_RET | BPF_K.
SO_ATTACH_REUSEPORT_CBPF = 51
SO_DETACH_REUSEPORT_BPF = 68
BPF_RETURN = 0x06

# Where to connect to an address that means all of the host's.
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
KNOCK_WITHIN = 0.5

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


@dataclass(frozen=True)
class How:
    """How to listen: `Listen.backlog`, the file mode of unix sockets, and `Listen.reuse_port`."""

    backlog: int
    unix_mode: int
    reuse_port: bool = False


def listen(endpoint: Endpoint, how: How) -> Iterator[Listening]:
    """Listen at an endpoint: one socket for each of its addresses. Raises OSError."""
    if endpoint.kind == "unix":
        _remove_stale(endpoint)
        yield _bound(endpoint, socket.AF_UNIX, endpoint.path, how)
        return
    yield from _each(endpoint, how)


def _each(endpoint: Endpoint, how: How, *, listens: bool = True) -> Iterator[Listening]:
    missing: OSError | None = None
    found = False
    for family, host in _addresses(endpoint):
        try:
            made = _bound(endpoint, family, (host, endpoint.port), how, listens)
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


def reserve(endpoint: Endpoint, how: How) -> Iterator[Listening]:
    """Take the ports of an endpoint for processes that will listen there, without listening: one
    socket for each of its addresses. Raises OSError, also if somebody listens there and
    `how.reuse_port` does not allow that."""
    for made in _each(endpoint, how, listens=False):
        made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield made


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
    endpoint: Endpoint,
    family: int,
    address: str | tuple[str, int],
    how: How,
    listens: bool = True,
) -> Listening:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if how.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and ":" not in endpoint.host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket too
        sock.bind(address)
        if family == socket.AF_UNIX:
            os.chmod(endpoint.path, how.unix_mode)
        if listens:
            sock.listen(how.backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{error.strerror}: {endpoint}") from error
    if endpoint.kind == "unix":
        return Listening(sock, endpoint, _file(endpoint.path))
    return Listening(sock, replace(endpoint, port=sock.getsockname()[1]))


def inherited(sockets: Sequence[socket.socket], endpoints: Sequence[Endpoint]) -> list[Listening]:
    """Sockets that were handed over by whoever started this process, each with the configured
    endpoint that has its address. Raises ProxyStartError for one that has none."""
    found = []
    for sock in sockets:
        address = sock.getsockname()
        for endpoint in endpoints:
            if _is_at(endpoint, sock.family, address):
                port = address[1] if sock.family != socket.AF_UNIX else 0
                found.append(Listening(sock, replace(endpoint, port=port)))
                break
        else:
            where = join_host_port(*address[:2]) if isinstance(address, tuple) else address
            raise ProxyStartError(
                f"the service manager has handed over a socket at {where}, which is not in "
                "listen.urls; add it there, or remove it from the .socket unit"
            )
    return found


def _is_at(endpoint: Endpoint, family: int, address: Any) -> bool:
    if family == socket.AF_UNIX or endpoint.kind == "unix":
        return family == socket.AF_UNIX and endpoint.path == address
    hosts = [host for _, host in _addresses(endpoint)]
    return endpoint.port == address[1] and address[0] in hosts


def added_and_gone(
    before: Sequence[str], wanted: Sequence[str]
) -> tuple[list[Endpoint], list[Endpoint]]:
    """What of the wanted URLs is not there yet, and what is there and not wanted any more. One with
    another command policy is still there."""
    old, new = [parse_listen(url) for url in before], [parse_listen(url) for url in wanted]
    return [each for each in new if each not in old], [each for each in old if each not in new]


def with_policies(listening: Sequence[Listening], urls: Sequence[str]) -> list[Listening]:
    """The sockets, each with the command policy that its clients have by these URLs."""
    wanted = [parse_listen(url) for url in urls]
    policies = [
        next((url.policy for url in wanted if is_made_for(each.endpoint, url)), "")
        for each in listening
    ]
    return [
        replace(each, endpoint=replace(each.endpoint, policy=policy))
        for each, policy in zip(listening, policies, strict=True)
    ]


def is_made_for(listening: Endpoint, configured: Endpoint) -> bool:
    """Whether a socket was made for this address; the system may have chosen its port."""
    port = listening.port if configured.port == 0 else configured.port
    return listening == replace(configured, port=port)


def lead_to(sock: socket.socket, number: int) -> bool:
    """Lead new connections of this socket's port to the socket with this number, among those that
    share the port. Their numbers follow the order in which they joined, and the last takes the
    place of one that is closed. A number that no socket has leaves the choice to the system. False
    if the port cannot be shared."""
    program = struct.pack("HBBI", BPF_RETURN, 0, 0, number)
    buffer = ctypes.create_string_buffer(program)
    filter = struct.pack("HL", 1, ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter)
    except OSError:
        return False
    return True


def lead_to_all(sock: socket.socket) -> None:
    """Undo what the predecessor on this port has chosen by `lead_to`: it outlasts its socket."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)


def knocker(sock: socket.socket) -> socket.socket:
    """A socket to `knock` with at the port of this listening one. It has its address before it
    connects, so that whoever accepts it can tell it from a client. Raises OSError."""
    client = socket.socket(sock.family, socket.SOCK_STREAM)
    try:
        client.setblocking(False)
        host, _, *rest = _reached(sock)
        client.bind((host, 0, *rest))
    except BaseException:
        client.close()
        raise
    return client


async def knock(client: socket.socket, sock: socket.socket) -> bool:
    """Connect to the port of this listening socket, as a client does. False if nobody is there."""
    try:
        async with asyncio.timeout(KNOCK_WITHIN):
            await asyncio.get_running_loop().sock_connect(client, _reached(sock))
    except (OSError, TimeoutError):
        return False
    return True


def _reached(sock: socket.socket) -> tuple[Any, ...]:
    """Where who is on this host reaches a listening socket."""
    host, *rest = sock.getsockname()
    return (ANY.get(host, host), *rest)


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
