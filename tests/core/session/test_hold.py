"""Writes that are held back while the master is about to change: reads go on, writes wait."""

from __future__ import annotations

from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.protocol.test_request import split
from tests.native.loopback import WAIT, Loopback
from tests.native.shell import request, table

LOTS = 1 << 30
GET, SET = request("GET", "k"), request("SET", "k", "v")
MULTI, EXEC, DISCARD = request("MULTI"), request("EXEC"), request("DISCARD")
WATCH, UNWATCH = request("WATCH", "k"), request("UNWATCH")


@pytest.fixture
def core() -> Loopback:
    core = Loopback(table())
    core.hold_writes(True)
    return core


@pytest.fixture
def link(core: Loopback) -> int:
    return core.add_link()


def release(core: Loopback, *sessions: int) -> None:
    """Writes may go on, and those who wait do."""
    core.hold_writes(False)
    for session in sessions:
        assert core.stall(session) == "held"
        core.resume(session)


END = b"\r\n*1\r\n!\r\n"
"""What stands behind a broken request that is passed on: no server accepts it."""


def give_own(core: Loopback, session: int, pinned: bool = False) -> int:
    """The session gets the link of its own that it asks for."""
    assert core.stall(session) == ("pin" if pinned else "dedicated")
    assert core.ready(session)
    own = core.add_link(shared=False)
    core.use_dedicated(session, own, pinned)
    core.resume(session)
    return own


