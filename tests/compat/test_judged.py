"""What the sidecar answers by itself, the server judges: users, commands and situations in a table.

Each cell is compared with a direct server: what a user may not do is refused, with the server's own
words, whether the right was missing at login or was taken away later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import KINDS
from tests.harness.farm import BINARIES
from tests.harness.pair import Client, Pair, Session
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire, pack

MODES = [("shared", "off"), ("shared", "hot"), ("session", "off")]

RULES = (
    "+@all", "-select", "-client", "-client|id", "-client|getname", "-client|setname",
    "-client|info", "-client|list", "-client|kill", "-client|no-evict", "-hello", "-auth", "-reset",
)  # fmt: skip
ALL = ("reset", "on", ">secret", "~*", "&*", "+@all")
COMMANDS = (
    "CLIENT ID", "CLIENT GETNAME", "CLIENT SETNAME x", "CLIENT GETNAME", "CLIENT SETNAME a\tb",
    "SELECT 0", "SELECT 9", "SELECT 99", "SELECT x", "GET k", "HELLO", "HELLO 2 SETNAME y",
    "CLIENT GETNAME", "CLIENT INFO", "CLIENT LIST ID 1", "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL USER nobody", "CLIENT KILL ID 99 TYPE nonsense", "CLIENT UNBLOCK 99999999",
    "CLIENT NO-EVICT OFF", "CLIENT TRACKINGINFO", "CLIENT NOSUCH", "CLIENT", "SELECT",
    "HELLO 3 SETNAME z", "CLIENT GETNAME", "CLIENT SETNAME", "AUTH wrong", "AUTH root secret",
    "CLIENT ID", "RESET", "GET k",
)  # fmt: skip
SITUATIONS = {
    "plain": (),
    "in db 9": ("SELECT 9",),
    "watching": ("WATCH w",),
    "kept": ("CLIENT NO-EVICT ON",),
    "kept by a transaction": ("MULTI", "SELECT 9", "EXEC"),
    "subscribed": ("HELLO 3", "SUBSCRIBE c"),
}


class Judged(Pair):
    """A pair that knows its mode."""

    def __init__(self, kind: str, *parts: Any, pooling: str) -> None:
        super().__init__(kind, *parts)
        self.pooling = pooling


@pytest.fixture(scope="module", params=KINDS)
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """Two servers with the same users."""
    with BINARIES[request.param]() as direct, BINARIES[request.param]() as behind:
        yield direct, behind


@pytest.fixture(scope="module", params=MODES, ids="-".join)
def judged(request: pytest.FixtureRequest, servers: tuple[Server, Server]) -> Iterator[Judged]:
    """A sidecar in each mode."""
    pooling, cache = request.param
    settings = {"upstream.pooling": pooling, "cache.mode": cache}
    direct, behind = servers
    with Sidecar(behind.url, settings=settings) as sidecar:
        yield Judged("judged", direct, behind, sidecar, pooling=pooling)


def _mask(reply: bytes) -> bytes:
    """Ids, and what CLIENT LIST and INFO say beyond that they answer."""
    if b" addr=" in reply:
        return b"<lines>"
    return re.sub(rb":(?:[2-9]|\d\d+)\r\n", b":<id>\r\n", reply)


def _run(client: Client, *lines: str) -> None:
    for line in lines:
        client.cmd(*line.split(" "), mask=_mask)


def _users(session: Session, *rules: str) -> None:
    """root, who may do everything, and bob; set at the server itself."""
    for words in (("root", "on", ">secret", "~*", "&*", "+@all"), ("bob", *rules)):
        assert session.observe("ACL", "SETUSER", *words) == b"+OK\r\n"


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("late", [False, True], ids=["before login", "revoked later"])
def test_what_a_user_may_not_do(judged: Judged, situation: str, late: bool) -> None:
    """Every rule, every command."""

    def script(session: Session) -> None:
        for rule in RULES:
            _users(session, *ALL, *(() if late else (rule,)))
            client = session.open()
            _run(client, "AUTH bob secret", *SITUATIONS[situation])
            if late:
                _users(session, rule)
            if situation == "subscribed":
                # The reply to a refused command and messages come in one stream.
                _run(client, "CLIENT GETNAME", "CLIENT SETNAME x", "CLIENT GETNAME", "SELECT 0")
                continue
            _run(client, *COMMANDS)

    judged.same(script)


@pytest.mark.parametrize("rule", RULES)
def test_in_a_transaction(judged: Judged, rule: str) -> None:
    """What is refused when it is queued aborts the transaction."""

    def script(session: Session) -> None:
        _users(session, *ALL, rule)
        client = session.open()
        _run(client, "AUTH bob secret", "CLIENT SETNAME x")
        for line in ("SELECT 9", "CLIENT SETNAME y", "CLIENT NO-EVICT ON", "HELLO 2", "AUTH x y"):
            _run(client, "MULTI", line, "SET k v", "EXEC", "DISCARD", "GET k")

    judged.same(script)


def test_pipelines(judged: Judged) -> None:
    """One write with all of it: in order, and each judged."""

    def script(session: Session) -> None:
        for rule in RULES:
            _users(session, *ALL, rule)
            client = session.open()
            lines = ["AUTH bob secret", "SET k v", *COMMANDS]
            client.send(b"".join(pack(*line.split(" ")) for line in lines))
            for _ in lines:
                client.read(mask=_mask)

    judged.same(script)


PATHS = [
    ("SELECT 9", "AUTH bob secret"),
    ("SELECT 9", "HELLO 3 AUTH bob secret"),
    ("AUTH root secret", "SELECT 9", "AUTH bob secret"),
    ("SELECT 9", "AUTH bob secret", "AUTH carol secret"),
    ("SELECT 9", "AUTH bob secret", "HELLO 3", "AUTH carol secret", "HELLO 2"),
]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_a_user_who_may_not_select(judged: Judged, path: tuple[str, ...]) -> None:
    """It stays in the database that was selected before the login, whatever link it needs there."""

    def script(session: Session) -> None:
        _users(session, *ALL, "-select")
        assert session.observe("ACL", "SETUSER", "carol", *ALL, "-select") == b"+OK\r\n"
        session.observe("FLUSHALL")
        client = session.open()
        _run(client, *path, "SET k nine", "GET k", "SELECT 9", "SELECT 0", "GET k", "ACL WHOAMI")
        _run(client, "MULTI", "GET k", "EXEC", "WATCH k", "GET k", "UNWATCH")
        _run(client, "BLPOP none 0.001", "CLIENT NO-EVICT ON", "GET k", "RESET", "GET k")

    judged.same(script)


def test_links_are_made_again_there(judged: Judged) -> None:
    """A link that is lost comes back in the same database."""
    with ExitStack() as stack:
        session = Session(judged.sidecar.port, judged.behind, 5.0, "")
        stack.callback(session.close)
        _users(session, *ALL, "-select")
        client = session.open()
        _run(client, "SELECT 9", "AUTH bob secret", "SET k nine")
        if judged.pooling == "session":
            return  # the link is the client's own: they end together
        session.observe("CLIENT", "KILL", "TYPE", "normal")
        assert client.cmd("GET", "k") == b"$4\r\nnine\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
def test_before_the_login(auth_pair: Pair, protocol: int) -> None:
    """SELECT is refused, and changes nothing."""

    def script(session: Session) -> None:
        session.password = ""
        client, other = session.open(), session.open()
        _run(client, "SELECT 1", "SELECT 0", "SELECT x", "CLIENT ID", "CLIENT SETNAME x", "HELLO 2")
        _run(client, "CLIENT GETNAME", "CLIENT LIST", "CLIENT KILL ID 1", "HELLO", "HELLO 3")
        login = "AUTH secret" if protocol == 2 else "HELLO 3 AUTH default secret"
        _run(client, login, "SET k zero", "CLIENT GETNAME")
        _run(other, "AUTH secret", "GET k", "SELECT 1", "GET k")

    auth_pair.same(script)


CHANGES = [
    (("CONFIG", "SET", "requirepass", "pw"), ("CONFIG", "SET", "requirepass", "")),
    (("ACL", "SETUSER", "default", "resetpass", ">pw"), ("ACL", "SETUSER", "default", "nopass")),
    (("ACL", "SETUSER", "default", "off", ">pw"), ("ACL", "SETUSER", "default", "on", "nopass")),
]


@pytest.mark.one_worker("the other workers learn of it from the server, a moment later")
@pytest.mark.parametrize(("lock", "unlock"), CHANGES, ids=["requirepass", "password", "off"])
@pytest.mark.parametrize("how", ["plain", "in MULTI"])
def test_a_password_on_a_live_server(
    judged: Judged, lock: tuple[str, ...], unlock: tuple[str, ...], how: str
) -> None:
    """Who comes later has to log in, from the moment that the change is answered; who was there
    before goes on. And back."""

    def change(client: Client, command: tuple[str, ...]) -> None:
        if how == "plain":
            client.cmd(*command)
        else:
            client.cmd("MULTI")
            client.cmd(*command)
            client.cmd("EXEC")

    def script(session: Session) -> None:
        assert session.observe("ACL", "SETUSER", "root", "on", ">secret", "~*", "&*", "+@all")
        assert session.observe("AUTH", "root", "secret") == b"+OK\r\n"
        before, admin = session.open(), session.open()
        _run(before, "SET k v", "GET k")
        _run(admin, "AUTH root secret")
        for _ in range(2):
            change(admin, lock)
            later = session.open()
            _run(
                later,
                "GET k",
                "SELECT 1",
                "HELLO",
                "CLIENT ID",
                "MULTI",
                "AUTH root secret",
                "GET k",
            )
            another = session.open()
            _run(another, "GET k", "PING")
            _run(before, "GET k")
            change(admin, unlock)
            last = session.open()
            _run(last, "GET k", "CLIENT GETNAME")
            _run(another, "GET k")
        change(admin, lock)
        _run(last, "RESET", "GET k")
        change(admin, unlock)
        _run(last, "GET k", "RESET", "GET k")

    judged.same(script)


def test_a_password_set_at_the_server_itself(judged: Judged) -> None:
    """That is seen when clients come, within a second or so."""
    with Wire(judged.behind.port) as admin, Wire(judged.sidecar.port) as before:
        assert before.cmd("GET", "k")[:1] == b"$"
        for command, expected in zip(CHANGES[0], (b"-NOAUTH", b"$"), strict=True):
            assert admin.cmd(*command) == b"+OK\r\n"

            def seen(expected: bytes = expected) -> bool:
                with Wire(judged.sidecar.port) as later:
                    return later.cmd("GET", "k").startswith(expected)

            wait_until(seen, "new clients are judged as the server does now")
        assert before.cmd("GET", "k")[:1] == b"$"
