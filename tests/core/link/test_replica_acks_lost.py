"""Writes whose replicas have not answered yet, as the link is lost or demoted."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.native.loopback import WAIT, Loopback
from tests.native.shell import request

from .transcript import (
    ABORT,
    EXEC,
    GET,
    LOST,
    LOTS,
    MULTI,
    NO_WAIT,
    READONLY,
    SET,
    SHORT,
    again,
    flush,
    send,
)

CORE = {"acks": 1}


class TestLoss:
    """Lost before the WAIT was answered: the write's answer is not known to hold."""

    @pytest.mark.parametrize("come", [0, 2, 4, 9, 11, 12])
    def test_a_withheld_write_is_uncertain(self, core: Loopback, link: int, come: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET + GET))
        core.link_receive(link, b"+1\r\n$1\r\na\r\n:"[:come])
        assert again(core, link) == GET
        assert core.take(ann) == LOST
        core.link_receive(link, b"$1\r\nb\r\n")
        assert core.take(ann) == b"$1\r\nb\r\n"
        assert core.counters()["uncertain"] == 1

    def test_what_was_given_out_is_not_lost(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET))
        send(core, link, (bob, SET))
        core.link_receive(link, b"+1\r\n:1\r\n+2\r\n")
        assert again(core, link) == b""
        assert core.take(ann) == b"+1\r\n"
        assert core.take(bob) == LOST

    def test_a_write_that_was_not_sent_gets_its_wait(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, GET))
        core.feed(ann, SET)
        assert again(core, link) == GET + SET + WAIT
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(ann) == b"+1\r\n"
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == b"+2\r\n"

    def test_nor_does_a_wait_that_was_not_sent_go_twice(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        core.seal(link)
        assert again(core, link) == SET + WAIT

    def test_a_wait_that_was_sent_in_part(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        core.seal(link)
        core.link_output(link, len(SET) + 3)
        assert again(core, link) == b""
        assert core.take(ann) == LOST
        core.feed(ann, SET)
        assert flush(core, link) == SET + WAIT

    def test_writes_that_are_all_lost_need_no_wait(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        core.link_output(link, LOTS)
        assert again(core, link) == b""
        core.feed(ann, GET)
        assert flush(core, link) == GET

    def test_a_refusal_of_the_sidecar(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET + GET))
        core.link_receive(link, b"+1\r\n$1\r\na")
        core.link_lost(link)
        core.refuse(link, b"-ERR down\r\n")
        assert core.take(ann) == LOST + b"-ERR down\r\n"
        core.link_up(link)
        core.feed(ann, SET)
        assert flush(core, link) == SET + WAIT
        core.link_receive(link, b"+2\r\n:1\r\n")
        assert core.take(ann) == b"+2\r\n"

    def test_uncertain_ones_between_withheld_ones(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET + SET), (bob, GET))
        assert again(core, link) == GET + GET
        send(core, link, (bob, SET), (ann, SET))
        core.link_receive(link, b"+1\r\n+2\r\n+3\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST
        assert core.take(bob) == b"+2\r\n"
        core.link_receive(link, b"+4\r\n:1\r\n")
        assert core.take(ann) == b"+4\r\n"
        assert core.take(bob) == b"+3\r\n"

    def test_led_past_a_wait_that_takes_long(self, core: Loopback, link: int) -> None:
        """Readers behind somebody's withheld write go on elsewhere, and are answered once."""
        ann, bob, cy = (core.add_session(link) for _ in range(3))
        send(core, link, (ann, SET), (bob, GET), (cy, SET + GET))
        core.link_receive(link, b"+1\r\n$3\r\nold\r\n")
        other = core.add_link()
        core.divert(link, other)
        assert flush(core, other) == GET
        core.link_receive(other, b"$3\r\nnew\r\n")
        assert core.take(bob) == b"$3\r\nnew\r\n"
        core.link_receive(link, b"+2\r\n$1\r\nc\r\n:1\r\n")
        assert core.take(ann) == b"+1\r\n"
        assert core.take(bob) == b""
        assert core.take(cy) == b"+2\r\n$1\r\nc\r\n"
        assert core.link_outstanding(link) == 0


class TestFollowing:
    """Together with a master that changes."""

    CORE: ClassVar[dict[str, int]] = {"acks": 1, "follows": True}

    @pytest.mark.parametrize("cut", range(1, len(READONLY)))
    def test_a_refused_write_is_sent_again_with_a_wait(
        self, core: Loopback, link: int, cut: int
    ) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET))
        core.link_receive(link, READONLY[:cut])
        assert not core.demoted(link)
        core.link_receive(link, READONLY[cut:])
        assert core.demoted(link)
        assert not core.turn_over(link)
        core.link_receive(link, NO_WAIT)
        assert core.turn_over(link)
        assert core.take(ann) == b""
        assert again(core, link) == SET + WAIT
        core.link_receive(link, b"+OK\r\n")
        assert core.take(ann) == b""
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == b"+OK\r\n"
        assert core.counters()["uncertain"] == 0
        assert core.counters()["calls"] == {"set": 1}

    def test_a_wait_that_was_refused_too_goes_once(self, core: Loopback, link: int) -> None:
        send(core, link, (core.add_session(link), SET))
        core.link_receive(link, b"-LOADING x\r\n" * 2)
        assert again(core, link) == SET + WAIT

    def test_a_withheld_write_is_uncertain(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET + GET))
        send(core, link, (bob, SET))
        core.link_receive(link, b"+1\r\n$1\r\na\r\n" + NO_WAIT[:5])
        assert core.take(ann) == b""
        core.link_receive(link, NO_WAIT[5:] + READONLY + NO_WAIT)
        assert core.take(ann) == SHORT + b"$1\r\na\r\n"
        assert core.turn_over(link)
        assert again(core, link) == SET + WAIT

    def test_withheld_when_it_turns(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET + GET), (bob, SET))
        core.link_receive(link, b"+1\r\n$1\r\na\r\n" + READONLY)
        assert not core.turn_over(link)
        core.link_receive(link, NO_WAIT)
        assert core.turn_over(link)
        assert core.take(ann) == b""
        assert again(core, link) == GET + SET + WAIT
        core.link_receive(link, b"$1\r\nb\r\n+2\r\n:1\r\n")
        assert core.take(ann) == LOST + b"$1\r\nb\r\n"
        assert core.take(bob) == b"+2\r\n"

    def test_executed_after_the_turn_but_not_acknowledged(self, core: Loopback, link: int) -> None:
        """It may not be answered as if replicas had it, and the WAIT behind it was not heard."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, SET))
        core.link_receive(link, b"-LOADING x\r\n+OK\r\n")
        assert core.take(bob) == b""
        core.link_receive(link, b":1\r\n")
        assert core.turn_over(link)
        assert again(core, link) == SET + WAIT
        core.link_receive(link, b"+1\r\n:1\r\n")
        assert core.take(ann) == b"+1\r\n"
        assert core.take(bob) == LOST

    def test_what_needs_no_acknowledgement_is_answered_after_the_turn(
        self, core: Loopback, link: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, request("CONFIG", "GET", "x")))
        core.link_receive(link, READONLY + b"*0\r\n")
        assert core.take(bob) == b"*0\r\n"

    def test_a_transaction_after_the_turn(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, MULTI + SET + EXEC))
        core.link_receive(link, READONLY + b"+OK\r\n" + READONLY + ABORT + NO_WAIT)
        assert core.turn_over(link)
        assert again(core, link) == SET + MULTI + SET + EXEC + WAIT
        core.link_receive(link, b"+1\r\n+OK\r\n+QUEUED\r\n*1\r\n+2\r\n")
        assert core.take(bob) == b""
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == b"+1\r\n"
        assert core.take(bob) == b"+OK\r\n+QUEUED\r\n*1\r\n+2\r\n"

    def test_a_transaction_in_which_it_would_turn(self, core: Loopback, link: int) -> None:
        """Passed through as it is: nothing was executed, and nothing says otherwise."""
        ann = core.add_session(link)
        send(core, link, (ann, MULTI + SET + EXEC))
        core.link_receive(link, b"+OK\r\n" + READONLY + ABORT + NO_WAIT)
        assert not core.demoted(link)
        assert core.take(ann) == b"+OK\r\n" + READONLY + ABORT

    def test_a_reader_that_was_led_past_turns_the_old_link(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, GET))
        other = core.add_link()
        core.divert(link, other)
        core.link_receive(link, b"+1\r\n-MASTERDOWN x\r\n" + NO_WAIT)
        assert core.turn_over(link)
        core.link_lost(link)
        core.link_move(link, other)
        assert core.take(ann) == LOST
        assert flush(core, other) == GET * 2

    def test_moved_with_its_wait_to_come(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET))
        other = core.add_link()
        core.divert(link, other)
        core.use_shared(bob, other)
        send(core, other, (bob, GET))
        core.link_receive(link, READONLY + NO_WAIT)
        core.link_lost(link)
        core.link_move(link, other)
        assert flush(core, other) == SET + WAIT
        core.link_receive(other, b"+b\r\n+a\r\n:1\r\n")
        assert core.take(ann) == b"+a\r\n"
        assert core.take(bob) == b"+b\r\n"
