"""Writes that are answered once replicas have them: one WAIT of the sidecar's own per flush."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native.loopback import WAIT, LinkError, Loopback
from tests.native.shell import request, table

from .transcript import (
    ABORT,
    BLPOP,
    EXEC,
    GET,
    LOST,
    LOTS,
    MULTI,
    NO_WAIT,
    PUBLISH,
    READONLY,
    SET,
    SHORT,
    WATCH,
    Step,
    again,
    flush,
    receive_in_pieces,
    send,
    taken,
)

PUSH = b">2\r\n+message\r\n$3\r\n:1\r\r\n"


CORE = {"acks": 1}


class TestSealing:
    """Behind the writes of one flush goes one WAIT."""

    def test_one_for_all_of_a_flush(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET + GET)
        core.feed(bob, GET + SET + PUBLISH)
        assert flush(core, link) == SET + GET + GET + SET + PUBLISH + WAIT
        assert flush(core, link) == b""
        core.feed(ann, SET)
        assert flush(core, link) == SET + WAIT

    @pytest.mark.parametrize("command", [GET, request("CONFIG", "GET", "x"), request("PING")])
    def test_none_where_nothing_is_written(self, core: Loopback, link: int, command: bytes) -> None:
        core.feed(core.add_session(link), command)
        assert flush(core, link) == command

    def test_none_without_acks(self) -> None:
        core = Loopback(table())
        link = core.add_link()
        ann = core.add_session(link)
        core.feed(ann, SET)
        assert flush(core, link) == SET
        core.link_receive(link, b"+OK\r\n")
        assert core.take(ann) == b"+OK\r\n"

    def test_a_transaction_counts_with_its_end(self, core: Loopback, link: int) -> None:
        core.feed(core.add_session(link), MULTI + SET + EXEC + GET)
        assert flush(core, link) == MULTI + SET + EXEC + GET + WAIT

    def test_a_block_taken_back_asks_for_nothing(self, core: Loopback, link: int) -> None:
        core.feed(core.add_session(link), MULTI + SET + SET)
        assert flush(core, link) == b""

    def test_its_reply_may_come_at_once_or_later(self, core: Loopback, link: int) -> None:
        """Two flushes before the first reply: each WAIT speaks for the writes before it."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET))
        send(core, link, (bob, SET))
        core.link_receive(link, b"+1\r\n")
        assert core.take(ann) == b""
        core.link_receive(link, b":1\r\n+2\r\n")
        assert core.take(ann) == b"+1\r\n"
        assert core.take(bob) == b""
        core.link_receive(link, b":0\r\n")
        assert core.take(bob) == SHORT


