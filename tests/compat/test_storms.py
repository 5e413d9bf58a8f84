"""Many connect at once: logins take turns, links stay few, and the server is never full of ours."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.certificates import Certificates, make_certificates
from tests.harness.process import free_port
from tests.harness.server_stats import clients
from tests.harness.servers import WORKERS, Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

MAX_CLIENTS = 1000
FEW = 200
DEADLINE = 60.0


@pytest.fixture
def small_server() -> Iterator[Server]:
    """Takes as many clients as a small plan of a cloud does, and wants a login."""
    with valkey({"maxclients": MAX_CLIENTS, "requirepass": "secret"}) as server:
        yield server


def _operator(server: Server, stack: ExitStack) -> Wire:
    wire = stack.enter_context(Wire(server.port, deadline=DEADLINE))
    assert wire.cmd("AUTH", "secret") == b"+OK\r\n"
    return wire


def test_thousands_log_in_at_once(small_server: Server) -> None:
    """As one user: all of them are in, and the server sees few connections, then and later."""
    crowd = 4000
    url = f"redis://127.0.0.1:{small_server.port}"
    with Sidecar(url, settings={"upstream.start": "wait"}) as sidecar, ExitStack() as stack:
        operator = _operator(small_server, stack)
        wires = [stack.enter_context(Wire(sidecar.port, deadline=DEADLINE)) for _ in range(crowd)]
        for wire in wires:
            wire.send(pack("AUTH", "secret") + pack("PING"))
        most = 0
        for number, wire in enumerate(wires):
            assert wire.read_replies(2) == [b"+OK\r\n", b"+PONG\r\n"]
            if number % 100 == 0:
                most = max(most, len(clients(operator)))
        assert most < FEW
        assert len(clients(operator)) < FEW


@pytest.mark.parametrize("cache", ["off", "hot"])
@pytest.mark.parametrize(
    "stay", [pytest.param(True, id="stay", marks=pytest.mark.slow), pytest.param(False, id="leave")]
)
def test_more_users_than_the_server_takes_connections(
    small_server: Server, stay: bool, cache: str
) -> None:
    """Each needs a link as itself. Whoever asks for nothing at the moment has none, and gets one
    again; a direct client would be refused by then."""
    users = 1100
    url = f"redis://:secret@127.0.0.1:{small_server.port}"
    with Sidecar(url, settings={"cache.mode": cache}) as sidecar, ExitStack() as stack:
        operator = _operator(small_server, stack)
        for number in range(users):
            operator.send_command("ACL", "SETUSER", f"u{number}", "on", ">pw", "~*", "+@all")
        assert operator.read_replies(users) == [b"+OK\r\n"] * users
        wires = []
        for number in range(users):
            wire = Wire(sidecar.port, deadline=DEADLINE)
            wire.send(pack("AUTH", f"u{number}", "pw") + pack("ACL", "WHOAMI"))
            name = f"u{number}".encode()
            assert wire.read_replies(2) == [b"+OK\r\n", b"$%d\r\n%s\r\n" % (len(name), name)]
            if stay:
                wires.append(stack.enter_context(wire))
            else:
                wire.close()
        for number, wire in enumerate(wires):
            assert wire.cmd("SET", f"k{number}", "v") == b"+OK\r\n"
        assert len(clients(operator)) <= MAX_CLIENTS


def test_links_are_bounded(small_server: Server) -> None:
    """`upstream.max_links`: logins and databases take what others leave idle; a client that can
    have none is told why after `upstream.wait`, and the others are served."""
    settings: dict[str, str | int | float] = {
        "upstream.max_links": 12,
        "upstream.wait": 0.5,
        "cache.mode": "off",
    }
    url = f"redis://:secret@127.0.0.1:{small_server.port}"
    with Sidecar(url, settings=settings) as sidecar, ExitStack() as stack:
        operator = _operator(small_server, stack)
        for db in range(16):
            wire = stack.enter_context(Wire(sidecar.port, deadline=DEADLINE))
            wire.send(pack("AUTH", "secret") + pack("SELECT", str(db)) + pack("PING"))
            assert wire.read_replies(3) == [b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n"]
            assert len(clients(operator)) <= 13
        blocked = [stack.enter_context(Wire(sidecar.port, deadline=DEADLINE)) for _ in range(20)]
        for wire in blocked:
            wire.send_command("BLPOP", "q", "2")
        said = [wire.read_reply() for wire in blocked]
        refused = [reply for reply in said if reply != b"*-1\r\n"]
        error = b"-UNAVAILABLE too many upstream links (upstream.max_links); "
        assert 0 < len(refused) < 20
        assert all(reply.startswith(error) for reply in refused)
        # While replies are due, one more connection asks whether the server answers at all.
        assert len(clients(operator)) <= 13 + WORKERS
        with Wire(sidecar.port) as client:
            assert client.cmd("PING") == b"+PONG\r\n"


class Neighbour:
    """A client that does nothing but PING, one after the other, in a thread."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self._over = threading.Event()
        self._wire = Wire(port, deadline=DEADLINE)
        self._thread = threading.Thread(target=self._ping)
        self._thread.start()

    def _ping(self) -> None:
        with self._wire as wire:
            while not self._over.is_set():
                assert wire.cmd("PING") == b"+PONG\r\n"
                self.answered += 1

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join()


def _first_words(certificates: Certificates) -> bytes:
    """What a TLS client sends first. It costs the server a signature, and the client nothing when
    it is sent again and again."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    layer = certificates.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        layer.do_handshake()
    return outgoing.read()


@pytest.mark.one_worker("the handshakes of several workers take all cores")
def test_a_neighbour_of_many_tls_handshakes(plain_server: Server, tmp_path: Path) -> None:
    """A thousand begin at once: they are calculated beside the loop, which serves the others.

    While the loop calculated them itself, a neighbour got 10 answers meanwhile; now thousands.
    """
    certificates, port = make_certificates(tmp_path), free_port()
    settings: dict[str, str | int | float] = {
        "listen.tls.cert_file": str(certificates.server.cert),
        "listen.tls.key_file": str(certificates.server.key),
    }
    words = _first_words(certificates)
    also = [f"rediss://127.0.0.1:{port}"]
    with (
        Sidecar(plain_server.url, settings=settings, also=also) as sidecar,
        ExitStack() as stack,
    ):
        neighbour = Neighbour(sidecar.port)
        stack.callback(neighbour.stop)
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
            for _ in range(1000)
        ]
        before = neighbour.answered
        for sock in crowd:
            sock.sendall(words)
        for sock in crowd:
            assert sock.recv(1) == b"\x16"  # a handshake record, not an alert
        assert neighbour.answered - before > 200
