"""The data plane where there is no poller of its own: the event loop watches each socket.

The proxy runs inside the test's process, on a uvloop in a thread, since the program takes the
poller wherever the system has one. It is made to do without by handing `own_poller=False` to its
plane, together with a loop that writes down what it is asked to watch: so each test can tell that
it has tested what it is about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from sidecar.proxy import server as proxy_server
from sidecar.proxy.io.plane import Plane
from sidecar.settings.load import load
from sidecar.settings.urls import parse_listen
from tests.harness.accepting import LoopThread
from tests.harness.certificates import Certificates, make_certificates
from tests.harness.faults import TlsTerminator
from tests.harness.pair import Pair, Session, compare, pipeline
from tests.harness.process import wait_until
from tests.harness.servers import Server
from tests.harness.wire import Wire, pack

from .test_pipelines import INLINE, MIB, SHORT


class WatchingLoop:
    """A loop as the reactor sees it, which knows what it watches for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.reading: set[int] = set()
        self.writing: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def add_reader(self, fd: int, callback: Callable[..., Any]) -> None:
        self.reading.add(fd)
        self.loop.add_reader(fd, callback)

    def remove_reader(self, fd: int) -> None:
        self.reading.remove(fd)
        self.loop.remove_reader(fd)

    def add_writer(self, fd: int, callback: Callable[..., Any]) -> None:
        self.writing.add(fd)
        self.loop.add_writer(fd, callback)

    def remove_writer(self, fd: int) -> None:
        self.writing.remove(fd)
        self.loop.remove_writer(fd)


class ProxyInside(LoopThread):
    """A proxy in this process, whose sockets the loop watches."""

    def __init__(self, upstream: str, settings: dict[str, str], tls: bool = False) -> None:
        super().__init__(uvloop.new_event_loop())
        listen = f"{'rediss' if tls else 'redis'}://127.0.0.1:0"
        loaded = load(None, {"listen.urls": listen, "upstream.url": upstream, **settings})
        self.watching = WatchingLoop(self.loop)
        self.proxy = proxy_server.Proxy(loaded, loaded.upstream_endpoint)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(proxy_server, "Plane", self._plane)
            self.call(self.proxy.start(time.monotonic() + 10))
        self.port = parse_listen(self.proxy.listening[0]).port

    def _plane(self, loop: object, *args: Any, **settings: Any) -> Plane:
        return Plane(self.watching, *args, own_poller=False, **settings)  # type: ignore[arg-type]

    def wait_writing(self) -> None:
        """Wait until some peer takes no more for now."""
        wait_until(lambda: self.watching.writing, "a socket is full")

    def close(self) -> None:
        """End the proxy and its thread."""
        self.call(self.proxy.close())
        super().close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One CA for the file."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def inside(valkey_pair: Pair) -> Iterator[ProxyInside]:
    """A proxy in front of the pair's second server. It leaves nothing watched behind."""
    with ProxyInside(valkey_pair.behind.url, {}) as inside:
        yield inside
    assert not inside.watching.reading
    assert not inside.watching.writing


def same(pair: Pair, inside: ProxyInside, script: Callable[[Session], object]) -> None:
    """`Pair.same`, with the proxy inside in the place of the sidecar."""
    left = pair.play(script, pair.direct.port, pair.direct)
    compare(left, pair.play(script, inside.port, pair.behind))


def test_each_socket_is_watched(inside: ProxyInside) -> None:
    """A reader for each client and each link; none for a poller, which would be one for all."""
    plane, watched = inside.proxy.plane, inside.watching.reading

    def all_watched(clients: int) -> bool:
        return (
            len(plane.clients) == clients
            and len(plane.upstreams) >= 1
            and len(watched) == clients + len(plane.upstreams) + len(plane.tracked)
        )

    wires = [Wire(inside.port) for _ in range(5)]
    for wire in wires:
        assert wire.cmd("PING") == b"+PONG\r\n"
    wait_until(lambda: all_watched(5), "five clients and their links are watched")
    for wire in wires:
        wire.close()
    wait_until(lambda: all_watched(0), "the clients' sockets are watched no more")


