"""Development certificates: usable for real handshakes, private, never overwritten."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from sidecar.cli import dev_certs as devcerts


def handshake(certs: Path, server_name: str, *, mutual: bool = False) -> str:
    """Shake hands over a socket pair; return the common name the server saw of the client."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.crt")
    server.load_cert_chain(certs / "server.crt", certs / "server.key")
    client = ssl.create_default_context(cafile=certs / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    if mutual:
        server.verify_mode = ssl.CERT_REQUIRED
        client.load_cert_chain(certs / "client.crt", certs / "client.key")
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    def serve() -> None:
        with theirs, server.wrap_socket(theirs, server_side=True) as wrapped:
            certificate = wrapped.getpeercert() or {}
            subject = dict(part[0] for part in certificate.get("subject", ()))  # type: ignore[misc]
            seen.append(str(subject.get("commonName", "")))
            wrapped.send(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=server_name) as wrapped:
            wrapped.recv(1)
    finally:
        ours.close()
        thread.join()
    return seen[0]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "redis.internal", "10.1.2.3"])
def test_the_server_is_known_by_all_its_names(tmp_path: Path, name: str) -> None:
    devcerts.create(tmp_path, ["redis.internal", "10.1.2.3"])
    assert handshake(tmp_path, name) == ""


def test_mutual_tls(tmp_path: Path) -> None:
    devcerts.create(tmp_path / "made")
    assert "client" in handshake(tmp_path / "made", "localhost", mutual=True)


def test_files_and_modes(tmp_path: Path) -> None:
    paths = devcerts.create(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(devcerts.FILES)
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o600 if path.suffix == ".key" else 0o644)


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "client.key").write_text("mine")
    with pytest.raises(FileExistsError, match=r"client\.key exists; --force"):
        devcerts.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["client.key"]
    devcerts.create(tmp_path, force=True)
    assert (tmp_path / "client.key").read_text() != "mine"
    assert (tmp_path / "client.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("host", ["", "a b", "https://x", "x:1", "bücher.example"])
def test_names_no_certificate_can_hold(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match=r"host name|xn--"):
        devcerts.create(tmp_path, [host])
    assert not list(tmp_path.iterdir())
