"""Demoted links: each reply decides about its own request, and any split has the same outcome."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.refreplies import reply_end
from tests.native.loopback import LinkError, Loopback
from tests.native.shell import request, table

from .transcript import (
    ABORT,
    EXEC,
    GET,
    LOST,
    LOTS,
    MASTERDOWN,
    MULTI,
    PUBLISH,
    PUSH,
    READONLY,
    REFUSALS,
    SET,
    Step,
    again,
    answered,
    count,
    cuts,
    receive_in_pieces,
    send,
    taken,
)

CORE = {"follows": True}


class TestJudging:
    """On a link that has turned, each reply decides about its own request."""

    @pytest.fixture
    def turned(self, core: Loopback, link: int) -> tuple[int, int]:
        """Two clients on a link of which the first one's write has been refused: SET by ann,
        then GET, SET, PUBLISH by bob."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, GET + SET + PUBLISH))
        core.link_receive(link, READONLY)
        assert core.demoted(link)
        assert not core.turn_over(link)
        return ann, bob

    def test_until_all_is_judged_it_is_not_over(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        for reply in (b"+stale\r\n", READONLY):
            core.link_receive(link, reply)
            assert not core.turn_over(link)
        core.link_receive(link, READONLY)
        assert core.turn_over(link)
        assert core.take(turned[0]) == core.take(turned[1]) == b""
        assert again(core, link) == SET + GET + SET + PUBLISH

    def test_a_read_is_sent_again_though_it_was_answered(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        core.link_receive(link, b"$5\r\nstale\r\n" + READONLY * 2)
        again(core, link)
        core.link_receive(link, b"+1\r\n$5\r\nfresh\r\n+3\r\n:4\r\n")
        assert core.take(turned[0]) == b"+1\r\n"
        assert core.take(turned[1]) == b"$5\r\nfresh\r\n+3\r\n:4\r\n"

    def test_a_write_that_was_executed_behind_what_waits_is_uncertain(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        core.link_receive(link, b"+a\r\n" + READONLY + b":0\r\n")
        assert core.turn_over(link)
        assert core.take(turned[1]) == b""
        assert again(core, link) == SET + GET + SET
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n")
        assert core.take(turned[1]) == b"+2\r\n+3\r\n" + LOST
        assert core.counters()["uncertain"] == 1

    def test_one_that_was_executed_first_is_answered(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, PUBLISH + GET))
        core.link_receive(link, READONLY + b":7\r\n")
        assert core.take(bob) == b":7\r\n"
        assert core.outstanding(bob) == 1
        assert core.counters()["calls"] == {"publish": 1}
        assert again(core, link) == SET + GET
        assert core.counters()["uncertain"] == 0
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(bob) == b"+2\r\n"
        assert core.take(ann) == b"+1\r\n"

    def test_the_first_client_s_next_writes_wait_for_its_refused_one(
        self, core: Loopback, link: int
    ) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET + PUBLISH + GET))
        core.link_receive(link, READONLY + b":7\r\n$1\r\na\r\n")
        assert core.take(ann) == b""
        assert again(core, link) == SET + GET
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST + b"+2\r\n"

    @pytest.mark.parametrize("command", [b"CONFIG", b"FLUSHALL"])
    def test_an_answer_in_pieces_is_uncertain(
        self, core: Loopback, link: int, command: bytes
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, request(command)))
        core.link_receive(link, READONLY + b"$20\r\n-READONLY ")
        assert not core.turn_over(link)
        core.link_receive(link, b"0123456789\r\n")
        assert core.turn_over(link)
        assert core.take(bob) == b""
        assert answered(core, link, SET)
        assert core.take(bob) == LOST

    @pytest.mark.parametrize("error", [*REFUSALS, ABORT])
    def test_a_script_s_error_is_its_own(self, core: Loopback, link: int, error: bytes) -> None:
        """Whatever it says, the script was executed: it neither turns the link nor goes again."""
        script = request("EVAL", "redis.call('SET', 'k', 'v') return redis.error_reply(...)", "0")
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, script))
        core.link_receive(link, error)
        assert core.take(ann) == error
        assert not core.demoted(link)
        send(core, link, (bob, SET), (ann, script + script))
        core.link_receive(link, READONLY + error + error)
        assert core.turn_over(link)
        assert core.take(ann) == error + error
        assert again(core, link) == SET

    def test_a_refusal_in_pieces_is_one(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        data = READONLY + MASTERDOWN + READONLY
        for cut in cuts(data):
            send(core, link, (ann, SET + GET + SET))
            core.link_receive(link, data[:cut])
            core.link_receive(link, data[cut:])
            assert core.turn_over(link)
            assert again(core, link) == SET + GET + SET
            core.link_receive(link, b"+1\r\n+2\r\n+3\r\n")
            assert core.take(ann) == b"+1\r\n+2\r\n+3\r\n"

    def test_what_was_not_sent_is_sent(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        core.feed(turned[0], PUBLISH)
        core.link_receive(link, b"+a\r\n" + READONLY * 2)
        assert core.turn_over(link)
        assert core.link_unsent(link) == len(PUBLISH)
        assert again(core, link) == SET + GET + SET + PUBLISH + PUBLISH

    @pytest.mark.parametrize("part", [1, 10, len(SET) - 1])
    def test_what_was_sent_in_part_will_not_be_answered(
        self, core: Loopback, link: int, part: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET)
        core.feed(bob, SET)
        core.link_output(link, len(SET) + part)
        core.link_receive(link, READONLY)
        assert core.turn_over(link)
        assert answered(core, link, SET)
        assert core.take(ann) == b"+1\r\n"
        assert core.take(bob) == LOST

    @pytest.mark.parametrize("part", [0, 1, len(SET) - 1])
    def test_an_answer_to_what_was_not_sent_ends_the_link(
        self, core: Loopback, link: int, part: int
    ) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET + SET)
        core.link_output(link, len(SET) + part)
        with pytest.raises(LinkError):
            core.link_receive(link, READONLY + READONLY)

    @pytest.mark.parametrize("data", [b"junk", b"*x\r\n", READONLY * 3 + b"+1\r\n"])
    def test_what_is_no_answer_ends_the_link(
        self, core: Loopback, link: int, turned: tuple[int, int], data: bytes
    ) -> None:
        with pytest.raises(LinkError):
            core.link_receive(link, data)

    def test_lost_before_all_is_judged(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        core.link_receive(link, b"+a\r\n" + READONLY[:20])
        assert again(core, link) == SET + GET
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(turned[1]) == b"+2\r\n" + LOST * 2

    def test_what_was_uncertain_before_stays_so(self, core: Loopback, link: int) -> None:
        """Entries without a request of their own are passed over when replies are counted."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET + SET), (bob, GET + SET))
        assert again(core, link) == GET + GET
        core.feed(ann, SET)
        core.link_output(link, LOTS)
        core.link_receive(link, MASTERDOWN * 2 + READONLY)
        assert core.turn_over(link)
        assert again(core, link) == GET + GET + SET
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST + b"+3\r\n"
        assert core.take(bob) == b"+2\r\n" + LOST
        assert core.counters()["uncertain"] == 2

    def test_uncertain_to_the_end(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, GET + SET))
        again(core, link)
        core.link_receive(link, MASTERDOWN)
        assert core.turn_over(link)
        assert again(core, link) == GET
        core.link_receive(link, b"+1\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST

    def test_replies_made_here_keep_their_turn(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET)
        core.say_behind(ann, b"+ann\r\n")
        core.feed(bob, PUBLISH)
        core.say_behind(bob, b"+bob\r\n")
        core.feed(bob, PUBLISH)
        core.link_output(link, LOTS)
        core.link_receive(link, READONLY + b":1\r\n" + READONLY)
        assert core.turn_over(link)
        assert core.take(ann) == b""
        assert core.take(bob) == b":1\r\n"
        assert again(core, link) == SET + PUBLISH
        core.link_receive(link, b"+1\r\n:2\r\n")
        assert core.take(ann) == b"+1\r\n+ann\r\n"
        assert core.take(bob) == b"+bob\r\n:2\r\n"

    def test_it_was_said_of_one_connection_only(self, core: Loopback, link: int) -> None:
        """Sent again, and lost without an answer: now it may have been executed."""
        ann = core.add_session(link)
        send(core, link, (ann, SET))
        core.link_receive(link, READONLY)
        assert again(core, link) == SET
        assert again(core, link) == b""
        assert core.take(ann) == LOST

    def test_refused_again_and_again(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET + GET))
        for refusal in REFUSALS:
            core.link_receive(link, refusal + b"+a\r\n")
            assert core.turn_over(link)
            assert again(core, link) == SET + GET
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(ann) == b"+1\r\n+2\r\n"

    def test_dead_clients_are_judged_and_forgotten(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        core.drop(turned[1])
        core.link_receive(link, b"+a\r\n" + READONLY + b":0\r\n")
        assert again(core, link) == SET + GET + SET
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n")
        assert core.take(turned[0]) == b"+1\r\n"
        assert core.link_outstanding(link) == 0

    def test_a_client_comes_while_it_is_turned(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        cy = core.add_session(link)
        core.feed(cy, SET)
        core.link_receive(link, b"+a\r\n" + READONLY * 2)
        assert again(core, link) == SET + GET + SET + PUBLISH + SET
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n+4\r\n+5\r\n")
        assert core.take(cy) == b"+5\r\n"

    @pytest.mark.parametrize("answered", [0, 3, 15, 16])
    @pytest.mark.parametrize("more", [1, 20, 300])
    def test_the_ring_grows_while_it_is_turned(
        self, core: Loopback, link: int, answered: int, more: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET * answered))
        core.link_receive(link, b"+x\r\n" * answered)
        send(core, link, (ann, SET), (bob, SET * 12))
        core.link_receive(link, READONLY * 5)
        core.feed(bob, GET * more)
        core.link_receive(link, READONLY * 8)
        assert core.turn_over(link)
        core.take(ann)
        assert again(core, link) == SET * 13 + GET * more
        core.link_receive(link, b"".join(b":%d\r\n" % i for i in range(13 + more)))
        assert core.take(ann) == b":0\r\n"
        assert core.take(bob) == b"".join(b":%d\r\n" % i for i in range(1, 13 + more))

    def test_a_refusal_of_the_sidecar_answers_what_waits(
        self, core: Loopback, link: int, turned: tuple[int, int]
    ) -> None:
        core.link_receive(link, b"+a\r\n" + READONLY + b":0\r\n")
        core.link_lost(link)
        core.refuse(link, b"-ERR down\r\n")
        assert core.take(turned[0]) == b"-ERR down\r\n"
        assert core.take(turned[1]) == b"-ERR down\r\n" * 2 + LOST


# Any split of the server's bytes has the same outcome.

COMMANDS = {
    "get": (GET, [b"$5\r\nvalue\r\n", b"-ERR x\r\n", b"-MASTERDOWN x\r\n", b"*2\r\n:1\r\n-E\r\n"]),
    "set": (SET, [b"+OK\r\n", READONLY, b"-LOADING x\r\n", b"-WRONGTYPE x\r\n"]),
    "piece": (
        MULTI + SET + EXEC,
        [b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", b"+OK\r\n" + READONLY + ABORT],
    ),
}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Step], int, list[int]]:
    """Commands of three clients with the choice of their replies, whether a push comes before
    each, how many are sent, and where the replies are split."""
    kinds = st.sampled_from(sorted(COMMANDS))
    steps = st.tuples(st.integers(0, 2), kinds, st.integers(0, 3), st.booleans())
    plan = draw(st.lists(steps, min_size=1, max_size=24))
    sent = draw(st.integers(1, len(plan)))
    return plan, sent, draw(st.lists(st.integers(1, 60), max_size=40))


def outcome(plan: list[Step], sent: int, pieces: list[int]) -> tuple[list[bytes], bool, bytes]:
    """Play a history: what each client has got, whether the link turned, what is sent again."""
    core = Loopback(table(), follows=True)
    link = core.add_link()
    clients = [core.add_session(link) for _ in range(3)]
    data = b""
    for step, (who, kind, which, push) in enumerate(plan):
        command, replies = COMMANDS[kind]
        core.feed(clients[who], command)
        if step < sent:
            core.link_output(link, LOTS)
            data += PUSH * push + replies[which % len(replies)]
    got, turned = receive_in_pieces(core, link, clients, data, pieces)
    rest = again(core, link)
    core.link_receive(link, b"".join(b"+%d\r\n" % i for i in range(count(rest))))
    got = taken(core, clients, got)
    assert core.link_outstanding(link) == 0
    return got, turned, rest


def split(data: bytes) -> list[bytes]:
    """Replies, each by itself."""
    found = []
    at = 0
    while (end := reply_end(data, at)) is not None:
        found.append(data[at:end])
        at = end
    assert at == len(data)
    return found


@given(histories())
@settings(max_examples=400, deadline=None)
def test_any_split_has_the_same_outcome(
    history: tuple[list[Step], int, list[int]],
) -> None:
    plan, sent, pieces = history
    at_once, turned, rest = outcome(plan, sent, [])
    in_pieces, turned_too, rest_too = outcome(plan, sent, pieces)
    assert (turned_too, rest_too) == (turned, rest)
    if not turned:
        assert in_pieces == at_once
    # On a turned link an answer that came in pieces is not given out: it is uncertain instead.
    for one, other in zip(in_pieces, at_once, strict=True):
        pairs = list(zip(split(one), split(other), strict=True))
        assert all(x in (y, LOST) for x, y in pairs)
