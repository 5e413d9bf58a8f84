"""Passwords and ACL users: error texts, limits before authentication, rights kept apart."""

from __future__ import annotations

import pytest

from tests.harness.pair import Pair, Session, masked
from tests.harness.wire import Wire, pack

_ID = masked(rb"id\r\n:\d+")


def bare(session: Session) -> Session:
    """The session's clients start unauthenticated."""
    session.password = ""
    return session


@pytest.mark.parametrize("line", ["PING", "GET k", "NOSUCH x", "GET", "MULTI", "SUBSCRIBE c"])
def test_noauth(auth_pair: Pair, line: str) -> None:
    """Before AUTH nothing but AUTH, HELLO, QUIT and RESET is answered."""

    def script(session: Session) -> None:
        client = bare(session).open()
        client.run(line, "ECHO still")

    record = auth_pair.same(script)
    assert b"-NOAUTH" in record[-1][2]


def test_auth_forms(auth_pair: Pair) -> None:
    """Right and wrong passwords, both spellings, and what follows from them."""

    def script(session: Session) -> None:
        client = bare(session).open()
        client.run("AUTH", "AUTH wrong", "AUTH default wrong", "AUTH nosuch secret", "PING")
        client.run("AUTH a b c", "AUTH secret", "PING", "AUTH wrong", "PING", "ACL WHOAMI")
        client.run("AUTH default secret", "PING")
        client.run("RESET", "PING", "AUTH secret", "PING")

    auth_pair.same(script)


def test_auth_pipelined(auth_pair: Pair) -> None:
    """Commands in the same write as the AUTH are served with the rights it gives."""

    def script(session: Session) -> None:
        client = bare(session).open()
        lines = [("PING",), ("AUTH", "wrong"), ("PING",), ("AUTH", "secret"), ("SET", "k", "v")]
        lines += [("GET", "k"), ("RESET",), ("GET", "k"), ("AUTH", "secret"), ("GET", "k")]
        client.send(b"".join(pack(*line) for line in lines))
        client.read(len(lines))

    auth_pair.same(script)


def test_hello_with_auth(auth_pair: Pair) -> None:
    """HELLO with AUTH and SETNAME, its errors, and that a failed one changes nothing."""

    def script(session: Session) -> None:
        client = bare(session).open()
        client.run("HELLO", "HELLO 3", "HELLO 4", "HELLO x", "HELLO 3 AUTH default")
        client.run("HELLO 3 AUTH default wrong", "HELLO 3 AUTH nosuch secret", "PING")
        client.run("HELLO 3 SETNAME x", "HELLO 3 BOGUS")
        client.cmd("HELLO", 3, "AUTH", "default", "secret", "SETNAME", "me", mask=_ID)
        client.run("CLIENT GETNAME", "HGETALL missing", "HELLO 3 AUTH default wrong")
        client.run("PING", "HGETALL missing", "ACL WHOAMI", "HELLO 3 SETNAME a\tb")
        client.cmd("HELLO", 2, mask=_ID)
        client.run("HGETALL missing", "CLIENT GETNAME")

    auth_pair.same(script)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"*11\r\n", b"multibulk"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"bulk"),
    ],
)
def test_limits_before_authentication(auth_pair: Pair, data: bytes, what: bytes) -> None:
    """A stranger may send little; the limits end with the login."""

    def script(session: Session) -> None:
        client = bare(session).open()
        client.send(data)
        client.to_end()
        known = session.open()
        known.cmd("AUTH", "secret")
        known.cmd("MGET", *"abcdefghijklmno")
        known.cmd("SET", "k", "v" * 20000)

    record = auth_pair.same(script)
    assert record[1][2] == b"-ERR Protocol error: unauthenticated %b length\r\n" % what


def test_just_below_the_limits(auth_pair: Pair) -> None:
    """Ten arguments and 16 KiB are no protocol errors."""

    def script(session: Session) -> None:
        client = bare(session).open()
        client.cmd(*"abcdefghij")
        client.cmd("AUTH", "x" * 16384)
        client.cmd("GET", "x" * 16384)

    record = auth_pair.same(script)
    assert record[-1][2].startswith(b"-NOAUTH")


def test_quit_and_reset_without_auth(auth_pair: Pair) -> None:
    """RESET and QUIT need no rights."""

    def script(session: Session) -> None:
        client = bare(session).open()
        client.run("RESET", "PING", "QUIT")
        client.to_end()

    auth_pair.same(script)


USERS = [
    ("alice", "on", ">alicepass", "~alice:*", "&alice:*", "+@all", "-@admin"),
    (
        "bob",
        "on",
        ">bobpass",
        "~bob:*",
        "resetchannels",
        "+get",
        "+set",
        "+ping",
        "+multi",
        "+exec",
    ),
    ("off", "off", ">offpass", "~*", "+@all"),
]