def test_pipelines(valkey_pair: Pair, inside: ProxyInside) -> None:
    """Many kinds of commands from several clients, in one write and in many."""

    def script(session: Session) -> None:
        clients = [session.open() for _ in range(4)]
        for client in clients:
            client.send(pipeline(SHORT) + INLINE)
            client.read(len(SHORT) + 3)
        for client in clients:
            client.send(pipeline([f"INCR {client.name}", f"GET {client.name}"]) * 500)
        for client in clients:
            client.read(1000)
        first, second = clients[:2]
        for byte in pipeline(SHORT):
            first.wire.send(bytes([byte]))
        first.read(len(SHORT))
        first.run("MULTI", "INCR n", "EXEC", "WATCH n", "MULTI", "INCR n", "EXEC")
        first.send_command("BLPOP", "q", 0)
        session.wait_blocked(1)
        second.run("RPUSH q x")
        first.read()

    same(valkey_pair, inside, script)


def test_more_than_the_sockets_take(valkey_pair: Pair, inside: ProxyInside) -> None:
    """Replies to who reads late, and requests to a busy server, wait for a writable socket."""
    blob = bytes(range(256)) * (MIB // 256)

    def script(session: Session) -> None:
        client = session.open()
        client.cmd("SET", "k", blob)
        client.send(pack("GET", "k") * 24 + pack("ECHO", "end"))
        if session.port == inside.port:
            inside.wait_writing()
        client.read(25)
        client.send(pack("SET", "j", blob * 4) + pack("STRLEN", "j") + pack("GET", "j"))
        client.read(3)

    same(valkey_pair, inside, script)
    assert not inside.watching.writing


@pytest.mark.parametrize("protocol", [2, 3])
def test_pubsub(valkey_pair: Pair, inside: ProxyInside, protocol: int) -> None:
    """Messages come without being asked for, before and after the subscriber's own commands."""

    def script(session: Session) -> None:
        subscriber, publisher = session.open(protocol), session.open(protocol)
        subscriber.send_command("SUBSCRIBE", "a", "b")
        subscriber.read(2)
        for number in range(100):
            publisher.cmd("PUBLISH", "ab"[number % 2], number)
        subscriber.read(100)
        subscriber.run("PING", "UNSUBSCRIBE a")
        publisher.run("PUBLISH a lost", "PUBLISH b found")
        subscriber.read()
        subscriber.run("UNSUBSCRIBE b", "GET nothing")

    same(valkey_pair, inside, script)


def test_ends(valkey_pair: Pair, inside: ProxyInside) -> None:
    """A client that shuts its sending side gets its replies; one that resets harms nobody; a link
    that the server closes is made again."""
    with Wire(inside.port) as one, Wire(inside.port) as other, Wire(inside.port) as third:
        one.send(pack("SET", "k", "v") + pack("GET", "k"))
        one.half_close()
        assert one.read_to_end() == b"+OK\r\n$1\r\nv\r\n"
        other.send(pack("GET", "k") * 1000)
        other.reset()
        assert third.cmd("GET", "k") == b"$1\r\nv\r\n"
        with Wire(valkey_pair.behind.port) as operator:
            assert operator.cmd("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")[:1] == b":"
        assert third.cmd("GET", "k") == b"$1\r\nv\r\n"


def test_tls_on_both_sides(plain_server: Server, certificates: Certificates) -> None:
    """Small and large, from a client that reads late: what is sealed and not sent waits, too."""
    settings = {
        "listen.tls.cert_file": str(certificates.server.cert),
        "listen.tls.key_file": str(certificates.server.key),
        "upstream.tls.ca_file": str(certificates.ca),
    }
    blob = bytes(range(256)) * (MIB // 256)
    with (
        TlsTerminator(plain_server.port, certificates.server_context()) as terminator,
        ProxyInside(terminator.url, settings, tls=True) as inside,
        Wire(plain_server.port) as direct,
        Wire(inside.port, tls=certificates.client_context()) as wire,
    ):
        for data, count in (
            (pipeline(SHORT) + INLINE, len(SHORT) + 3),
            (pipeline(SHORT) * 100, len(SHORT) * 100),
            (pipeline(["SUBSCRIBE a", "PING", "UNSUBSCRIBE a", "RESET"]), 4),
        ):
            said = []
            for peer in (direct, wire):
                peer.cmd("FLUSHALL")
                peer.send(data)
                said.append(peer.read_replies(count))
            assert said[0] == said[1]
        assert wire.cmd("SET", "k", blob) == b"+OK\r\n"
        wire.send(pack("GET", "k") * 24)
        inside.wait_writing()
        assert set(wire.read_replies(24)) == {direct.cmd("GET", "k")}
    assert not inside.watching.reading
    assert not inside.watching.writing
