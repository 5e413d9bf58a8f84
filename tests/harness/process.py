"""Child processes: free ports, a log file each, readiness with a deadline, and always an end.

Ports are taken from below the kernel's ephemeral range, so no outgoing connection can hold one,
and are locked machine-wide (a locked file each) for the life of this process: two runs of the
suite, two xdist workers, or a test and a bench never start two servers on one port.

Each child runs in a session of its own, so Ctrl-C reaches only this process, which then ends its
children; where `setpriv` is installed, the kernel ends them should this process be killed.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from .closing import Closing
from .errors import GONE, Unavailable
from .wire import Wire

START_DEADLINE = 20.0
STOP_DEADLINE = 10.0

T = TypeVar("T")

_LOCKS: list[IO[str]] = []
_LOCK_FOLDER = Path(tempfile.gettempdir()) / f"sidecar-test-ports-{os.getuid()}"

_SETPRIV = shutil.which("setpriv")
_DIES_WITH_US = [_SETPRIV, "--pdeathsig", "KILL", "--"] if _SETPRIV else []

RUNNING: list[Process] = []
"""Every child alive, so that a failed test can show what they logged."""


def wait_until(
    check: Callable[[], T],
    what: str,
    deadline: float = 5.0,
    ignore: tuple[type[BaseException], ...] = (),
    every: float = 0.05,
) -> T:
    """Poll `check` until it returns something true, and return that; `Unavailable` otherwise.

    What it raises of `ignore` counts as "not yet". Pauses begin short and grow to `every` (s).
    """
    limit = time.monotonic() + deadline
    pause = 0.001
    while True:
        try:
            if value := check():
                return value
        except ignore:
            pass
        if time.monotonic() > limit:
            raise Unavailable(f"not within {deadline:g} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, every)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on and no other test process will take."""
    _LOCK_FOLDER.mkdir(exist_ok=True)
    for _ in range(1000):
        port = random.randint(12000, 31000)
        lock = (_LOCK_FOLDER / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _LOCKS.append(lock)
        return port
    raise Unavailable("no free port")


class Process(Closing):
    """A child process with a folder of its own, a log file and a port of 127.0.0.1."""

    def __init__(self, name: str, port: int | None = None) -> None:
        self.name = name
        self.port = free_port() if port is None else port
        self.folder = Path(tempfile.mkdtemp(prefix=f"sidecar-test-{name}-"))
        self.log_file = self.folder / "log"
        self._child: subprocess.Popen[bytes] | None = None
        self._mark = 0

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        assert self._child is not None, f"{self.name} is not running"
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def spawn(
        self,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        *,
        cwd: Path | None = None,
        cpus: set[int] | None = None,
    ) -> None:
        """Start the child, in its own folder unless told otherwise, pinned to `cpus` if given; its
        output goes to the log file."""
        if shutil.which(argv[0]) is None:
            raise Unavailable(f"{self.name} cannot be started: there is no {argv[0]}")
        before = os.sched_getaffinity(0) if cpus else None
        if cpus:
            os.sched_setaffinity(0, cpus)  # of this thread; the child inherits it
        try:
            with self.log_file.open("ab") as log:
                self._child = subprocess.Popen(
                    [*_DIES_WITH_US, *argv],
                    cwd=cwd or self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=None if env is None else {**os.environ, **env},
                    start_new_session=True,
                )
        finally:
            if before:
                os.sched_setaffinity(0, before)
        RUNNING.append(self)

    def wait_ready(self, check: Callable[[], bool], deadline: float = START_DEADLINE) -> None:
        """Wait for `check`; when the child ends first or the time is up, fail with its log."""

        def ready_or_dead() -> bool:
            return not self.running or check()

        try:
            wait_until(ready_or_dead, f"{self.name} ready", deadline)
            if not self.running:
                raise Unavailable(f"{self.name} ended with {self.returncode}")
        except Unavailable as error:
            problem = self._problem(str(error))
            self.close()
            raise problem from None

    @property
    def returncode(self) -> int | None:
        """How the child ended."""
        return None if self._child is None else self._child.returncode

    def stop(self, deadline: float = STOP_DEADLINE) -> int:
        """SIGTERM, wait, and return the exit status. Not ending in time is a failure."""
        if self._child is None:
            return 0
        child = self._child
        child.send_signal(signal.SIGCONT)
        child.terminate()
        try:
            status = child.wait(deadline)
        except subprocess.TimeoutExpired:
            problem = self._problem(f"{self.name} ignored SIGTERM for {deadline} s")
            self.kill()
            raise problem from None
        self._forget()
        return status

    def kill(self) -> None:
        """SIGKILL and wait: a crash."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._forget()

    def pause(self) -> None:
        """SIGSTOP: alive, connected and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the child, whatever its state, and remove its folder. Where coverage is measured it
        ends in order: one that is killed writes no counters."""
        if "TESTED_ENDS_IN_ORDER" in os.environ:
            with suppress(Unavailable):
                self.stop()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _problem(self, text: str) -> Unavailable:
        """What went wrong, with the last lines of the log; more of them in a note."""
        problem = Unavailable(f"{text}: {self.tail()}")
        problem.add_note(self.log()[-4000:])
        return problem

    def _forget(self) -> None:
        if self in RUNNING:
            RUNNING.remove(self)
        self._child = None

    def rss(self) -> int:
        """Resident memory of the child in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open file descriptors of the child."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def log(self) -> str:
        """Everything the child wrote so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def tail(self) -> str:
        """The last lines it wrote (without a traceback's markers), for an error message."""
        lines = [line.strip() for line in self.log().splitlines()]
        return " | ".join([line for line in lines if line.strip("^~ ")][-3:])[-400:]

    def mark(self) -> None:
        """Remember the end of the log; `news` tells what came after it."""
        self._mark = self.log_file.stat().st_size if self.log_file.exists() else 0

    def news(self) -> str:
        """What the child wrote since `mark`."""
        with self.log_file.open("rb") as log:
            log.seek(self._mark)
            return log.read().decode(errors="replace")


def ping(where: int | str | tuple[str, int], tls: ssl.SSLContext | None = None) -> bytes:
    """The first reply of whoever listens there to PING; empty when there is none yet."""
    try:
        with Wire(where, tls=tls, deadline=1.0) as wire:
            return wire.cmd("PING")
    except GONE:
        return b""


@atexit.register
def _end_all() -> None:
    """Leave no child behind when the run is interrupted."""
    while RUNNING:
        RUNNING[-1].close()
