"""The command line as users meet it: real processes, exit codes, one line for each error."""

import http.server
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import sidecar
from sidecar.passwords import hash_password
from tests.harness.certificates import make_certificates
from tests.harness.identities import hashed
from tests.harness.process import free_port
from tests.harness.servers import Server, Sidecar, valkey

WAIT = 30.0  # seconds for anything a child is waited for

ANY = ("--listen", "redis://127.0.0.1:0", "--admin", "127.0.0.1:0")

Start = Callable[..., "Running"]


def environment(**extra: str) -> dict[str, str]:
    # Of the interpreter it would decide when output is written.
    ours = ("SIDECAR_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **extra}


def cli(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT,
        env=environment(**extra),
    )


class Running:
    """`sidecar run` in a child, with its log as parsed lines."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "run", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def event(self, name: str) -> dict[str, Any]:
        """Read log lines up to the one about `name`."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if line.startswith("{"):
                entry: dict[str, Any] = json.loads(line)
                if entry["event"] == name:
                    return entry
        raise AssertionError(f"no {name!r} in {seen}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Running] = []

    def launch(*arguments: str) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield launch
    for each in started:
        each.close()


def exchange(url: str, request: bytes) -> bytes:
    """Send `request` and read one reply line."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=WAIT) as sock:
        sock.sendall(request)
        return sock.makefile("rb").readline()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=WAIT) as answer:
        text: str = answer.read().decode()
        return text


# -- without serving


def test_version() -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout) == (0, f"sidecar {sidecar.__version__}\n")


def test_version_and_check_do_not_load_the_data_plane() -> None:
    program = (
        "import sys; from sidecar.cli.main import main; main(['check'])\n"
        "heavy = {'aiohttp', 'uvloop', 'structlog', 'prometheus_client', 'cryptography'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=WAIT,
        env=environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run", "--nonsense"), ("certs",)])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert "usage: sidecar" in done.stderr


def test_check_sums_up(tmp_path: Path) -> None:
    toml = tmp_path / "sidecar.toml"
    toml.write_text('[upstream]\nurl = "redis://u:hunter2@db:7000/1"\n')
    done = cli("check", "-c", str(toml), "--admin", "", SIDECAR_LISTEN__URLS="unix:///run/x")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "unix:///run/x" in done.stdout
    assert "redis://u:***@db:7000/1" in done.stdout
    assert "off" in done.stdout
    assert "hunter2" not in done.stdout


def test_check_tells_what_is_in_the_file_of_identities(tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    weak, strong = hashed("pw"), hash_password(b"pw")
    file.write_text(
        f'[identities.a]\npasswords = ["{weak}"]\npolicy = "production"\n'
        f'[identities.b]\npasswords = ["{strong}", "{weak}"]\ntenant = "t"\n'
        '[tenants.t]\npassword = "secret"\n[tenants.nobodys]\npassword = "secret"\n'
        '[policies.listed]\ndeny = ["KEYS", "FLUSHAL", "@dangerus"]\n[policies.unused]\n'
    )
    more = ("--set", f"identities.file={file}", "--set", "identities.mode=terminate",
            "--set", "listen.urls=redis://127.0.0.1:0?policy=listed,unix:///run/x")  # fmt: skip
    done = cli("check", "--json", *more)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["identities"] == {
        "identities": 2, "tenants": 2, "policies": 2, "listeners_with_policy": 1
    }  # fmt: skip
    begin = [
        "identities.a.passwords: entry 1 costs", "identities.b.passwords: entry 2 costs",
        "identities.b.passwords: entry 2 is the same", "policies.listed.deny: 'FLUSHAL'",
        "policies.listed.deny: '@dangerus'", "policies.unused: no", "tenants.nobodys: no",
    ]  # fmt: skip
    for warning, words in zip(said["warnings"], begin, strict=True):
        assert warning.startswith(words)
    done = cli("check", *more)
    assert "2 identities, 2 tenants, 2 policies, 1 listeners with policy" in done.stdout
    assert done.stdout.count("\nwarning: ") == len(begin)
    assert not {weak, strong, "secret"} & set(done.stdout.split())


def test_check_lists_every_fault() -> None:
    done = cli("check", "--set", "a.b=1", "--set", "listen.backlog=x", "--set", "c.d=2")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("sidecar: ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "listen.backlog=x"), "listen.backlog: found"),
        (("--set", "listen.backlog"), "write --set listen.backlog=VALUE"),
        (("--set", "a.b=1", "--set", "c.d=2"), "(and 1 more: `sidecar check` lists them)"),
        (("-c", "/nowhere.toml"), "/nowhere.toml: cannot read the file"),
        (("--upstream", "http://x"), "upstream.url: unknown URL scheme"),
    ],
)
def test_run_refuses_wrong_settings_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    done = cli("run", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("sidecar: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_hotkeys_at_a_wrong_port_is_one_line() -> None:
    """Nobody, somebody who says nothing sensible, somebody who is no sidecar."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[1, 2]")

        def log_message(self, format: str, *args: object) -> None:
            pass

    def banner(server: socket.socket) -> None:
        with server.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"-ERR unknown command\r\n")

    with (
        http.server.HTTPServer(("127.0.0.1", 0), Other) as web,
        socket.create_server(("127.0.0.1", 0)) as redis,
    ):
        threading.Thread(target=web.handle_request, daemon=True).start()
        threading.Thread(target=banner, args=(redis,), daemon=True).start()
        for port in (web.server_port, redis.getsockname()[1], 1):
            done = cli("hotkeys", "--admin", f"127.0.0.1:{port}")
            assert done.returncode == 1
            assert done.stderr.startswith(f"sidecar: no sidecar answers at 127.0.0.1:{port}: ")
            assert done.stderr.count("\n") == 1


def test_pause_switch_and_resume(plain_server: Server) -> None:
    """As docs/changing.md has it, with the answers of a running sidecar."""
    admin = f"127.0.0.1:{free_port()}"
    with valkey() as second, Sidecar(plain_server.url, admin=admin):
        at = ("--admin", admin)
        assert "dry run: nothing has changed" in cli("switch", second.url, "--dry-run", *at).stdout
        assert cli("pause", *at).stdout.startswith("paused: quiet after ")
        done = cli("switch", second.url, *at)
        assert f"after:  127.0.0.1:{second.port}  valkey" in done.stdout
        assert "switched: commands were held for " in done.stdout
        assert cli("resume", *at).stdout.startswith("resumed after ")
        again = cli("resume", *at)
        assert (again.returncode, again.stderr.count("\n")) == (1, 1)
        assert "the upstream is not paused" in again.stderr
        there = json.loads(cli("switch", plain_server.url, "--json", *at).stdout)
        assert there["switched"] is True
        nowhere = cli("switch", f"redis://127.0.0.1:{free_port()}", *at)
        assert (nowhere.returncode, "nothing has changed" in nowhere.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments", [("check", *ANY), ("--help",), ("run", "--help"), ("completion", "bash")]
)
def test_output_that_nobody_reads_is_no_error(arguments: tuple[str, ...]) -> None:
    """As into `head`."""
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "sidecar", *arguments]
    done = subprocess.run(
        argv, stdout=write, stderr=subprocess.PIPE, env=environment(), check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "sidecar", "check", *ANY]
        done = subprocess.run(
            argv, stdout=full, stderr=subprocess.PIPE, env=environment(), text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "sidecar: cannot write the output: No space left on device\n"


def test_json_for_programs(tmp_path: Path) -> None:
    done = cli("check", "--json", *ANY)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["problems"], said["listen"]) == ([], ["redis://127.0.0.1:0"])
    done = cli("check", "--json", "--set", "a.b=1", "--set", "listen.backlog=x")
    assert (done.returncode, done.stderr) == (2, "")
    assert len(json.loads(done.stdout)["problems"]) == 2
    made = json.loads(cli("certs", "dev", "--json", "--dir", str(tmp_path)).stdout)["files"]
    assert str(tmp_path / "server.crt") in made
    missing = str(tmp_path / "none")
    done = cli("certs", "show", "--json", str(tmp_path / "server.crt"), missing)
    assert (done.returncode, done.stderr) == (1, "")
    shown, not_shown = json.loads(done.stdout)["files"]
    assert shown["certificates"][0]["ends"] > shown["certificates"][0]["begins"]
    assert (not_shown["file"], not_shown["error"]) == (missing, "no such file or directory")
    done = cli("certs", "check", "--json", f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "nobody listens there" in json.loads(done.stdout)["problem"]


def test_hotkeys_as_they_change_are_lines_of_json(plain_server: Server) -> None:
    """And Ctrl-C ends it with the code of an interruption."""
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, admin=admin):
        argv = [sys.executable, "-m", "sidecar", "hotkeys", "--watch", "--json", "--admin", admin]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(), text=True)
        assert process.stdout is not None
        assert [sorted(json.loads(process.stdout.readline())) for _ in "12"] == [
            ["keys", "window_s"]
        ] * 2
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        process.stdout.close()


