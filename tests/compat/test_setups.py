"""Other ways to set the sidecar up: unix sockets, a connection per client, several listeners."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.farm import Farm
from tests.harness.pair import Pair, Session, pipeline
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import DeadlineError, Wire, pack

from .commands import GROUPS
from .test_commands import compare_pipelined
from .test_pipelines import INLINE, SHORT
from .test_protocol_errors import ERROR_CASES
from .test_transactions import BLOCKS


@pytest.fixture(scope="module")
def _session_pair(farm: Farm) -> Iterator[Pair]:
    """A pair whose sidecar gives every client a connection of its own."""
    with valkey() as direct, valkey() as behind:
        settings = {"upstream.pooling": "session"}
        with Sidecar(behind.url, settings=settings) as sidecar:
            yield Pair("valkey", direct, behind, sidecar)


@pytest.fixture
def session_pair(_session_pair: Pair) -> Pair:
    """The same, empty."""
    _session_pair.reset()
    return _session_pair


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("group", GROUPS)
def test_commands_on_own_connections(session_pair: Pair, group: str, protocol: int) -> None:
    """Every command group, pipelined."""
    compare_pipelined(session_pair, group, protocol)


@pytest.mark.parametrize("case", ERROR_CASES)
def test_broken_behind_what_blocks(session_pair: Pair, case: str) -> None:
    """The error comes once the client is blocked no more, as from the server."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.send(pack("BLPOP", "q", "0"))
        session.wait_blocked(1)
        client.send(ERROR_CASES[case])
        other.run("PING", "RPUSH q v")
        client.to_end()
        other.run("LLEN q")

    session_pair.same(script)


def test_broken_behind_what_blocks_and_then_gone(session_pair: Pair) -> None:
    """A client that leaves pops nothing."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.send(pack("BLPOP", "q", "0"))
        session.wait_blocked(1)
        client.send(b"*x\r\n")
        other.run("PING")
        client.wire.close()
        session.wait_blocked(0)
        other.run("RPUSH q v", "LLEN q")

    session_pair.same(script)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_on_own_connections(session_pair: Pair, block: str) -> None:
    """Every transaction form."""

    def script(session: Session) -> None:
        client = session.open()
        client.run(*BLOCKS[block])
        client.send(pipeline(BLOCKS[block]))
        client.read(len(BLOCKS[block]))
        client.drain()

    session_pair.same(script)


def _transcript(where: int | str) -> list[bytes]:
    """A mixed transcript's replies."""
    with Wire(where) as wire:
        wire.send(pack("FLUSHALL") + pipeline(SHORT) + INLINE + pack("LPUSH", "q", 1))
        wire.send(pack("BLPOP", "q", 0) + pack("SET", "big", b"x" * 500_000) + pack("GET", "big"))
        return wire.read_replies(len(SHORT) + 8)


def test_unix_listener(plain_server: Server, tmp_path: Path) -> None:
    """Clients on a unix socket, and no socket file left at the end."""
    path = tmp_path / "sidecar.sock"
    expected = _transcript(plain_server.port)
    with Sidecar(plain_server.url, listen=f"unix://{path}") as sidecar:
        wait_until(path.exists, "the socket")
        wait_until(lambda: Wire.answers(str(path)), "an answer")
        assert _transcript(str(path)) == expected
        assert sidecar.stop() == 0
        assert not path.exists()


def test_a_file_that_is_no_socket(plain_server: Server, tmp_path: Path) -> None:
    """It stays, and the sidecar says so."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("of somebody else")
    for name in ("file", "folder", "link"):
        path = tmp_path / name
        with Sidecar(plain_server.url, listen=f"unix://{path}", ready=False) as sidecar:
            wait_until(lambda sidecar=sidecar: not sidecar.running, "it ends")
            assert "a file that is no socket is there" in sidecar.log()
        assert path.exists()
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() == "of somebody else"


def test_a_socket_s_file(plain_server: Server, tmp_path: Path) -> None:
    """One that a process has left is replaced. At the end nothing is removed but one's own."""
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(stale))
    with Sidecar(plain_server.url, listen=f"unix://{stale}"):
        stale.unlink()
        stale.write_text("of somebody else")
    assert stale.read_text() == "of somebody else"


@pytest.mark.parametrize("tls", [False, True])
def test_localhost_is_both(plain_server: Server, tmp_path: Path, tls: bool) -> None:
    """Whichever a client tries first."""
    authority = Authority(tmp_path, "ca")
    mine = authority.issue("mine")
    context = ssl.create_default_context(cafile=str(authority.cert_file)) if tls else None
    settings = {"listen.tls.cert_file": str(mine.cert), "listen.tls.key_file": str(mine.key)}
    port = free_port()
    scheme = "rediss" if tls else "redis"
    with Sidecar(
        plain_server.url,
        port=port,
        listen=f"{scheme}://localhost:{port}",
        settings=settings if tls else {},
        tls=context,
    ) as sidecar:
        where = f"{scheme}://localhost:{port}"
        wait_until(lambda: sidecar.log().count(where) == 1, "it says so, once")
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), 5) as plain:
                name = "localhost"
                with context.wrap_socket(plain, server_hostname=name) if context else plain as sock:
                    sock.sendall(b"PING\r\n")
                    assert sock.recv(7) == b"+PONG\r\n"


def test_unix_upstream(tmp_path: Path) -> None:
    """The server on a unix socket."""
    path = tmp_path / "valkey.sock"
    with valkey({"unixsocket": str(path)}) as server:
        expected = _transcript(server.port)
        with Sidecar(f"unix://{path}") as sidecar:
            assert _transcript(sidecar.port) == expected


def test_several_listeners(plain_server: Server, tmp_path: Path) -> None:
    """All of them serve the same."""
    path, second = tmp_path / "sidecar.sock", free_port()
    also = [f"redis://127.0.0.1:{second}", f"unix://{path}"]
    expected = _transcript(plain_server.port)
    with Sidecar(plain_server.url, also=also) as sidecar:
        for where in (sidecar.port, second, str(path)):
            assert _transcript(where) == expected


def test_stop_lets_outstanding_replies_finish(plain_server: Server) -> None:
    """SIGTERM while a client waits for its replies: they come, then the end, status 0."""
    with Sidecar(plain_server.url) as sidecar, Wire(sidecar.port) as wire:
        wire.send(pack("ECHO", "before") + pack("DEBUG", "SLEEP", "0.5") + pack("ECHO", "behind"))
        assert wire.read_reply() == b"$6\r\nbefore\r\n"
        assert sidecar.stop() == 0
        assert wire.read_replies(2) == [b"+OK\r\n", b"$6\r\nbehind\r\n"]
        wire.expect_eof()


def test_restart_on_the_same_port(plain_server: Server) -> None:
    """At once, with connections of the old one still closing."""
    with Sidecar(plain_server.url) as sidecar:
        for _ in range(3):
            with Wire(sidecar.port) as wire:
                assert wire.cmd("PING") == b"+PONG\r\n"
                sidecar.restart()
                with pytest.raises((AssertionError, OSError)) as caught:
                    wire.cmd("PING")
                assert caught.type is not DeadlineError
        assert Wire.answers(sidecar.port)
