"""Talks to systemd: tells it the state (`NOTIFY_SOCKET`), and takes sockets over (`LISTEN_FDS`).

Without systemd the variables are absent, and nothing here does anything. Protocols: sd_notify(3),
sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

FIRST_DESCRIPTOR = 3


class Systemd:
    """The service manager, as the environment tells of it. The variables are removed: they are
    not for child processes."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        for_us = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        every = environ.pop("WATCHDOG_USEC", "")
        self.watchdog = int(every) / 1e6 if for_us and every.isdigit() else 0.0
        self._descriptors = _passed(environ)

    def ready(self) -> None:
        """Clients are served (again)."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends that."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The sidecar is ending."""
        self._tell("STOPPING=1")

    async def watch(self, well: Callable[[], bool] = lambda: True) -> None:
        """Say that the event loop turns, twice in each watchdog period, if all is `well`; for
        ever."""
        while self.watchdog:
            if well():
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)

    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets that were handed over; once."""
        taken, self._descriptors = self._descriptors, range(0)
        sockets = [socket.socket(fileno=descriptor) for descriptor in taken]
        for sock in sockets:
            sock.setblocking(False)
            sock.set_inheritable(False)
        return sockets

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract address
            address = "\0" + address[1:]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), address)


def _passed(environ: MutableMapping[str, str]) -> range:
    """The descriptors that were handed over to this process."""
    process, number = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not number.isdigit():
        return range(0)
    return range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(number))
