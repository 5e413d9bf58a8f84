"""The plane when something fails: one connection ends, and the others do not notice.

What fails is the loop that is to watch a socket (without a poller of its own the plane asks the
loop for that), or the handler that is told.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from sidecar.core.cache.near_cache import NearCache
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.tracked_link import TrackedLink
from sidecar.proxy.io.upstream import Upstream
from tests.native.shell import request, table

LARGE = 4 << 20
HELLO = b"%0\r\n"


class Loop:
    """Watches nothing by itself. `fails`: what raises an error, once, by (function, descriptor)."""

    def __init__(self) -> None:
        self.fails: set[tuple[str, int]] = set()
        self.failed = 0
        self.soon: list[Callable[[], None]] = []

    def _do(self, name: str, fd: int) -> None:
        if (name, fd) in self.fails:
            self.fails.remove((name, fd))
            self.failed += 1
            raise OSError(28, "cannot watch a socket")

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        self._do("add_reader", fd)

    def remove_reader(self, fd: int) -> None:
        self._do("remove_reader", fd)

    def add_writer(self, fd: int, call: Callable[[], None]) -> None:
        self._do("add_writer", fd)

    def remove_writer(self, fd: int) -> None:
        self._do("remove_writer", fd)

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def run(self) -> None:
        """What is due."""
        while self.soon:
            self.soon.pop(0)()


class Handler:
    """Notes what it is told. `raises`: the calls that raise an error, each time."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.errors: list[Exception] = []
        self.raises: set[str] = set()

    def _note(self, name: str) -> None:
        self.told.append(name)
        if name in self.raises:
            raise ValueError(name)

    def stalled(self, client: Client, stall: int) -> None:
        self._note("stalled")

    def client_closed(self, client: Client) -> None:
        self._note("client_closed")

    def upstream_lost(self, up: Upstream, reason: str) -> None:
        self._note("upstream_lost")

    def released(self, client: Client, up: Upstream) -> None:
        self._note("released")

    def was_reset(self, client: Client) -> None:
        self._note("was_reset")

    def may_hold(self, client: Client) -> bool:
        return True

    def end_when_quiet(self, client: Client) -> None:
        self._note("end_when_quiet")

    def failed(self, error: Exception) -> None:
        self.errors.append(error)
        self._note("failed")

    def audited(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        self._note("audited")


class World:
    """A plane with two clients, each with a shared link of its own, and a tracked link."""

    def __init__(self) -> None:
        self.loop, self.handler = Loop(), Handler()
        self.plane = Plane(
            self.loop,  # type: ignore[arg-type]
            table(),
            request_buffer=2 * LARGE,
            link_pause=4 * LARGE,
            output_pause=4 * LARGE,
            client_share=4 * LARGE,
            own_poller=False,
        )
        self.plane.use_handler(self.handler)
        self.cache = NearCache(
            1,
            mode="rules",
            budget=64 << 20,
            value_max=1 << 20,
            staleness=60,
            ttl_max=60,
            ttl_missing=60,
        )
        self.cache.rule(b"")
        self.plane.use_cache(self.cache)
        self.sockets: list[socket.socket] = []
        self.lost: list[str] = []
        self.space = self.cache.open_space()
        self.links = [Upstream(self.plane, None, True) for _ in range(2)]
        self.servers = [self.attach(link) for link in self.links]
        self.clients, self.apps = [], []
        for number, link in enumerate(self.links):
            near, far = self.pair()
            client = Client(self.plane, near, None, number, None, None)
            client.start()
            client.use_shared(link)
            self.clients.append(client)
            self.apps.append(far)
        near, self.tracked_server = self.pair()
        self.tracked_fd = near.fileno()
        self.tracked = TrackedLink(
            self.plane, self.space, near, None, None, lambda link, reason: self.lost.append(reason)
        )
        for client in self.clients:
            client.use_space(self.space, 2)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a connection."""
        near, far = socket.socketpair()
        for one in (near, far):
            one.setblocking(False)
        self.sockets += [near, far]
        return near, far

    def attach(self, link: Upstream) -> socket.socket:
        """A link gets a connection: its other end."""
        near, far = self.pair()
        link.attach(near, None, HELLO, 1)
        return far

    def say(self, number: int, *words: bytes) -> None:
        """A client sends a request, which is read; nothing is flushed as yet."""
        data = memoryview(request(*words))
        while data:
            sent = self.apps[number].send(data)
            data = data[sent:]
            self.clients[number].on_readable()

    def answer(self, number: int, reply: bytes) -> bytes:
        """The server answers on a link: what its client gets."""
        self.servers[number].send(reply)
        self.links[number].on_readable()
        return self.apps[number].recv(1 << 16)

    def close(self) -> None:
        """End it."""
        for client in self.clients:
            client.close()
        self.tracked.end()
        for link in self.links:
            link.close()
        self.plane.close()
        for one in self.sockets:
            one.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.handler.raises.clear()
    made.close()


def received(sock: socket.socket) -> bytes:
    """What has come."""
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


def fill_tracked(world: World) -> None:
    """Client 0 asks for a value whose key alone is more than the tracked link's socket takes."""
    world.say(0, b"GET", b"k" * LARGE)


@pytest.mark.parametrize("raises", ["", "failed"], ids=["plain", "the handler fails as well"])
def test_a_tracked_link_that_cannot_be_watched_ends_alone(world: World, raises: str) -> None:
    """Its space is out of use; the links that are to be flushed in the same turn are flushed."""
    world.handler.raises = {raises}
    world.loop.fails.add(("add_writer", world.tracked_fd))
    fill_tracked(world)
    world.say(1, b"SET", b"j", b"v")
    world.loop.run()
    assert world.loop.failed == 1
    assert [type(error) for error in world.handler.errors] == [OSError]
    assert world.lost == ["an internal error"]
    assert world.tracked.closed
    assert received(world.servers[1]) == request(b"SET", b"j", b"v")
    assert world.answer(1, b"+OK\r\n") == b"+OK\r\n"
    # The read that waited for the value goes to the server.
    world.loop.run()
    assert received(world.servers[0]).startswith(b"*2\r\n$3\r\nGET\r\n")


def test_a_tracked_link_whose_handler_fails_ends_all_the_same(world: World) -> None:
    def lost(link: TrackedLink, reason: str) -> None:
        raise ValueError("lost")

    world.tracked.end()
    near, far = world.pair()
    tracked = TrackedLink(world.plane, world.space, near, None, None, lost)
    far.close()
    tracked.on_readable()
    assert tracked.closed
    assert [repr(error) for error in world.handler.errors] == ["ValueError('lost')"]
    world.say(1, b"GET", b"j")
    world.loop.run()
    assert received(world.servers[1]) == request(b"GET", b"j")


def test_a_tracked_link_that_cannot_begin_leaves_nothing(world: World) -> None:
    """Reads do not wait for a link that will never answer."""
    world.tracked.end()
    near, _ = world.pair()
    world.loop.fails.add(("add_reader", near.fileno()))
    with pytest.raises(OSError, match="watch"):
        TrackedLink(world.plane, world.space, near, None, None, lambda link, reason: None)
    assert world.plane.tracked == []
    world.say(1, b"GET", b"j")
    world.loop.run()
    assert received(world.servers[1]) == request(b"GET", b"j")


@pytest.mark.parametrize("raises", ["", "failed", "upstream_lost"])
def test_a_shared_link_that_cannot_be_watched_ends_alone(world: World, raises: str) -> None:
    world.handler.raises = {raises}
    world.clients[0].use_space(0, 2)
    fd = world.sockets[0].fileno()
    world.loop.fails.add(("add_writer", fd))
    world.say(0, b"SET", b"k", b"v" * LARGE)
    world.say(1, b"SET", b"j", b"v")
    world.loop.run()
    assert world.loop.failed == 1
    assert not world.links[0].up
    assert "upstream_lost" in world.handler.told
    assert received(world.servers[1]) == request(b"SET", b"j", b"v")
    assert world.answer(1, b"+OK\r\n") == b"+OK\r\n"
    assert world.apps[0].recv(100).startswith(b"-UNCERTAIN")


@pytest.mark.parametrize("raises", ["", "failed", "client_closed"])
def test_a_client_that_cannot_be_watched_ends_alone(world: World, raises: str) -> None:
    """Its reply is more than its socket takes; another's comes in the same turn."""
    world.handler.raises = {raises}
    world.clients[0].use_space(0, 2)
    world.loop.fails.add(("add_writer", world.sockets[4].fileno()))
    world.say(0, b"ECHO", b"x")
    world.say(1, b"ECHO", b"y")
    world.loop.run()
    reply = memoryview(b"$%d\r\n" % LARGE + b"x" * LARGE + b"\r\n")
    while reply and not world.clients[0].closed:
        reply = reply[world.servers[0].send(reply) :]
        world.links[0].on_readable()
    assert world.clients[0].closed
    assert "client_closed" in world.handler.told
    assert world.links[0].up
    assert world.answer(1, b"$1\r\ny\r\n") == b"$1\r\ny\r\n"


@pytest.mark.parametrize("function", ["remove_reader", "remove_writer"])
def test_a_link_that_cannot_be_forgotten_is_closed_all_the_same(
    world: World, function: str
) -> None:
    world.loop.fails.add((function, world.tracked_fd))
    if function == "remove_writer":
        fill_tracked(world)
        world.loop.run()
    world.tracked.lose("over")
    assert world.loop.failed == 1
    assert world.lost == ["over"]
    assert world.sockets[-2].fileno() == -1


def test_what_is_audited_does_not_end_a_link(world: World) -> None:
    """The audit stream fails: the command is answered, and so is the next."""
    world.plane.use_audit(True)
    world.handler.raises = {"audited"}
    world.say(1, b"CONFIG", b"SET", b"maxmemory", b"0")
    world.say(1, b"FLUSHALL")
    world.loop.run()
    assert world.handler.told.count("audited") == 2
    assert world.answer(1, b"+OK\r\n+OK\r\n") == b"+OK\r\n+OK\r\n"
    assert world.links[1].up
    assert not world.clients[1].closed
