"""Processes the harness starts: ports, logs, readiness, and an end for every one of them.

Each child runs in its own session (Ctrl-C reaches only the harness, which then ends the children
by pid) and asks the kernel to be killed should the harness itself be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1
READY_SECONDS = 10.0
PROBE = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n"


class Unavailable(Exception):
    """A peer cannot take part; the text says why."""


@dataclass(frozen=True)
class Address:
    """Where a lane's clients connect: a TCP port of 127.0.0.1 or a unix socket path."""

    port: int = 0
    path: str = ""
    tls: bool = False

    def loadgen_args(self) -> list[str]:
        """This address as options of loadgen."""
        where = ["--unix", self.path] if self.path else ["--port", str(self.port)]
        return where + (["--tls"] if self.tls else [])

    def connect(self, timeout: float) -> socket.socket:
        """A connected blocking socket."""
        if self.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            sock.connect(self.path)
            return sock
        sock = socket.create_connection(("127.0.0.1", self.port), timeout)
        if not self.tls:
            return sock
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock)


@dataclass
class Child:
    """A running process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def tail(self) -> str:
        """The last lines it printed (without a traceback's markers), for an error message."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line.strip("^~ ")][-3:])[-400:]

    def stop(self) -> None:
        """End it: politely, then not."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _before_exec(cpus: set[int] | None) -> Callable[[], None]:
    """What a child does between fork and exec."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus:
            os.sched_setaffinity(0, cpus)

    return prepare


class Fleet:
    """All children of a scenario and the temporary directory they share."""

    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="sidecar-bench-"))
        self.children: list[Child] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        blocked = {signal.SIGINT, signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # an impatient second Ctrl-C
        for child in reversed(self.children):
            child.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def start(self, name: str, argv: list[str], cpus: set[int] | None = None) -> Child:
        """Start a process, its output in a log file; raises Unavailable if it cannot be run."""
        log = self.dir / f"{name}-{len(self.children)}.log"
        try:
            with log.open("wb") as out:
                process = subprocess.Popen(
                    argv,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_before_exec(cpus),
                )
        except OSError as error:
            raise Unavailable(f"{name} cannot be started: {error}") from error
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def end(self, child: Child) -> None:
        """End one child before the others."""
        child.stop()
        self.children.remove(child)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_ready(child: Child, address: Address) -> None:
    """Poll until a GET through `address` is answered with a bulk; Unavailable after a deadline."""
    deadline = time.monotonic() + READY_SECONDS
    last = "no answer"
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise Unavailable(f"{child.name} ended at start: {child.tail()}")
        try:
            with address.connect(1.0) as sock:
                sock.sendall(PROBE)
                answer = sock.recv(64)
            if answer[:1] in b"$_" and answer:
                return
            last = repr(answer)
        except OSError as error:
            last = str(error)
        time.sleep(0.02)
    raise Unavailable(f"{child.name} did not get ready ({last}): {child.tail()}")


def scraped(admin: int) -> dict[str, float]:
    """What a sidecar's /metrics says, by the name and labels of each line."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and line[0] != "#")
    return {name: float(value) for name, _, value in pairs}