@pytest.fixture
def users(auth_pair: Pair) -> Pair:
    """The pair with the users above on both servers."""
    for server in (auth_pair.direct, auth_pair.behind):
        with Wire(server.port) as wire:
            assert wire.cmd("AUTH", "secret") == b"+OK\r\n"
            for user in USERS:
                assert wire.cmd("ACL", "SETUSER", user[0], "reset", *user[1:]) == b"+OK\r\n"
            assert wire.cmd("ACL", "LOG", "RESET") == b"+OK\r\n"
    return auth_pair


def test_two_users_at_once(users: Pair) -> None:
    """Each connection has its own user's rights, interleaved, pipelined, and after a switch."""

    def script(session: Session) -> None:
        alice, bob, root = (bare(session).open() for _ in range(3))
        alice.run("AUTH alice wrong", "AUTH alice alicepass", "ACL WHOAMI")
        bob.run("AUTH bob bobpass", "ACL WHOAMI", "AUTH off offpass")
        root.run("AUTH secret", "ACL WHOAMI")
        for client in (alice, bob, root, alice, bob):
            client.run("SET alice:k 1", "SET bob:k 2", "GET alice:k", "GET bob:k", "GET other")
            client.run("MGET alice:k bob:k", "DEL bob:k", "CONFIG GET maxmemory", "NOSUCH x")
            client.run("PUBLISH alice:c m", "PUBLISH bob:c m", "EVAL return(1) 1 bob:k")
            client.run("SUBSCRIBE carol:c", "BLPOP bob:q 0", "MONITOR carol")
        bob.run("MULTI", "GET bob:k", "GET alice:k", "LPUSH bob:q x", "EXEC")
        bob.run("AUTH alice alicepass", "GET alice:k", "GET bob:k")
        alice.run("HELLO 2 AUTH bob wrong", "GET alice:k")
        root.run("GET alice:k", "GET bob:k")

    record = users.same(script)
    assert any(data.startswith(b"-NOPERM") for _, _, data in record)


def test_rights_changed_under_way(users: Pair) -> None:
    """A right taken away holds for the next command of a connected client."""

    def script(session: Session) -> None:
        root, bob = session.open(), bare(session).open()
        root.cmd("AUTH", "secret")
        bob.run("AUTH bob bobpass", "SET bob:k 1", "GET bob:k")
        root.cmd("ACL", "SETUSER", "bob", "-get")
        bob.run("GET bob:k", "SET bob:k 2")
        root.cmd("ACL", "SETUSER", "bob", "+get", "resetkeys", "~nothing")
        bob.run("GET bob:k", "GET nothing")

    users.same(script)


@pytest.mark.parametrize("how", ["DELUSER", "off"])
def test_user_removed(users: Pair, how: str) -> None:
    """Deleting a user hangs up on its connections; switching one off only stops new logins."""

    def script(session: Session) -> None:
        root, bob, alice = (bare(session).open() for _ in range(3))
        root.cmd("AUTH", "secret")
        bob.run("AUTH bob bobpass", "SET bob:k 1")
        alice.run("AUTH alice alicepass", "SET alice:k 1")
        if how == "off":
            root.cmd("ACL", "SETUSER", "bob", "off")
            bob.run("GET bob:k", "AUTH bob bobpass")
        else:
            root.cmd("ACL", "DELUSER", "bob")
            bob.to_end()
        alice.run("GET alice:k")

    users.same(script)


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("how", ["made anew", "another password"])
@pytest.mark.parametrize("then", ["SELECT 9", "HELLO 3", "SELECT 0"])
def test_password_changed(users: Pair, then: str, how: str, stays: bool) -> None:
    """Who logs in with the new password can go wherever clients with the old one have been."""

    def script(session: Session) -> None:
        root = session.open()
        root.cmd("AUTH", "secret")
        for password in ("one", "two", "three"):
            before = bare(session).open()
            if how == "made anew":
                root.cmd("ACL", "DELUSER", "carol", mask=lambda _: b"")
            root.cmd("ACL", "SETUSER", "carol", "on", "resetpass", ">" + password, "~*", "+@all")
            if how == "another password":
                root.cmd("CLIENT", "KILL", "USER", "carol", mask=lambda _: b"")
            before.run("AUTH carol " + password)
            before.cmd(*then.split(), mask=_ID)
            before.run("ACL WHOAMI", "SET k " + password, "GET k")
            if not stays:
                before.wire.close()
        root.cmd("ACL", "DELUSER", "carol")

    users.same(script)


@pytest.mark.parametrize("first", ["SELECT 9", "AUTH carol one"])
def test_a_second_login_where_the_user_may_select_no_more(users: Pair, first: str) -> None:
    """Who is in a database stays there."""

    def script(session: Session) -> None:
        root, client = session.open(), bare(session).open()
        root.run("AUTH secret", "ACL SETUSER carol reset on >one ~* +@all")
        client.run("AUTH secret" if first == "SELECT 9" else "AUTH carol one", "SELECT 9")
        client.run("AUTH carol one", "SET k 9")
        root.run("ACL SETUSER carol -select")
        client.run("AUTH carol one", "ACL WHOAMI", "GET k", "SELECT 8", "GET k")
        root.run("ACL DELUSER carol")

    users.same(script)