class TestWithholding:
    """A write's reply, and all replies behind it, wait for the WAIT."""

    def test_what_is_before_a_write_does_not_wait(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET), (bob, SET + GET), (ann, GET))
        core.link_receive(link, b"$1\r\na\r\n+OK\r\n$1\r\nb\r\n")
        assert core.take(ann) == b"$1\r\na\r\n"
        assert core.take(bob) == b""
        core.link_receive(link, b"$1\r\nc\r\n")
        assert core.take(ann) == b""
        assert core.outstanding(ann) == 1
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == b"$1\r\nc\r\n"
        assert core.take(bob) == b"+OK\r\n$1\r\nb\r\n"
        assert core.link_outstanding(link) == 0

    @pytest.mark.parametrize(
        ("needed", "reply", "enough"),
        [
            (1, b":0\r\n", False),
            (1, b":1\r\n", True),
            (1, b":2\r\n", True),
            (2, b":1\r\n", False),
            (2, b":2\r\n", True),
            (2, b":10\r\n", True),
            (11, b":10\r\n", False),
            (1, b":9223372036854775807\r\n", True),
            (1, b":99999999999999999999\r\n", False),
            (1, b":1x\r\n", False),
            (1, b":-1\r\n", False),
            (1, b"+1\r\n", False),
            (1, NO_WAIT, False),
            (1, b"-UNBLOCKED force unblock from blocking operation\r\n", False),
            (1, b"-LOADING x\r\n", False),
        ],
    )
    def test_too_few_is_said(self, needed: int, reply: bytes, enough: bool) -> None:
        core = Loopback(table(), acks=needed, follows=True)
        link = core.add_link()
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET + SET + GET), (bob, SET))
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n+4\r\n" + reply)
        assert core.take(ann) == b"+1\r\n" + (b"+2\r\n" if enough else SHORT) + b"+3\r\n"
        assert core.take(bob) == (b"+4\r\n" if enough else SHORT)
        assert not core.demoted(link)
        assert core.link_outstanding(link) == 0

    def test_an_error_stays_what_it_is(self, core: Loopback, link: int) -> None:
        """It was not executed, so "executed, but" would be a lie."""
        ann = core.add_session(link)
        send(core, link, (ann, SET + SET + MULTI + SET + EXEC))
        error = b"-WRONGTYPE x\r\n"
        core.link_receive(link, error + b"+OK\r\n+OK\r\n+QUEUED\r\n" + ABORT + b":0\r\n")
        assert core.take(ann) == error + SHORT + b"+OK\r\n+QUEUED\r\n" + ABORT

    def test_a_transaction_s_end_waits_and_its_beginning_does_not(
        self, core: Loopback, link: int
    ) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, MULTI + SET + EXEC))
        core.link_receive(link, b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
        assert core.take(ann) == b"+OK\r\n+QUEUED\r\n"
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == b"*1\r\n+OK\r\n"

    def test_split_anywhere(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        data = b"+1\r\n" + PUSH + b"$2\r\nab\r\n-E x\r\n" + PUSH + b"*2\r\n:1\r\n$-1\r\n:1\r\n"
        for cut in range(1, len(data)):
            send(core, link, (ann, GET + SET), (bob, SET + GET))
            core.link_receive(link, data[:cut])
            before = core.take(ann)
            assert before == (b"+1\r\n" if cut >= 4 else b"")
            assert core.take(bob) == b""
            core.link_receive(link, data[cut:])
            assert before + core.take(ann) == b"+1\r\n$2\r\nab\r\n"
            assert core.take(bob) == b"-E x\r\n*2\r\n:1\r\n$-1\r\n"

    def test_byte_by_byte(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET + SET))
        for byte in b"+a\r\n" + PUSH + b"$3\r\nabc\r\n:1":
            core.link_receive(link, bytes([byte]))
            assert core.take(ann) == b""
        core.link_receive(link, b"\r\n")
        assert core.take(ann) == b"+a\r\n$3\r\nabc\r\n"

    def test_a_dead_client_holds_nobody_up(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, SET))
        core.link_receive(link, b"+1\r\n+2")
        core.drop(ann)
        core.link_receive(link, b"\r\n:1\r\n")
        assert core.take(bob) == b"+2\r\n"
        assert core.link_outstanding(link) == 0

    def test_all_clients_are_dead(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET + GET), (bob, SET))
        core.drop(ann)
        core.link_receive(link, b"+1\r\n$1\r\na\r\n+2\r\n")
        core.drop(bob)
        core.link_receive(link, b":0\r\n")
        assert core.link_outstanding(link) == 0

    @pytest.mark.parametrize("answered", [0, 5, 15, 16])
    def test_the_ring_grows_while_replies_are_withheld(
        self, core: Loopback, link: int, answered: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET * answered))
        core.link_receive(link, b"+x\r\n" * answered)
        core.take(ann)
        send(core, link, (ann, SET * 10))
        core.link_receive(link, b"".join(b":%d\r\n" % i for i in range(10)))
        send(core, link, (bob, GET * 30 + SET))
        core.link_receive(link, b":1\r\n" + b"".join(b":%d\r\n" % i for i in range(31)))
        assert core.take(ann) == b"".join(b":%d\r\n" % i for i in range(10))
        assert core.take(bob) == b"".join(b":%d\r\n" % i for i in range(30))
        core.link_receive(link, b":1\r\n")
        assert core.take(bob) == b":30\r\n"

    @pytest.mark.parametrize("data", [b"+1\r\n:1\r\n+2\r\n", b"junk", b"+1\r\n:1\r\n-ERR x\r\n"])
    def test_what_nobody_asked_for_ends_the_link(
        self, core: Loopback, link: int, data: bytes
    ) -> None:
        send(core, link, (core.add_session(link), SET))
        with pytest.raises(LinkError):
            core.link_receive(link, data)

    @pytest.mark.parametrize("part", [0, 1, len(WAIT) - 1])
    def test_an_answer_to_what_was_not_sent_ends_the_link(
        self, core: Loopback, link: int, part: int
    ) -> None:
        core.feed(core.add_session(link), SET)
        core.seal(link)
        core.link_output(link, len(SET) + part)
        with pytest.raises(LinkError):
            core.link_receive(link, b"+OK\r\n:1\r\n")

    def test_replies_made_here_wait_too(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET)
        core.say_behind(ann, b"+ann\r\n")
        core.feed(bob, GET)
        core.say_behind(bob, b"+bob\r\n")
        flush(core, link)
        core.link_receive(link, b"+1\r\n+2\r\n")
        core.say_behind(ann, b"+late\r\n")
        assert core.take(ann) == core.take(bob) == b""
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == b"+1\r\n+ann\r\n+late\r\n"
        assert core.take(bob) == b"+2\r\n+bob\r\n"
        assert core.link_outstanding(link) == 0

    def test_what_is_counted(self, core: Loopback, link: int) -> None:
        send(core, link, (core.add_session(link), SET + GET + SET))
        core.link_receive(link, b"+OK\r\n$-1\r\n-ERR x\r\n:1\r\n")
        assert core.counters()["calls"] == {"set": 2, "get": 1}
        assert core.counters()["errors"] == {"string": 1}


