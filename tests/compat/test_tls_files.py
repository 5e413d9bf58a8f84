"""Certificate files that change under a running sidecar: taken over without a signal, without an
error, without the end of a connection."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.admin import api, metric
from tests.harness.certificates import Authority, Pem
from tests.harness.failover import news
from tests.harness.faults import TlsTerminator
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.tls_clients import HAVE_OPENSSL, s_client
from tests.harness.wire import Wire

CERT, KEY = "tls.crt", "tls.key"


class Mounted:
    """A folder of certificates as the kubelet mounts a Secret: `tls.crt` leads over a symbolic link
    `..data` to the folder of one version, and `..data` is replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._versions = 0

    def put(self, pem: Pem) -> None:
        """Mount this version."""
        self._versions += 1
        version = self.folder / f"..version_{self._versions}"
        version.mkdir()
        for name, path in ((CERT, pem.cert), (KEY, pem.key)):
            (version / name).touch(mode=0o600)
            (version / name).write_bytes(path.read_bytes())
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.folder / "..data")

    @property
    def settings(self) -> dict[str, str]:
        """The names of its files, without a section."""
        return {"cert_file": str(self.folder / CERT), "key_file": str(self.folder / KEY)}


def section(name: str, settings: dict[str, str]) -> dict[str, str]:
    return {f"{name}.{key}": value for key, value in settings.items()}


def shown(pem: Pem) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.cert.read_text())


