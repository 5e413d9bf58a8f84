"""A switch of the upstream beside what else changes how commands go: tracking, a link for each
client, acknowledged writes, a server that loads its data."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness.admin import api, post
from tests.harness.counting import Counting, Reconnecting
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with valkey() as first, valkey() as second:
        yield first, second


@pytest.fixture
def two(servers: tuple[Server, Server]) -> tuple[Server, Server]:
    for server in servers:
        ask(server, "FLUSHALL")
    return servers


def ask(server: Server, *words: str | int) -> bytes:
    with Wire(server.address) as wire:
        return wire.cmd(*words)


def beside(server: Server, settings: dict[str, str | int | float] | None = None) -> Sidecar:
    return Sidecar(server.url, admin=f"127.0.0.1:{free_port()}", settings=settings)


def switch(sidecar: Sidecar, server: Server) -> Any:
    status, said = post(sidecar, "/api/upstream", {"url": server.url})
    assert status == 200, said
    assert said["switched"]
    return said


# CLIENT TRACKING: the new server knows nothing of what its clients have read on the old one


def test_who_tracks_is_told_by_the_end_of_the_connection(two: tuple[Server, Server]) -> None:
    """As a direct client whose server goes: it must not keep what it has read. With all ways of
    tracking, also if it has read nothing yet."""
    first, second = two
    with beside(first) as sidecar, ExitStack() as stack:

        def client(protocol: int) -> Wire:
            wire = stack.enter_context(Wire(sidecar.port))
            wire.cmd("HELLO", protocol)
            return wire

        pushed, broadcast, opted, idle, ordinary = (client(3) for _ in range(5))
        assert pushed.cmd("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        assert broadcast.cmd("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "k") == b"+OK\r\n"
        assert opted.cmd("CLIENT", "TRACKING", "ON", "OPTIN") == b"+OK\r\n"
        assert opted.cmd("CLIENT", "CACHING", "YES") == b"+OK\r\n"
        assert idle.cmd("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        hears, reads = client(2), client(2)
        number = str(hears.ask("CLIENT", "ID"))
        hears.cmd("SUBSCRIBE", "__redis__:invalidate")
        assert reads.cmd("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
        ordinary.cmd("GET", "k")
        for wire in (pushed, opted, reads):
            wire.cmd("GET", "k")
        switch(sidecar, second)
        for wire in (pushed, broadcast, opted, idle, hears, reads):
            wire.expect_eof()
        assert ordinary.cmd("SET", "k", "v") == b"+OK\r\n"


def test_who_comes_back_is_tracked_by_the_new_server(two: tuple[Server, Server]) -> None:
    first, second = two
    with beside(first) as sidecar:
        switch(sidecar, second)
        with Wire(sidecar.port) as wire:
            wire.cmd("HELLO", 3)
            assert wire.cmd("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
            wire.cmd("GET", "k")
            ask(first, "SET", "k", "old")
            ask(second, "SET", "k", "new")
            assert wire.read_reply() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
            assert wire.cmd("GET", "k") == b"$3\r\nnew\r\n"


# upstream.pooling = "session": every client has a link of its own, which ends with the move


@pytest.mark.parametrize("workers", [1, 2])
def test_with_a_link_for_each_client(two: tuple[Server, Server], workers: int) -> None:
    """Clients are closed between two commands and come back: no error, nothing twice, nothing
    lost."""
    settings: dict[str, str | int | float] = {"upstream.pooling": "session", "workers": workers}
    with beside(two[0], settings) as sidecar, Reconnecting(sidecar.port) as load:
        for number in range(3):
            load.more()
            switch(sidecar, two[(number + 1) % 2])
        load.more()
        load.stop()
        assert load.errors == Counter()
        for counted, acknowledged in zip(load.counted(*two), load.acknowledged, strict=True):
            assert counted == acknowledged, "a closed client had no command under way"
        # Whoever comes back while a switch is under way may reach a worker that is yet to go.
        assert max(load.unknown) <= 3 * workers, "each worker ends a connection once in a switch"


# failover.min_replicas_ack: replies wait for replicas, of the server that has the write


@pytest.fixture(scope="module")
def replicas(servers: tuple[Server, Server]) -> Iterator[list[Server]]:
    """A replica for each of the two."""
    with ExitStack() as stack:
        found = [stack.enter_context(valkey()) for _ in servers]
        for server, replica in zip(servers, found, strict=True):
            ask(replica, "REPLICAOF", "127.0.0.1", server.port)
            wait_until(lambda s=server: _has_replica(s), "online")
        yield found


def _has_replica(server: Server) -> bool:
    return b"state=online" in ask(server, "INFO", "replication")


ACKED: dict[str, str | int | float] = {"failover.min_replicas_ack": 1, "failover.ack_timeout": 20}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("replicas")
def test_with_acknowledged_writes(two: tuple[Server, Server], workers: int) -> None:
    """What waits for a replica of the old server is awaited before anything goes over."""
    with beside(two[0], ACKED | {"workers": workers}) as sidecar:
        with Counting(sidecar.port) as load:
            for number in range(3):
                load.more()
                switch(sidecar, two[(number + 1) % 2])
            load.more()
            load.stop()
        assert load.errors == Counter()
        assert load.counted(*two) == load.acknowledged


def test_a_write_whose_replica_is_late_is_awaited(
    two: tuple[Server, Server], replicas: list[Server]
) -> None:
    """The switch waits for it; the reply is the old server's."""
    first, second = two
    with beside(first, ACKED) as sidecar, Wire(sidecar.port, deadline=20) as wire:
        assert wire.cmd("INCR", "n") == b":1\r\n"
        replicas[0].pause()
        try:
            wire.send_command("INCR", "n")
            wait_until(lambda: ask(first, "GET", "n") == b"$1\r\n2\r\n", "it is executed")
            done: list[Any] = []
            thread = threading.Thread(target=lambda: done.append(switch(sidecar, second)))
            thread.start()
            wait_until(lambda: _held(sidecar) != "", "the switch waits")
            assert not done
        finally:
            replicas[0].resume()
        assert wire.read_reply() == b":2\r\n"
        thread.join()
        assert done[0]["switched"]
        assert wire.cmd("INCR", "n") == b":1\r\n", "the new server's"


def _held(sidecar: Sidecar) -> str:
    held: str = api(sidecar, "/api/stats")["held"]["reason"]
    return held


# A server that loads its data


def test_a_server_that_loads_its_data(two: tuple[Server, Server]) -> None:
    """It is refused while it loads, and nothing changes; then it is gone to."""
    with valkey() as loading, beside(two[0]) as sidecar, Counting(sidecar.port) as load:
        ask(loading, "DEBUG", "POPULATE", 2000)
        ask(loading, "SAVE")
        loading.kill()
        loading.settings |= {"key-load-delay": 500, "loading-process-events-interval-bytes": 1024}
        loading.begin()
        wait_until(lambda: _loads(loading), "it loads")
        for dry_run in (True, False):
            body = {"url": loading.url, "dry_run": dry_run}
            status, said = post(sidecar, "/api/upstream", body)
            if not _loads(loading):
                break  # a machine that is slow, or a load that was quick
            assert status == 409
            assert "LOADING" in said["error"]
        load.more()
        wait_until(lambda: not _loads(loading), "it has loaded", 20)
        switch(sidecar, loading)
        load.more()
        load.stop()
        assert load.errors == Counter()
        assert load.counted(two[0], loading) == load.acknowledged


def _loads(server: Server) -> bool:
    try:
        return ask(server, "GET", "k").startswith(b"-LOADING ")
    except OSError:
        return False  # it does not listen yet