class TestShared:
    """On the link that all clients share."""

    @pytest.mark.parametrize(
        "args",
        [
            ("SET", "k", "v"),
            ("PUBLISH", "c", "m"),
            ("EVAL", "return 1", "0"),
            ("MULTI",),
            ("EXEC",),
            ("BLPOP", "k", "0"),
            ("NOSUCHCOMMAND",),
            ("set", "k", "v"),
        ],
    )
    def test_a_write_waits(self, core: Loopback, link: int, args: tuple[str, ...]) -> None:
        ann = core.add_session(link)
        core.feed(ann, request(*args))
        assert core.stall(ann) == "held"
        assert core.ready(ann)
        assert core.link_unsent(link) == 0
        assert core.unread(ann) == len(request(*args))

    @pytest.mark.parametrize(
        ("args", "want"),
        [
            (("GET", "k"), "nothing"),
            (("PING",), "nothing"),
            (("CONFIG", "GET", "x"), "nothing"),
            (("DISCARD",), "nothing"),
            (("WATCH", "k"), "dedicated"),
            (("SUBSCRIBE", "c"), "pin"),
            (("SELECT", "1"), "session_command"),
            (("WAIT", "1", "0"), "wait_command"),
        ],
    )
    def test_the_rest_goes_on(
        self, core: Loopback, link: int, args: tuple[str, ...], want: str
    ) -> None:
        ann = core.add_session(link)
        core.feed(ann, request(*args))
        assert core.stall(ann) == want

    def test_reads_before_it_go_on_and_what_is_behind_it_waits(
        self, core: Loopback, link: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, GET + SET + GET)
        core.feed(bob, GET)
        assert core.stall(ann) == "held"
        assert not core.ready(ann)
        assert core.link_output(link, LOTS) == GET + GET
        core.feed(ann, SET)
        core.link_receive(link, b"+a\r\n+b\r\n")
        assert core.ready(ann)
        assert core.take(ann) == b"+a\r\n"
        assert core.take(bob) == b"+b\r\n"
        assert core.link_unsent(link) == 0
        release(core, ann)
        assert core.link_output(link, LOTS) == SET + GET + SET
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n")
        assert core.take(ann) == b"+1\r\n+2\r\n+3\r\n"

    def test_those_that_were_queued_are_not_called_back(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.hold_writes(False)
        core.feed(ann, SET)
        core.hold_writes(True)
        core.feed(ann, SET)
        assert core.link_output(link, LOTS) == SET

    def test_each_client_goes_on_in_its_own_order(self, core: Loopback, link: int) -> None:
        ann, bob, cy = (core.add_session(link) for _ in range(3))
        for session in (ann, bob, cy):
            core.feed(session, request("SET", session, 1) + request("GET", session))
            core.feed(session, request("SET", session, 2))
        core.drop(bob)
        assert core.link_unsent(link) == 0
        release(core, cy, ann)
        lines = [
            request(*args)
            for who in (cy, ann)
            for args in (("SET", who, 1), ("GET", who), ("SET", who, 2))
        ]
        assert core.link_output(link, LOTS) == b"".join(lines)

    def test_held_again(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        core.resume(ann)
        assert core.stall(ann) == "held"
        release(core, ann)
        core.hold_writes(True)
        core.feed(ann, SET)
        assert core.stall(ann) == "held"
        assert core.link_output(link, LOTS) == SET
        release(core, ann)
        assert core.link_output(link, LOTS) == SET

    @pytest.mark.parametrize("line", [b"SET k 'v'\r\n", b'\r\nSET "k" v\n'])
    def test_an_inline_one(self, core: Loopback, link: int, line: bytes) -> None:
        ann = core.add_session(link)
        core.feed(ann, line)
        assert core.stall(ann) == "held"
        release(core, ann)
        assert core.link_output(link, LOTS) == SET

    def test_a_protocol_error_behind_it_waits_too(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET + b"*x\r\n")
        assert core.stall(ann) == "held"
        release(core, ann)
        assert core.stall(ann) == "protocol_error"
        assert core.link_output(link, LOTS) == SET

    def test_half_a_write_behind_it(self, core: Loopback, link: int) -> None:
        for cut in range(len(SET)):
            ann = core.add_session(link)
            core.hold_writes(True)
            core.feed(ann, SET + SET[:cut])
            core.feed(ann, SET[cut:])
            release(core, ann)
            assert core.link_output(link, LOTS) == SET + SET
            core.link_receive(link, b"+1\r\n+2\r\n")

    def test_the_link_is_lost_meanwhile(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + SET)
        core.link_output(link, LOTS)
        core.link_lost(link)
        release(core, ann)
        assert core.stall(ann) == "link"
        core.link_up(link)
        core.resume(ann)
        assert core.link_output(link, LOTS) == GET + SET

    def test_another_link_in_its_place_meanwhile(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        other = core.add_link()
        core.divert(link, other)
        release(core, ann)
        assert core.stall(ann) == "link"
        core.use_shared(ann, other)
        core.resume(ann)
        # The link before is held up, so the server may hold this one's writes as well.
        assert core.stall(ann) == "dedicated"
        bob = core.add_session(other)
        core.feed(bob, GET)
        assert core.link_output(other, LOTS) == GET

    def test_with_acknowledgements(self) -> None:
        core = Loopback(table(), acks=1)
        link = core.add_link()
        ann = core.add_session(link)
        core.hold_writes(True)
        core.feed(ann, GET + SET)
        core.seal(link)
        assert core.link_output(link, LOTS) == GET
        release(core, ann)
        core.seal(link)
        assert core.link_output(link, LOTS) == SET + WAIT


class TestTransactions:
    """A transaction waits where it begins, or, begun before the hold, at its next write."""

    @pytest.mark.parametrize("body", [SET, GET, GET + SET, b""])
    def test_a_whole_one_stays_whole(self, core: Loopback, link: int, body: bytes) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + MULTI + body + EXEC)
        assert core.stall(ann) == "held"
        assert core.mode(ann) == "shared"
        assert core.link_output(link, LOTS) == GET
        assert core.link_outstanding(link) == core.outstanding(ann) == 1
        core.link_receive(link, b"+a\r\n")
        release(core, ann)
        assert core.mode(ann) == "shared"
        assert core.link_output(link, LOTS) == MULTI + body + EXEC

    def test_one_that_arrives_in_parts(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        for part in (MULTI, SET, EXEC):
            core.feed(ann, part)
            assert core.stall(ann) == "held"
        release(core, ann)
        assert core.mode(ann) == "shared"
        assert core.link_output(link, LOTS) == MULTI + SET + EXEC

    def test_one_that_is_not_whole_at_the_release(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, MULTI + SET)
        release(core, ann)
        own = give_own(core, ann)
        core.feed(ann, EXEC)
        assert core.link_output(own, LOTS) == MULTI + SET + EXEC

    def test_one_that_was_begun_before(self, core: Loopback, link: int) -> None:
        core.hold_writes(False)
        ann = core.add_session(link)
        core.feed(ann, MULTI)
        own = give_own(core, ann)
        core.hold_writes(True)
        core.feed(ann, GET + SET + EXEC + GET)
        assert core.link_output(own, LOTS) == MULTI + GET
        assert core.stall(ann) == "held"
        assert not core.ready(ann)
        core.link_receive(own, b"+OK\r\n+QUEUED\r\n")
        assert core.ready(ann)
        assert not core.may_give_back(ann)
        release(core, ann)
        assert core.link_output(own, LOTS) == SET + EXEC + GET

    def test_its_end_waits_whatever_it_contains(self, core: Loopback, link: int) -> None:
        core.hold_writes(False)
        ann = core.add_session(link)
        core.feed(ann, MULTI + GET)
        own = give_own(core, ann)
        core.hold_writes(True)
        core.feed(ann, EXEC)
        assert core.stall(ann) == "held"
        release(core, ann)
        assert core.link_output(own, LOTS) == MULTI + GET + EXEC

    def test_it_may_be_discarded(self, core: Loopback, link: int) -> None:
        core.hold_writes(False)
        ann = core.add_session(link)
        core.feed(ann, MULTI + GET)
        own = give_own(core, ann)
        core.hold_writes(True)
        core.feed(ann, DISCARD)
        assert core.link_output(own, LOTS) == MULTI + GET + DISCARD
        core.link_receive(own, b"+OK\r\n+QUEUED\r\n+OK\r\n")
        assert core.may_give_back(ann)


class TestDedicated:
    """On a link of its own."""

    def test_watched_keys(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, WATCH + GET + SET + UNWATCH)
        own = give_own(core, ann)
        assert core.link_output(own, LOTS) == WATCH + GET
        assert core.stall(ann) == "held"
        core.link_receive(own, b"+OK\r\n$-1\r\n")
        assert not core.may_give_back(ann)
        release(core, ann)
        assert core.link_output(own, LOTS) == SET + UNWATCH

    def test_it_may_go_back_while_the_client_waits(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, WATCH + UNWATCH + SET)
        own = give_own(core, ann)
        assert core.link_output(own, LOTS) == WATCH + UNWATCH
        core.link_receive(own, b"+OK\r\n+OK\r\n")
        assert core.may_give_back(ann)
        core.give_back(ann)
        core.resume(ann)
        assert core.stall(ann) == "held"
        release(core, ann)
        assert core.link_output(link, LOTS) == SET
        assert core.link_unsent(own) == 0

    def test_pinned(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = give_own(core, ann, pinned=True)
        core.feed(ann, GET + SET + GET)
        assert core.stall(ann) == "held"
        assert core.ready(ann)
        assert core.link_output(own, LOTS) == request("SUBSCRIBE", "c") + GET
        core.link_receive(own, b">3\r\n+message\r\n+c\r\n+m\r\n")
        assert core.take(ann) == b">3\r\n+message\r\n+c\r\n+m\r\n"
        release(core, ann)
        assert core.mode(ann) == "pinned"
        assert core.link_output(own, LOTS) == SET + GET

    def test_pinned_bytes_that_are_no_requests(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, request("MONITOR"))
        own = give_own(core, ann, pinned=True)
        core.feed(ann, b"*x\r\n" + SET)
        assert core.stall(ann) == "nothing"
        assert core.link_output(own, LOTS) == request("MONITOR") + b"*x\r\n" + SET + END


class TestLarge:
    """Requests too large to keep."""

    LARGE = request("SET", "k", b"x" * 5000)

    def held(self, data: bytes) -> tuple[Loopback, int, int]:
        """A client that has sent this while writes are held."""
        core = Loopback(table(), request_buffer=1000)
        link = core.add_link()
        core.hold_writes(True)
        ann = core.add_session(link)
        core.feed(ann, data)
        return core, link, ann

    @pytest.mark.parametrize("cut", [40, 1500, 4999, len(LARGE) - 1, len(LARGE)])
    def test_one_waits_before_its_first_byte(self, cut: int) -> None:
        core, link, ann = self.held(self.LARGE[:cut])
        assert core.stall(ann) == "held"
        assert core.mode(ann) == "shared"
        assert core.link_unsent(link) == 0
        core.feed(ann, self.LARGE[cut:] + GET)
        release(core, ann)
        assert core.link_output(link, LOTS) == self.LARGE + GET

    def test_one_that_is_not_there_at_the_release(self) -> None:
        core, _, ann = self.held(self.LARGE[:1500])
        core.feed(ann, self.LARGE[1500:3000])
        release(core, ann)
        own = give_own(core, ann)
        core.feed(ann, self.LARGE[3000:])
        assert core.link_output(own, LOTS) == self.LARGE

    def test_one_under_way_is_completed(self) -> None:
        core, _, ann = self.held(b"")
        core.hold_writes(False)
        core.feed(ann, self.LARGE[:1500])
        own = give_own(core, ann)
        core.hold_writes(True)
        core.feed(ann, self.LARGE[1500:] + self.LARGE[:1500])
        assert core.link_output(own, LOTS) == self.LARGE
        assert core.stall(ann) == "held"
        core.feed(ann, self.LARGE[1500:])
        release(core, ann)
        assert core.link_output(own, LOTS) == self.LARGE

    def test_a_large_read_goes_on(self) -> None:
        large = request("MGET", b"x" * 5000, "k")
        core, _, ann = self.held(large[:1500])
        own = give_own(core, ann)
        core.feed(ann, large[1500:])
        assert core.link_output(own, LOTS) == large

    def test_pinned(self) -> None:
        core, _, ann = self.held(request("SUBSCRIBE", "c"))
        own = give_own(core, ann, pinned=True)
        core.link_output(own, LOTS)
        core.feed(ann, self.LARGE[:1500])
        assert core.stall(ann) == "held"
        assert core.link_unsent(own) == 0
        core.feed(ann, self.LARGE[1500:2000])
        release(core, ann)
        core.feed(ann, self.LARGE[2000:] + GET)
        assert core.link_output(own, LOTS) == self.LARGE + GET


SCRIPT = [GET, SET, MULTI + SET + GET + EXEC, b"SET k v\r\n", b"GET k\n", b"*0\r\n", EXEC]


def serve(core: Loopback, session: int, hold: bool) -> bytes:
    """Give the session what it wants and its links what they ask for, until all stands still.
    What the servers were sent."""
    sent = b""
    while True:
        link = core.link_of(session)
        assert link is not None
        sent += core.link_output(link, LOTS)
        if core.link_outstanding(link):
            core.link_receive(link, b"+x\r\n" * core.link_outstanding(link))
        want = core.stall(session)
        if core.may_give_back(session):
            core.give_back(session)
            core.close_link(link)
            core.resume(session)
        elif want == "dedicated":
            give_own(core, session)
        elif want == "held" and not hold:
            core.resume(session)
        else:
            assert want in ("nothing", "held")
            return sent


@given(
    st.lists(st.sampled_from(SCRIPT), min_size=1, max_size=8),
    st.lists(st.integers(0, 200), max_size=6),
    st.lists(st.booleans(), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_or_overtaken(
    parts: list[bytes], cuts: list[int], holds: list[bool]
) -> None:
    """However it is split, and whenever writes are held: the server sees the same requests, and
    none that writes while they are held."""
    core = Loopback(table())
    ann = core.add_session(core.add_link())
    sent = b""
    for piece, hold in zip_longest([*split(b"".join(parts), cuts), b""], holds, fillvalue=None):
        core.hold_writes(bool(hold))
        core.feed(ann, piece or b"")
        new = serve(core, ann, bool(hold))
        assert not hold or not any(word in new for word in (b"SET", b"MULTI", b"EXEC"))
        sent += new
    core.hold_writes(False)
    sent += serve(core, ann, False)
    plain = b"".join(parts).replace(b"*0\r\n", b"")
    assert sent == plain.replace(b"SET k v\r\n", SET).replace(b"GET k\n", GET)


class TestAll:
    """Everything is held: a pause."""

    @pytest.fixture
    def core(self) -> Loopback:
        core = Loopback(table())
        core.hold_all(True)
        return core

    @pytest.mark.parametrize(
        "args",
        [("GET", "k"), ("SET", "k", "v"), ("PING",), ("WATCH", "k"), ("MULTI",), ("SELECT", "1"),
         ("SUBSCRIBE", "c"), ("BLPOP", "k", "0"), ("WAIT", "1", "0"), ("NOSUCHCOMMAND",)],
    )  # fmt: skip
    def test_every_command_waits(self, core: Loopback, link: int, args: tuple[str, ...]) -> None:
        ann = core.add_session(link)
        core.feed(ann, request(*args))
        assert (core.stall(ann), core.ready(ann)) == ("held", True)
        assert core.link_unsent(link) == 0

    def test_what_is_hostile_does_not(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, request("POST", "/"))
        assert core.stall(ann) == "hang_up"

    def test_a_large_request_waits(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n" + b"x" * 70000)
        assert core.stall(ann) == "held"

    def test_an_open_transaction_goes_on(self, core: Loopback, link: int) -> None:
        core.hold_all(False)
        ann = core.add_session(link)
        core.feed(ann, MULTI)
        own = give_own(core, ann)
        assert core.link_output(own, LOTS) == MULTI
        core.link_receive(own, b"+OK\r\n")
        core.hold_all(True)
        core.feed(ann, SET + EXEC + GET)
        assert core.link_output(own, LOTS) == SET + EXEC
        core.link_receive(own, b"+QUEUED\r\n*1\r\n+OK\r\n")
        assert core.stall(ann) == "held"

    def test_a_pinned_session_waits(self, core: Loopback, link: int) -> None:
        core.hold_all(False)
        ann = core.add_session(link)
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = give_own(core, ann, pinned=True)
        core.link_output(own, LOTS)
        core.hold_all(True)
        core.feed(ann, request("SUBSCRIBE", "d"))
        assert (core.stall(ann), core.link_unsent(own)) == ("held", 0)
        core.link_receive(own, b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n")
        assert core.take(ann).endswith(b"m\r\n")

    def test_both_holds_end_by_themselves(self, core: Loopback, link: int) -> None:
        """A read waits for the end of the pause only, a write for the end of both."""
        ann, bob = core.add_session(link), core.add_session(link)
        core.hold_writes(True)
        core.feed(ann, GET)
        core.feed(bob, SET)
        core.hold_all(False)
        core.resume(ann)
        core.resume(bob)
        assert (core.stall(ann), core.stall(bob)) == ("nothing", "held")
        core.hold_writes(False)
        core.resume(bob)
        assert core.link_output(link, LOTS) == GET + SET
