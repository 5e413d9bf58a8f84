"""`sidecar identities hash`: from a terminal, without an echo, and from standard input."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from sidecar.passwords import verify

COMMAND = [sys.executable, "-m", "sidecar", "identities", "hash"]


def piped(given: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *options], input=given, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("given", "password"), [(b"pw\n", b"pw"), (b"p w\r\nmore\n", b"p w"), (b"\xff", b"\xff")]
)
def test_from_standard_input(given: bytes, password: bytes) -> None:
    done = piped(given)
    assert (done.returncode, done.stderr) == (0, b"")
    assert verify(password, done.stdout.decode().strip())


def test_as_json() -> None:
    assert verify(b"pw", json.loads(piped(b"pw\n", "--json").stdout)["hash"])


@pytest.mark.parametrize("given", [b"", b"\n", b"x" * 70_000])
def test_no_password(given: bytes) -> None:
    done = piped(given)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1


def typed(*lines: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, standard output, and what the terminal shows, with these lines typed."""
    ours, theirs = pty.openpty()
    try:
        process: subprocess.Popen[Any] = subprocess.Popen(
            COMMAND, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
        )
        shown = b""
        for line in lines:
            while not shown.endswith(b": "):
                shown += os.read(ours, 1000)
            os.write(ours, line + b"\n")
            shown += b"|"
        out, _ = process.communicate(timeout=60)
        os.set_blocking(ours, False)
        with suppress(BlockingIOError):
            shown += os.read(ours, 10_000)
        return process.returncode, out, shown
    finally:
        os.close(ours)
        os.close(theirs)


def test_at_a_terminal_it_is_not_shown() -> None:
    code, out, shown = typed(b"hunter2", b"hunter2")
    assert code == 0
    assert verify(b"hunter2", out.decode().strip())
    assert b"hunter2" not in shown


def test_at_a_terminal_it_is_typed_twice() -> None:
    code, out, shown = typed(b"hunter2", b"hunter3")
    assert (code, out) == (1, b"")
    assert b"the two are not the same" in shown
