"""Redis 6.2 and Valkey 9.0: what docs/servers.md says of them, with their own programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.harness.errors import Unavailable
from tests.harness.older import WHEELS, starter
from tests.harness.pair import Pair, Session, words
from tests.harness.process import wait_until
from tests.harness.server_stats import calls
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire, call

from .commands import GROUPS, lines
from .test_commands import mask_for

RULES = {"cache.mode": "rules", "cache.rules": "*"}


@pytest.fixture(params=WHEELS, scope="module")
def older(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair of servers of an older kind, with the near cache on for every key."""
    try:
        start = starter(request.param)
    except Unavailable as error:
        pytest.skip(f"NOT tested: {error}")
    with ExitStack() as stack:
        direct, behind = stack.enter_context(start()), stack.enter_context(start())
        sidecar = stack.enter_context(Sidecar(behind.url, settings=RULES))
        yield Pair(request.param, direct, behind, sidecar)


def empty(pair: Pair) -> None:
    """Both servers, that of the sidecar through the sidecar."""
    for port in (pair.direct.port, pair.sidecar.port):
        assert call(port, "FLUSHALL") == "OK"


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("group", GROUPS)
def test_commands(older: Pair, group: str, protocol: int) -> None:
    """The same bytes as from the server; commands that it does not know included."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        for line in lines(group):
            client.cmd(*words(line), mask=mask_for(line))

    empty(older)
    record = older.same(script)
    assert sum(what == "got" for _, what, _ in record) == len(lines(group))


def test_clients_with_state(older: Pair) -> None:
    """A transaction with WATCH, a blocking pop, publish and subscribe."""

    def script(session: Session) -> None:
        one, two = session.open(), session.open()
        one.run("WATCH k", "MULTI", "SET k 1", "GET k")
        two.run("SET k 2")
        one.run("EXEC", "GET k")
        one.send_command("BLPOP", "list", 5)
        session.wait_blocked(1)
        two.run("RPUSH list x")
        one.read()
        one.run("SUBSCRIBE news")
        two.run("PUBLISH news hello")
        one.read()

    empty(older)
    older.same(script)


def test_near_cache(older: Pair) -> None:
    """Redis 6 puts invalidations where they cannot be told from replies: it has no near cache."""
    empty(older)
    with Wire(older.sidecar.port) as wire:
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        before = calls(older.behind.port, "get")

        def served() -> bool:
            asked = calls(older.behind.port, "get")
            assert wire.cmd("GET", "k") == b"$1\r\nv\r\n"
            return calls(older.behind.port, "get") == asked

        if older.kind == "redis62":
            assert [served() for _ in range(20)] == [False] * 20
            assert calls(older.behind.port, "get") == before + 20
            assert "near cache disabled" in older.sidecar.log()
        else:
            wait_until(served, "an answer from the near cache")
            assert call(older.behind.port, "SET", "k", "new") == "OK"
            wait_until(lambda: wire.cmd("GET", "k") == b"$3\r\nnew\r\n", "the invalidation")
