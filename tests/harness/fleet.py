"""Processes that end together, and a folder they share."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from .closing import Closing
from .process import Process
from .programs import ROOT

P = TypeVar("P", bound=Process)


class Fleet(Closing):
    """A context manager; the youngest process ends first."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sidecar-fleet-"))
        self.processes: list[Process] = []

    def add(self, process: P) -> P:
        """A process that has been started: it ends with the others."""
        self.processes.append(process)
        return process

    def start(
        self,
        name: str,
        argv: Sequence[str],
        cpus: set[int] | None = None,
        env: dict[str, str] | None = None,
    ) -> Process:
        """Start a program in the repository's folder; `Unavailable` when there is no such."""
        process = self.add(Process(name))
        process.spawn(argv, env, cwd=ROOT, cpus=cpus)
        return process

    def end(self, process: Process) -> None:
        """End one before the others."""
        process.close()
        self.processes.remove(process)

    def close(self) -> None:
        """End them all, even if somebody presses Ctrl-C again meanwhile."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while self.processes:
            self.processes.pop().close()
        shutil.rmtree(self.folder, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