def test_an_admin_port_that_wants_a_certificate(plain_server: Server, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    settings = {
        "admin.tls.cert_file": str(made.server.cert),
        "admin.tls.key_file": str(made.server.key),
        "admin.tls.ca_file": str(made.ca),
        "admin.tls.client_auth": "required",
    }
    port = free_port()
    with Sidecar(plain_server.url, admin=f"localhost:{port}", settings=settings):
        at = ("--admin", f"https://localhost:{port}", "--admin-ca", str(made.ca))
        mine = ("--admin-cert", str(made.client.cert), "--admin-key", str(made.client.key))
        done = cli("hotkeys", "--json", *at, *mine)
        assert (done.returncode, json.loads(done.stdout)["keys"]) == (0, [])
        for refused in (cli("hotkeys", *at), cli("hotkeys", *at[:2], *mine)):
            assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
            assert "no sidecar answers at https://localhost:" in refused.stderr


def test_certs_dev(tmp_path: Path) -> None:
    done = cli("certs", "dev", "--dir", str(tmp_path), "--host", "redis.internal")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "server.key").exists()
    again = cli("certs", "dev", "--dir", str(tmp_path))
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert again.stderr.count("\n") == 1
    assert cli("certs", "dev", "--dir", str(tmp_path), "--force").returncode == 0
    assert cli("certs", "dev", "--dir", str(tmp_path / "b"), "--host", "a b").returncode == 1


