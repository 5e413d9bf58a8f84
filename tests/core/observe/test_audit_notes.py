"""Notes of audited commands: the second word, wherever the request is cut."""

from __future__ import annotations

import pytest

from tests.native.loopback import Loopback
from tests.native.shell import request, table

LARGE = request(b"ACL", b"SETUSER", b"bob", b">" + b"x" * 200)


def noted(data: bytes, *, size: int = 65536) -> list[tuple[str, bytes]]:
    """What is noted of a client's first bytes; requests beyond `size` are streamed."""
    core = Loopback(table(), request_buffer=size)
    core.use_notes()
    session = core.add_session()
    core.use_dedicated(session, core.add_link(shared=False))
    core.feed(session, data)
    return [(name, second) for _, name, second in core.take_notes()]


@pytest.mark.parametrize(
    ("args", "notes"),
    [
        ((b"CONFIG", b"SeT", b"a", b"b"), [("config", b"set")]),
        ((b"FLUSHALL",), [("flushall", b"")]),
        ((b"ACL", b"x" * 28), [("acl", b"x" * 28)]),
        ((b"ACL", b"x" * 29), [("acl", b"")]),
        ((b"GET", b"k"), []),
    ],
)
def test_the_second_word(args: tuple[bytes, ...], notes: list[tuple[str, bytes]]) -> None:
    assert noted(request(*args)) == notes


def test_an_inline_command() -> None:
    assert noted(b"config set a b\r\n") == [("config", b"set")]


@pytest.mark.parametrize("cut", range(17, 60))
def test_a_large_request_is_noted_by_what_is_there(cut: int) -> None:
    """Its beginning may end anywhere: a word that is not whole is not read, nor is what follows."""
    whole = cut >= LARGE.index(b"$3\r\nbob")
    assert noted(LARGE[:cut], size=16) == [("acl", b"setuser" if whole else b"")]
