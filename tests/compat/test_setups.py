"""Other ways to set the sidecar up: unix sockets, a connection per client, several listeners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.farm import Farm
from tests.harness.pair import Pair, Session, pipeline
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import DeadlineError, Wire, pack

from .commands import GROUPS, lines
from .test_commands import mask_for
from .test_pipelines import INLINE, SHORT
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

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.send(pipeline(lines(group)))
        for line in lines(group):
            client.read(mask=mask_for(line))
        client.drain()

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
