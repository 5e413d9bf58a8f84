"""A sidecar whose standard error nobody reads: it starts, serves and ends all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.harness.process import free_port, ping, wait_until
from tests.harness.servers import Server


def full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


def test_it_starts_serves_and_ends(plain_server: Server) -> None:
    reading, writing = full_pipe()
    port = free_port()
    argv = [sys.executable, "-m", "sidecar", "run", "--listen", f"redis://127.0.0.1:{port}"]
    argv += ["--upstream", plain_server.url, "--admin", ""]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=writing) as child:
        try:
            wait_until(lambda: ping(port) == b"+PONG\r\n", "it serves", 20.0)
            child.send_signal(signal.SIGHUP)  # a line more
            assert ping(port) == b"+PONG\r\n"
            began = time.monotonic()
            child.terminate()
            assert child.wait(10.0) == 0
            assert time.monotonic() - began < 5.0
        finally:
            child.kill()
            os.close(writing)
            os.close(reading)
