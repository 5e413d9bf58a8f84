"""`run`: one sidecar on an event loop of its own, and the signals that end or reload it.

With several workers, this process is their supervisor.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import uvloop

from sidecar.app.sidecar import Sidecar
from sidecar.app.supervisor import Supervisor
from sidecar.settings.schema import Settings
from sidecar.telemetry import logs

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, read_again: Callable[[], Settings], file: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP has the settings read again. `file` is the
    configuration file. Raises StartError."""
    logs.configure(settings.log.format, settings.log.level, blocking=settings.log.blocking)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, read_again, file))
    finally:
        logs.close()


async def serve(
    settings: Settings, read_again: Callable[[], Settings], file: str | None = None
) -> None:
    """`run`, on the running loop, which must be the main thread's. Raises StartError."""
    kind = Supervisor if settings.workers > 1 else Sidecar
    sidecar = kind(settings, read_again, file)
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, sidecar.on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, sidecar.on_reload)
    try:
        await sidecar.serve()
    finally:
        for number in (*SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)