class TestDedicated:
    """A link of its own has its own WAITs."""

    def own(self, core: Loopback, link: int, data: bytes) -> tuple[int, int]:
        """A client that has sent this and got a link of its own for it."""
        ann = core.add_session(link)
        core.feed(ann, data)
        own = core.add_link(shared=False)
        core.use_dedicated(ann, own)
        core.resume(ann)
        return ann, own

    def test_one_write(self, core: Loopback, link: int) -> None:
        ann, own = self.own(core, link, BLPOP)
        assert flush(core, own) == BLPOP + WAIT
        core.link_receive(own, b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n")
        assert core.take(ann) == b""
        assert not core.may_give_back(ann)
        core.link_receive(own, b":1\r\n")
        assert core.take(ann) == b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n"
        assert core.may_give_back(ann)
        core.give_back(ann)
        core.close_link(own)

    def test_a_transaction_command_by_command(self, core: Loopback, link: int) -> None:
        ann, own = self.own(core, link, WATCH)
        for data, reply in ((WATCH, b"+OK\r\n"), (MULTI, b"+OK\r\n"), (SET, b"+QUEUED\r\n")):
            if data != WATCH:
                core.feed(ann, data)
            assert flush(core, own) == data
            core.link_receive(own, reply)
            assert core.take(ann) == reply
        core.feed(ann, EXEC + GET)
        assert flush(core, own) == EXEC + GET + WAIT
        core.link_receive(own, b"*-1\r\n$-1\r\n")
        assert core.take(ann) == b""
        core.link_receive(own, b":0\r\n")
        assert core.take(ann) == SHORT + b"$-1\r\n"
        assert core.may_give_back(ann)

    def test_a_write_before_multi_does_not_wait_for_exec(self, core: Loopback, link: int) -> None:
        """Between MULTI and EXEC no WAIT can go: it goes before MULTI."""
        ann, own = self.own(core, link, BLPOP + SET + MULTI + SET)
        assert flush(core, own) == BLPOP + SET + WAIT + MULTI + SET
        core.link_receive(own, b"*-1\r\n+1\r\n:1\r\n+OK\r\n+QUEUED\r\n")
        assert core.take(ann) == b"*-1\r\n+1\r\n+OK\r\n+QUEUED\r\n"
        core.feed(ann, EXEC)
        assert flush(core, own) == EXEC + WAIT
        core.link_receive(own, b"*1\r\n+2\r\n:1\r\n")
        assert core.take(ann) == b"*1\r\n+2\r\n"

    def test_multi_with_an_argument_begins_nothing(self, core: Loopback, link: int) -> None:
        bad = request("MULTI", "x")
        ann, own = self.own(core, link, WATCH + bad + SET)
        assert flush(core, own) == WATCH + bad + SET + WAIT
        core.link_receive(own, b"+OK\r\n-ERR args\r\n+OK\r\n:1\r\n")
        assert core.take(ann) == b"+OK\r\n-ERR args\r\n+OK\r\n"

    def test_before_a_large_request(self) -> None:
        """The WAIT for what is before it does not have to wait for its end."""
        core = Loopback(table(), acks=1, request_buffer=1000)
        large = request("SET", "k", b"x" * 5000)
        ann, own = self.own(core, core.add_link(), BLPOP + SET + large[:2000])
        assert flush(core, own) == BLPOP + SET + WAIT + large[:2000]
        core.link_receive(own, b"*-1\r\n+1\r\n:1\r\n")
        assert core.take(ann) == b"*-1\r\n+1\r\n"
        core.feed(ann, large[2000:] + GET)
        assert flush(core, own) == large[2000:] + GET + WAIT
        core.link_receive(own, b"+2\r\n$1\r\na\r\n")
        assert core.take(ann) == b""
        core.link_receive(own, b":1\r\n")
        assert core.take(ann) == b"+2\r\n$1\r\na\r\n"
        assert core.may_give_back(ann)

    def test_refusals_are_passed_on(self) -> None:
        core = Loopback(table(), acks=1, follows=True)
        ann, own = self.own(core, core.add_link(), BLPOP)
        flush(core, own)
        core.link_receive(own, READONLY + NO_WAIT)
        assert core.take(ann) == READONLY
        assert not core.demoted(own)
        assert core.may_give_back(ann)

    def test_pinned_in_a_transaction_once_all_is_given_out(self, core: Loopback, link: int) -> None:
        subscribe = request("SUBSCRIBE", "c")
        ann, own = self.own(core, link, BLPOP + MULTI + subscribe)
        assert core.stall(ann) == "replies"
        assert flush(core, own) == BLPOP + WAIT + MULTI
        core.link_receive(own, b"*-1\r\n")
        assert not core.ready(ann)
        core.link_receive(own, b":1\r\n+OK\r\n")
        assert core.ready(ann)
        core.resume(ann)
        assert core.mode(ann) == "pinned"
        assert flush(core, own) == subscribe
        core.link_receive(own, b"+QUEUED\r\n")
        assert core.take(ann) == b"*-1\r\n+OK\r\n+QUEUED\r\n"

    def test_the_link_is_lost(self, core: Loopback, link: int) -> None:
        ann, own = self.own(core, link, BLPOP + GET)
        flush(core, own)
        core.link_receive(own, b"*-1\r\n$1\r\na\r\n")
        core.link_lost(own, False)
        assert core.take(ann) == LOST * 2

    def test_a_push_is_dropped(self, core: Loopback, link: int) -> None:
        ann, own = self.own(core, link, BLPOP)
        flush(core, own)
        core.link_receive(own, PUSH[:7])
        core.link_receive(own, PUSH[7:] + b"*-1\r\n" + PUSH + b":1\r\n")
        assert core.take(ann) == b"*-1\r\n"


# Any split of the server's bytes has the same outcome.

COMMANDS = {
    "get": (GET, [b"$5\r\nvalue\r\n", b"-ERR x\r\n", b"-MASTERDOWN x\r\n"]),
    "set": (SET, [b"+OK\r\n", READONLY, b"-WRONGTYPE x\r\n"]),
    "config": (request("CONFIG", "GET", "x"), [b"*2\r\n+a\r\n+b\r\n", b"-LOADING x\r\n"]),
    "piece": (
        MULTI + SET + EXEC,
        [b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", b"+OK\r\n" + READONLY + ABORT],
    ),
    "flush": (b"", [b":0\r\n", b":1\r\n", NO_WAIT]),
}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Step], bool, list[int]]:
    """Commands of three clients with the choice of their replies, and flushes between them."""
    steps = st.tuples(
        st.integers(0, 2), st.sampled_from(sorted(COMMANDS)), st.integers(0, 2), st.booleans()
    )
    plan = draw(st.lists(steps, min_size=1, max_size=24))
    return plan, draw(st.booleans()), draw(st.lists(st.integers(1, 60), max_size=40))


