"""docs/quickstart.md, followed to the letter.

Every line of its `sh` blocks is run, in the order of the page, and what the `text` block behind one
says must come out (`...` stands for anything). Only addresses, and the folder for files, are this
test's own. What goes on running (`make run`, `sidecar run`) is ended by Ctrl-C before the next of
them starts.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness.process import free_port, ping, wait_until
from tests.harness.servers import Server
from tests.harness.wire import call

pytestmark = pytest.mark.redis  # redis-cli comes with Debian's server

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
GOES_ON = ("make run", ".venv/bin/sidecar run")


def steps() -> Iterator[tuple[str, str | None]]:
    """The blocks of commands, each with the output that it should have, if the page tells."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in blocks} == {"sh", "text"}, "a block that nobody runs"
    for (kind, text), (next_kind, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "sh":
            yield text, output if next_kind == "text" else None


def replaced(text: str, names: dict[str, str]) -> str:
    """A text with other names."""
    for name, value in names.items():
        text = text.replace(name, value)
    return text


@contextmanager
def terminal(command: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on running, in a process group of its own; Ctrl-C in the end."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["sh", "-c", command],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            child.wait(20)


def test_every_command(tmp_path: Path, plain_server: Server) -> None:
    """A reader who copies all of it gets what the page says."""
    client, admin = free_port(), free_port()
    names = {
        "redis.internal:6379": f"127.0.0.1:{plain_server.port}",
        "6380": str(client),
        "6381": str(admin),
        "/tmp/": f"{tmp_path}/",
    }
    # What the page leaves out, since it is the default.
    defaults = {
        "redis_py.py": f"redis_py.py redis://127.0.0.1:{client}",
        "sidecar hotkeys": f"sidecar hotkeys --admin 127.0.0.1:{admin}",
    }
    env = {
        "SIDECAR_LISTEN__URLS": f"redis://127.0.0.1:{client}",
        "SIDECAR_ADMIN__LISTEN": f"127.0.0.1:{admin}",
    }
    log = tmp_path / "log"
    started = 0
    with ExitStack() as stack:
        for text, output in steps():
            command = replaced(text, {**defaults, **names})
            if text.startswith(GOES_ON):
                stack.pop_all().close()
                child = stack.enter_context(terminal(command, env, log))

                def serves(child: subprocess.Popen[bytes] = child) -> bool:
                    return child.poll() is not None or ping(client) != b""

                wait_until(serves, f"{command} serves", 60)
                assert child.poll() is None, log.read_text()
                started += 1
                continue
            done = subprocess.run(
                ["sh", "-ec", command],
                cwd=ROOT,
                env={**os.environ, **env},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (done.returncode, done.stderr) == (0, ""), command
            if output is not None:
                wanted = re.escape(replaced(output, names)).replace(re.escape("..."), ".*")
                assert re.fullmatch(wanted, done.stdout), done.stdout
        assert call(client, "SET", "from", "the quick start") == "OK"
    assert started == len(GOES_ON)
    assert call(plain_server.port, "GET", "from") == "the quick start"
    assert call(plain_server.port, "GET", "greeting") is None, "that was the embedded server"
