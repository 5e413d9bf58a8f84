"""The units of config/systemd: systemd takes them, they leave the sidecar little to misuse, and it
runs with what they set."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.settings.load import load
from sidecar.settings.schema import Settings
from tests.harness.process import free_port
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire, pack

FOLDER = Path(__file__).parents[2] / "config/systemd"
SERVICE = FOLDER / "redis-sidecar.service"
SOCKET = FOLDER / "redis-sidecar.socket"

EXPOSED = 1.6
"""`systemd-analyze security`: 10 is a service without any limits, up to 2 it is well kept. What is
left is the network and unix sockets, which it is for."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze"
)

# prctl: no memory may be writable and executable, as with MemoryDenyWriteExecute=.
SET_MDWE = 65


def lines(file: Path = SERVICE) -> list[tuple[str, str]]:
    """The settings, in order; one may be there several times."""
    return re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE)


SETTINGS = dict(lines())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the units, whose program is one that is there."""
    program = tmp_path / "sidecar"
    program.touch(mode=0o755)
    text = SERVICE.read_text().replace("/opt/redis-sidecar/bin/sidecar", str(program))
    (tmp_path / SERVICE.name).write_text(text)
    shutil.copy(SOCKET, tmp_path)
    return tmp_path


@needs_systemd
def test_systemd_takes_them(here: Path) -> None:
    files = [str(here / file.name) for file in (SERVICE, SOCKET)]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    about = [line for line in done.stderr.splitlines() if "redis-sidecar" in line]
    assert (done.returncode, about) == (0, [])


@needs_systemd
def test_it_leaves_little_to_misuse(here: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(here / SERVICE.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    level = re.search(r"exposure level for redis-sidecar\.service: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= EXPOSED


def test_its_times_and_limits_fit_the_defaults() -> None:
    settings = Settings()
    assert int(SETTINGS["TimeoutStopSec"]) > settings.drain.timeout
    assert int(SETTINGS["LimitNOFILE"]) > settings.listen.max_clients + settings.upstream.max_links
    assert SETTINGS["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(SETTINGS["WatchdogSec"]) >= 5


def test_the_socket_is_the_default_address() -> None:
    assert f"redis://{dict(lines(SOCKET))['ListenStream']}" in Settings().listen.urls


def test_the_url_is_read_from_the_credential(tmp_path: Path) -> None:
    """LoadCredential= and the variable name the same file."""
    name, _, path = SETTINGS["LoadCredential"].partition(":")
    assert path.startswith("/etc/redis-sidecar/")
    variable, _, value = SETTINGS["Environment"].partition("=")
    assert value == f"%d/{name}"
    (tmp_path / name).write_text("redis://:secret@redis.internal:6379\n")
    settings = load(environ={variable: value.replace("%d", str(tmp_path))})
    assert settings.upstream_endpoint.host == "redis.internal"


def test_folders_are_its_own() -> None:
    text = SERVICE.read_text()
    for kind in ("Runtime", "State", "Logs", "Configuration"):
        assert SETTINGS[f"{kind}Directory"] == "redis-sidecar"
        assert f"{kind}DirectoryMode=" in text


def _can_deny() -> bool:
    """Whether this kernel can deny memory that is writable and executable."""
    probe = f"import ctypes; exit(ctypes.CDLL(None).prctl({SET_MDWE}, 1, 0, 0, 0) != 0)"
    return subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


class Denied(Sidecar):
    """One that may have no memory that is writable and executable."""

    def argv(self) -> list[str]:
        run = f"import ctypes, os, sys; ctypes.CDLL(None).prctl({SET_MDWE}, 1, 0, 0, 0)"
        first = [sys.executable, "-c", f"{run}; os.execv(sys.argv[1], sys.argv[1:])"]
        return [*first, *super().argv()]


@pytest.mark.skipif(not _can_deny(), reason="this kernel has no PR_SET_MDWE")
def test_it_runs_without_memory_that_is_written_and_executed(plain_server: Server) -> None:
    """MemoryDenyWriteExecute=: the interpreter and all libraries can do without."""
    with Denied(plain_server.url, admin=f"127.0.0.1:{free_port()}") as sidecar:
        with Wire(sidecar.port) as wire:
            wire.send(pack("SET", "k", "v") + pack("GET", "k"))
            assert wire.read_replies(2) == [b"+OK\r\n", b"$1\r\nv\r\n"]
        status = Path(f"/proc/{sidecar.pid}/maps").read_text()
        assert "rwxp" not in status