def outcome(plan: list[Step], follows: bool, pieces: list[int]) -> tuple[list[bytes], bool, bytes]:
    """Play a history: what each client has got, whether the link turned, what is sent again."""
    core = Loopback(table(), follows=follows, acks=1)
    link = core.add_link()
    clients = [core.add_session(link) for _ in range(3)]
    data = b""
    for who, kind, which, push in plan:
        command, replies = COMMANDS[kind]
        if kind == "flush":
            if not flush(core, link).endswith(WAIT):
                continue
        else:
            core.feed(clients[who], command)
            core.link_output(link, LOTS)
        data += PUSH * push + replies[which % len(replies)]
    got, turned = receive_in_pieces(core, link, clients, data, pieces)
    rest = again(core, link)
    core.refuse(link, b"-ERR down\r\n")
    got = taken(core, clients, got)
    assert core.link_outstanding(link) == 0
    return got, turned, rest


@given(histories())
@settings(max_examples=400, deadline=None)
def test_any_split_has_the_same_outcome(history: tuple[list[Step], bool, list[int]]) -> None:
    plan, follows, pieces = history
    at_once = outcome(plan, follows, [])
    in_pieces = outcome(plan, follows, pieces)
    if at_once[1]:
        # On a turned link an answer that came in pieces is uncertain instead of given out.
        assert in_pieces[1:] == at_once[1:]
        for one, other in zip(in_pieces[0], at_once[0], strict=True):
            assert one == other or LOST in one
    else:
        assert in_pieces == at_once