def reloaded(sidecar: Sidecar, times: int) -> None:
    wait_until(
        lambda: len(news(sidecar, "certificates reloaded")) == times, "certificates reloaded", 10
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mounted_secret(plain_server: Server, tmp_path: Path, workers: int) -> None:
    """Both sides at once; connections that are there go on."""
    authority, mount = Authority(tmp_path, "ca"), Mounted(tmp_path / "mount")
    first, second = authority.issue("first"), authority.issue("second")
    mount.put(first)
    context = authority.client_context()
    settings = {**section("listen.tls", mount.settings), "workers": workers}
    with (
        Sidecar(plain_server.url, settings=settings, tls=context) as sidecar,
        Wire(sidecar.port, tls=context) as before,
    ):
        assert before.certificate == shown(first)
        mount.put(second)
        reloaded(sidecar, 1)
        with Wire(sidecar.port, tls=context) as after:
            assert after.certificate == shown(second)
            assert after.cmd("PING") == before.cmd("PING") == b"+PONG\r\n"
        changed = news(sidecar, "certificate files changed")[0]["files"]
        assert changed == [mount.settings["cert_file"], mount.settings["key_file"]]
        assert not news(sidecar, "certificate reload failed")


def test_files_that_are_written_one_after_the_other(plain_server: Server, tmp_path: Path) -> None:
    """A certificate without its key is not taken over; with its key it is."""
    authority = Authority(tmp_path, "ca")
    first, second = authority.issue("first"), authority.issue("second")
    live = Pem(tmp_path / CERT, tmp_path / KEY)
    live.cert.write_bytes(first.cert.read_bytes())
    live.key.write_bytes(first.key.read_bytes())
    context = authority.client_context()
    settings = {"listen.tls.cert_file": str(live.cert), "listen.tls.key_file": str(live.key)}
    with Sidecar(plain_server.url, settings=settings, tls=context) as sidecar:
        live.cert.write_bytes(second.cert.read_bytes())
        wait_until(lambda: news(sidecar, "certificate reload failed"), "it does not fit", 10)
        with Wire(sidecar.port, tls=context) as wire:
            assert wire.certificate == shown(first)
        live.key.write_bytes(second.key.read_bytes())
        reloaded(sidecar, 1)
        with Wire(sidecar.port, tls=context) as wire:
            assert wire.certificate == shown(second)


def test_the_upstream_gets_a_new_ca(plain_server: Server, tmp_path: Path) -> None:
    """The server gets a certificate of another CA, which is trusted beside the old one before: new
    links accept it, and the link that is there goes on."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    ca = tmp_path / "trusted.crt"
    ca.write_bytes(old.cert_file.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mine = old.issue("first")
    context.load_cert_chain(mine.cert, mine.key)
    settings = {"upstream.tls.ca_file": str(ca)}
    with (
        TlsTerminator(plain_server.port, context) as terminator,
        Sidecar(terminator.url, settings=settings) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        ca.write_bytes(old.cert_file.read_bytes() + new.cert_file.read_bytes())
        reloaded(sidecar, 1)
        renewed = new.issue("second")
        context.load_cert_chain(renewed.cert, renewed.key)
        assert wire.cmd("GET", "k") == b"$1\r\nv\r\n"
        # A link of its own, made now.
        assert wire.cmd("BLPOP", "none", "0.01").startswith(b"*-1")
        assert not news(sidecar, "TLS handshake failed")


def test_watching_can_be_turned_off(plain_server: Server, tmp_path: Path) -> None:
    """Then a signal is needed. Tickets keep their keys, so that no rotation takes files over."""
    authority, mount = Authority(tmp_path, "ca"), Mounted(tmp_path / "mount")
    first, second = authority.issue("first"), authority.issue("second")
    mount.put(first)
    context = authority.client_context()
    settings = {
        **section("listen.tls", mount.settings),
        "reload.certificates": "false",
        "listen.tls.ticket_rotation": 0.1,
    }
    with Sidecar(plain_server.url, settings=settings, tls=context) as sidecar:
        mount.put(second)
        wait_until(lambda: news(sidecar, "session tickets not rotated"), "a rotation", 10)
        with Wire(sidecar.port, tls=context) as wire:
            assert wire.certificate == shown(first)
        os.kill(sidecar.pid, 1)
        reloaded(sidecar, 1)
        with Wire(sidecar.port, tls=context) as wire:
            assert wire.certificate == shown(second)
        assert not news(sidecar, "certificate files changed")


@pytest.mark.skipif(not HAVE_OPENSSL, reason="no openssl program")
@pytest.mark.one_worker("each has ticket keys of its own")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_session_tickets(plain_server: Server, tmp_path: Path, version: str) -> None:
    """A session is resumed with its ticket, until the keys of tickets are others."""
    authority = Authority(tmp_path, "ca")
    pem = authority.issue("server")
    settings = {"listen.tls.cert_file": str(pem.cert), "listen.tls.key_file": str(pem.key)}
    session = tmp_path / "session"

    def connect(sidecar: Sidecar, way: str) -> str:
        arguments = (version, f"-sess_{way}", str(session))
        return s_client(sidecar.port, *arguments, sent=b"PING\r\nQUIT\r\n")

    context = authority.client_context()
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, settings=settings, tls=context, admin=admin) as sidecar:
        assert "\nNew, " in connect(sidecar, "out")
        assert "\nReused, " in connect(sidecar, "in")
        os.kill(sidecar.pid, 1)
        reloaded(sidecar, 1)
        assert "\nNew, " in connect(sidecar, "in")


@pytest.mark.skipif(not HAVE_OPENSSL, reason="no openssl program")
@pytest.mark.one_worker("each has ticket keys of its own")
def test_the_keys_of_tickets_rotate(plain_server: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    pem = authority.issue("server")
    settings = {
        "listen.tls.cert_file": str(pem.cert),
        "listen.tls.key_file": str(pem.key),
        "listen.tls.ticket_rotation": 1.0,
    }
    session = tmp_path / "session"
    context = authority.client_context()
    with Sidecar(plain_server.url, settings=settings, tls=context) as sidecar:
        s_client(sidecar.port, "-sess_out", str(session), sent=b"PING\r\nQUIT\r\n")

        def is_new() -> bool:
            said = s_client(sidecar.port, "-sess_in", str(session), sent=b"PING\r\nQUIT\r\n")
            assert "+PONG" in said
            return "\nNew, " in said

        wait_until(is_new, "the ticket opens no session any more", 10)


def test_what_ends_soon(plain_server: Server, tmp_path: Path) -> None:
    """Health, log and metrics tell of it; a renewed file ends that."""
    authority, mount = Authority(tmp_path, "ca"), Mounted(tmp_path / "mount")
    mount.put(authority.issue("short", days=5))
    context = authority.client_context()
    admin = f"127.0.0.1:{free_port()}"
    settings = section("listen.tls", mount.settings)
    with Sidecar(plain_server.url, settings=settings, tls=context, admin=admin) as sidecar:
        reason = "the certificate of listen.tls ends in 5 days"
        assert reason in api(sidecar, "/api/health/redis")["reasons"]
        line = news(sidecar, "certificate ends")[0]
        assert (line["level"], line["setting"]) == ("warning", "listen.tls.cert_file")
        assert line["reason"] == "ends in 5 days"
        label = '{certificate="listen"}'
        begins = metric(sidecar, f"sidecar_tls_certificate_start_timestamp_seconds{label}")
        ends = metric(sidecar, f"sidecar_tls_certificate_expiry_timestamp_seconds{label}")
        assert ends - begins == pytest.approx(35 * 86400, abs=2)
        mount.put(authority.issue("long", days=60))
        reloaded(sidecar, 1)
        assert reason not in api(sidecar, "/api/health/redis")["reasons"]
        mount.put(authority.issue("over", days=-1))
        reloaded(sidecar, 2)
        wait_until(_errors(sidecar), "it has ended", 10)


def _errors(sidecar: Sidecar) -> Callable[[], bool]:
    return lambda: any(line["level"] == "error" for line in news(sidecar, "certificate ends"))