# -- serving


def test_run_serves_and_stops_in_order(start: Start) -> None:
    running = start(*ANY)
    listening = running.event("sidecar started")
    assert exchange(listening["urls"][0], b"PING\r\n") == b"+PONG\r\n"
    assert get(listening["admin"] + "/readyz?verbose").endswith("ok\n")
    assert "sidecar_build_info" in get(listening["admin"] + "/metrics")
    embedded = listening["upstream"].removeprefix("embedded server at ")
    assert exchange(embedded, b"PING\r\n") == b"+PONG\r\n"
    running.process.send_signal(signal.SIGTERM)
    assert running.event("sidecar stopping")["signal"] == "SIGTERM"
    running.event("sidecar stopped")
    assert running.process.wait(WAIT) == 0
    for url in (listening["urls"][0], listening["admin"], embedded):
        with pytest.raises(ConnectionRefusedError):
            exchange(url, b"")


def test_a_second_signal_ends_at_once(start: Start) -> None:
    running = start(*ANY, "--set", "drain.timeout=1h")
    listening = running.event("sidecar started")
    parts = urlsplit(listening["urls"][0])
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as waiting:
        waiting.sendall(b"PING\r\nBLPOP nothing 0\r\n")
        assert waiting.recv(7) == b"+PONG\r\n"
        running.process.send_signal(signal.SIGTERM)
        running.event("sidecar stopping")
        running.process.send_signal(signal.SIGTERM)
        running.event("sidecar stopping at once")
        assert running.process.wait(WAIT) == 128 + signal.SIGTERM


def test_a_taken_admin_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = cli("run", "--listen", "redis://127.0.0.1:0", "--admin", address)
    assert done.returncode == 1
    assert f"cannot listen on admin address {address}: address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_listener_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("run", "--listen", f"redis://127.0.0.1:{port}", "--admin", "")
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_embedded_server_is_one_line() -> None:
    done = cli("run", *ANY, "--set", "embedded.args=--nonsense")
    assert done.returncode == 1
    assert "the embedded Valkey server could not start" in done.stderr
    assert done.stderr.count("\n") == 1


def test_losing_the_embedded_server_ends_the_sidecar(start: Start) -> None:
    running = start(*ANY)
    listening = running.event("sidecar started")
    embedded = listening["upstream"].removeprefix("embedded server at ")
    assert exchange(embedded, b"SHUTDOWN NOSAVE\r\n") == b""
    assert running.process.wait(WAIT) == 1


@pytest.mark.parametrize(
    ("extra", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_gets_a_banner(extra: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "run", *ANY], stderr=theirs, env=environment(**extra)
    )
    os.close(theirs)
    shown = ""
    try:
        while "stop      Ctrl-C" not in shown:
            shown += os.read(ours, 4096).decode()
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(WAIT)
        os.close(ours)
    assert status == 0
    assert "redis-sidecar is ready: point your application at  redis://127.0.0.1:" in shown
    assert "http://127.0.0.1:" in shown
    assert ("\x1b[" in shown) is coloured
