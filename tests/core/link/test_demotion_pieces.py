"""Demoted links: a MULTI ... EXEC piece is sent again as a whole, or not at all."""

from __future__ import annotations

import pytest

from tests.native.loopback import Loopback

from .transcript import (
    ABORT,
    DISCARD,
    EXEC,
    GET,
    LOADING,
    LOST,
    MULTI,
    READONLY,
    SET,
    again,
    answered,
    cuts,
    send,
)

CORE = {"follows": True}


class TestTransactions:
    """A MULTI ... EXEC piece is kept as a whole, or not at all."""

    PIECE = MULTI + SET + GET + EXEC
    ABORTED = b"+OK\r\n" + READONLY + b"+QUEUED\r\n" + ABORT

    def replies(self) -> list[bytes]:
        """What a replica says to MULTI, to SET and to GET."""
        return [b"+OK\r\n", READONLY, b"+QUEUED\r\n"]

    def test_one_that_begins_after_the_turn_is_kept(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        data = READONLY + self.ABORTED
        for cut in cuts(data):
            send(core, link, (ann, SET), (bob, self.PIECE))
            core.link_receive(link, data[:cut])
            core.link_receive(link, data[cut:])
            assert core.turn_over(link)
            assert core.take(bob) == b""
            assert again(core, link) == SET + self.PIECE
            core.link_receive(link, b"+1\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$-1\r\n")
            assert core.take(ann) == b"+1\r\n"
            assert core.take(bob) == b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$-1\r\n"

    def test_one_in_which_it_would_turn_is_passed_through(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        for cut in cuts(self.ABORTED):
            send(core, link, (ann, self.PIECE))
            core.link_receive(link, self.ABORTED[:cut])
            core.link_receive(link, self.ABORTED[cut:])
            assert not core.demoted(link)
            assert core.take(ann) == self.ABORTED
        send(core, link, (ann, self.PIECE + SET))
        core.link_receive(link, self.ABORTED + READONLY)
        assert core.turn_over(link)
        assert core.take(ann) == self.ABORTED
        assert again(core, link) == SET

    def test_what_was_kept_may_not_be_kept_twice(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, self.PIECE))
        core.link_receive(link, READONLY + self.ABORTED)
        assert again(core, link) == SET + self.PIECE
        assert again(core, link) == b""
        assert core.take(ann) == LOST
        assert core.take(bob) == LOST * 4

    @pytest.mark.parametrize("last", [b"*2\r\n+OK\r\n$-1\r\n", b"*-1\r\n", b"-ERR other\r\n"])
    def test_one_that_may_have_been_executed_is_uncertain(
        self, core: Loopback, link: int, last: bytes
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, self.PIECE + GET))
        core.link_receive(link, READONLY + b"+OK\r\n+QUEUED\r\n+QUEUED\r\n" + last + b"+a\r\n")
        assert core.turn_over(link)
        assert core.take(bob) == b""
        assert again(core, link) == SET + GET
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(bob) == LOST * 4 + b"+2\r\n"

    def test_only_its_end_tells(self, core: Loopback, link: int) -> None:
        """Refused in the middle, and the end has not come: it is not known what it would say."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, self.PIECE))
        core.link_receive(link, READONLY + b"+OK\r\n" + READONLY + b"+QUEUED\r\n")
        assert not core.turn_over(link)
        assert answered(core, link, SET)
        assert core.take(bob) == LOST * 4

    def test_multi_was_refused_and_the_rest_was_not(self, core: Loopback, link: int) -> None:
        """Then SET was executed by itself: the piece may not be sent again."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, MULTI + SET + EXEC))
        core.link_receive(link, LOADING * 2 + b"+OK\r\n-ERR EXEC without MULTI\r\n")
        assert answered(core, link, SET)
        assert core.take(bob) == LOST * 3

    def test_a_piece_refused_from_end_to_end(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, MULTI + SET + EXEC))
        core.link_receive(link, LOADING * 4)
        assert again(core, link) == SET + MULTI + SET + EXEC

    def test_a_discarded_one_is_not_on_the_shared_link(self, core: Loopback, link: int) -> None:
        """Nothing would prove that the transaction is over: DISCARD may be refused."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, MULTI + SET + DISCARD))
        assert core.stall(bob) == "dedicated"
        core.link_receive(link, READONLY)
        assert core.turn_over(link)
        assert answered(core, link, SET)
        assert core.take(bob) == b""

    def test_piece_after_piece(self, core: Loopback, link: int) -> None:
        """The end of one says nothing about the one before it."""
        ann, bob = core.add_session(link), core.add_session(link)
        reads = MULTI + GET + EXEC
        send(core, link, (ann, SET), (bob, reads + self.PIECE + self.PIECE))
        done = b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n"
        core.link_receive(link, READONLY + done + self.ABORTED * 2)
        assert core.turn_over(link)
        assert again(core, link) == SET + self.PIECE * 2
        core.link_receive(link, b"+1\r\n" + done)
        assert core.take(bob) == LOST * 3 + done

    def test_one_that_was_not_sent_is_sent(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET))
        core.feed(bob, self.PIECE)
        core.link_receive(link, READONLY)
        assert core.turn_over(link)
        assert again(core, link) == SET + self.PIECE

    @pytest.mark.parametrize("part", [1, len(MULTI), len(MULTI + SET), len(PIECE) - 1])
    def test_one_that_was_sent_in_part_is_uncertain(
        self, core: Loopback, link: int, part: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET)
        core.feed(bob, self.PIECE)
        core.link_output(link, len(SET) + part)
        core.link_receive(link, READONLY)
        for end, reply in zip((MULTI, MULTI + SET, MULTI + SET + GET), self.replies(), strict=True):
            if part >= len(end):
                assert not core.turn_over(link)
                core.link_receive(link, reply)
        assert core.turn_over(link)
        assert answered(core, link, SET)
        assert core.take(bob) == LOST * 4
