"""Links: whose a reply is, and what a lost link means for each request on it."""

from __future__ import annotations

import pytest

from tests.native.loopback import LinkError, Loopback
from tests.native.shell import request, table

from .transcript import EXEC, GET, LOST, LOTS, MULTI, SET


@pytest.fixture
def core() -> Loopback:
    return Loopback(table())


@pytest.fixture
def link(core: Loopback) -> int:
    return core.add_link()


class TestReplies:
    """A reply goes to the client whose request it answers."""

    def test_two_clients(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, GET)
        core.feed(bob, SET)
        core.feed(ann, SET)
        assert core.link_output(link, LOTS) == GET + SET + SET
        core.link_receive(link, b"$1\r\na\r\n+b\r\n+c\r\n")
        assert core.take(ann) == b"$1\r\na\r\n+c\r\n"
        assert core.take(bob) == b"+b\r\n"

    def test_parts_are_passed_on_as_they_come(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET)
        core.link_output(link, LOTS)
        core.link_receive(link, b"$10\r\n012")
        assert core.take(ann) == b"$10\r\n012"
        core.link_receive(link, b"3456789\r\n")
        assert core.take(ann) == b"3456789\r\n"
        assert core.outstanding(ann) == 0

    def test_replies_of_a_dead_client_are_dropped(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, GET + GET)
        core.feed(bob, GET)
        core.link_output(link, LOTS)
        core.link_receive(link, b"$3\r\na")
        core.drop(ann)
        core.link_receive(link, b"aa\r\n$1\r\na\r\n$1\r\nb\r\n")
        assert core.take(bob) == b"$1\r\nb\r\n"
        assert core.link_outstanding(link) == 0

    def test_a_push_is_dropped(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + GET)
        core.link_output(link, LOTS)
        core.link_receive(link, b"+a\r\n>1\r\n+pu")
        core.link_receive(link, b"sh\r\n+b\r\n")
        assert core.take(ann) == b"+a\r\n+b\r\n"

    @pytest.mark.parametrize("data", [b"+nobody asked\r\n", b"junk", b"$1"])
    def test_what_nobody_asked_for_ends_the_link(
        self, core: Loopback, link: int, data: bytes
    ) -> None:
        with pytest.raises(LinkError):
            core.link_receive(link, data)

    def test_an_answer_to_what_was_not_sent_ends_the_link(self, core: Loopback, link: int) -> None:
        core.feed(core.add_session(link), GET)
        with pytest.raises(LinkError):
            core.link_receive(link, b"-ERR max number of clients reached\r\n")

    def test_a_request_nobody_waits_for(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.ask_first(link, request("PING"))
        core.feed(ann, GET)
        assert core.link_output(link, LOTS) == request("PING") + GET
        core.link_receive(link, b"+PONG\r\n+a\r\n")
        assert core.take(ann) == b"+a\r\n"

    def test_more_requests_than_the_first_ring_holds(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        for turn in range(5):
            core.feed(ann, GET * (7 + turn))
            core.link_output(link, LOTS)
            core.link_receive(link, b"+x\r\n" * (7 + turn))
        core.feed(ann, GET * 500)
        assert core.outstanding(ann) == 500
        core.link_output(link, LOTS)
        core.take(ann)
        core.link_receive(link, b"".join(b":%d\r\n" % i for i in range(500)))
        assert core.take(ann) == b"".join(b":%d\r\n" % i for i in range(500))


class TestRepliesMadeHere:
    """A reply that needs no server waits behind those that its client still waits for."""

    def test_in_its_turn(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.say_behind(ann, b"+here\r\n")
        assert core.take(ann) == b"+here\r\n"
        core.feed(ann, GET)
        core.say_behind(ann, b"+1\r\n")
        core.say_behind(ann, b"+2\r\n")
        core.feed(bob, GET)
        core.feed(ann, GET)
        assert core.link_output(link, LOTS) == GET * 3
        assert core.take(ann) == b""
        core.link_receive(link, b"$1\r\na")
        assert core.take(ann) == b"$1\r\na"
        core.link_receive(link, b"\r\n+b\r\n+c\r\n")
        assert core.take(ann) == b"\r\n+1\r\n+2\r\n+c\r\n"
        assert core.take(bob) == b"+b\r\n"

    def test_what_it_waits_for_is_lost(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET + GET)
        core.say_behind(ann, b"+here\r\n")
        core.feed(ann, SET)
        core.link_output(link, LOTS)
        core.link_lost(link)
        assert core.take(ann) == LOST
        core.link_up(link)
        assert core.link_output(link, LOTS) == GET
        core.link_receive(link, b"+a\r\n")
        assert core.take(ann) == b"+a\r\n+here\r\n" + LOST
        assert core.counters()["uncertain"] == 2

    def test_the_link_is_given_up(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET)
        core.say_behind(ann, b"+here\r\n")
        core.link_lost(link)
        core.refuse(link, b"-ERR down\r\n")
        assert core.take(ann) == b"-ERR down\r\n+here\r\n"

    def test_its_client_goes(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, GET)
        core.say_behind(ann, b"+ann\r\n")
        core.feed(bob, GET)
        core.say_behind(bob, b"+bob\r\n")
        core.drop(ann)
        core.link_output(link, LOTS)
        core.link_receive(link, b"+a\r\n+b\r\n")
        assert core.take(bob) == b"+b\r\n+bob\r\n"
        assert core.link_outstanding(link) == 0

    def test_who_waits_with_one_is_not_led_past(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET)
        core.say_behind(ann, b"+here\r\n")
        core.link_output(link, LOTS)
        other = core.add_link()
        core.divert(link, other)
        assert core.link_output(other, LOTS) == b""
        core.link_receive(link, b"+a\r\n")
        assert core.take(ann) == b"+a\r\n+here\r\n"


class TestLoss:
    """What was never sent, and reads, are sent again; a sent write is not."""

    def lose(self, core: Loopback, link: int, sent: int) -> bytes:
        """Send so many bytes, lose the connection, and give what is sent on the next."""
        core.link_output(link, sent)
        core.link_lost(link)
        core.link_up(link)
        return core.link_output(link, LOTS)

    def test_a_sent_read_is_sent_again(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET)
        assert self.lose(core, link, LOTS) == GET
        core.link_receive(link, b"+a\r\n")
        assert core.take(ann) == b"+a\r\n"

    def test_a_sent_write_is_uncertain(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        assert self.lose(core, link, LOTS) == b""
        assert core.take(ann) == LOST
        assert core.counters()["uncertain"] == 1

    @pytest.mark.parametrize("sent", [0, 1])
    def test_one_byte_is_enough_to_be_sent(self, core: Loopback, link: int, sent: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, SET)
        assert self.lose(core, link, sent) == (b"" if sent else SET)
        assert core.take(ann) == (LOST if sent else b"")

    @pytest.mark.parametrize("name", ["PUBLISH", "EVAL", "INCR"])
    def test_what_is_not_flagged_readonly_is_a_write(
        self, core: Loopback, link: int, name: str
    ) -> None:
        core.feed(core.add_session(link), request(name, "a", "0"))
        assert self.lose(core, link, LOTS) == b""

    def test_the_error_waits_for_its_turn(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + SET + GET)
        assert self.lose(core, link, LOTS) == GET + GET
        assert core.take(ann) == b""
        core.link_receive(link, b"+1\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST
        core.link_receive(link, b"+2\r\n")
        assert core.take(ann) == b"+2\r\n"

    def test_two_losses_count_a_write_once(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + SET + GET)
        assert self.lose(core, link, LOTS) == GET + GET
        assert self.lose(core, link, LOTS) == GET + GET
        core.link_receive(link, b"+1\r\n+2\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST + b"+2\r\n"
        assert core.counters()["uncertain"] == 1

    @pytest.mark.parametrize("write", [GET, SET])
    def test_a_half_delivered_reply_is_not_mended(
        self, core: Loopback, link: int, write: bytes
    ) -> None:
        ann = core.add_session(link)
        core.feed(ann, write + GET)
        core.link_output(link, LOTS)
        core.link_receive(link, b"$200\r\nabc")
        core.link_lost(link)
        assert core.must_close(ann)
        assert core.take(ann) == b"$200\r\nabc"

    def test_a_block_is_judged_as_one(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        block = request("MULTI") + GET + GET + request("EXEC")
        core.feed(ann, block)
        assert self.lose(core, link, len(request("MULTI"))) == b""
        assert core.take(ann) == LOST * 4
        core.feed(ann, GET + block)
        assert self.lose(core, link, len(GET)) == GET + block

    @pytest.mark.parametrize("sent", [0, 1, len(SET) - 1, len(SET), len(SET + EXEC)])
    @pytest.mark.parametrize("replies", [[b"+OK\r\n"], [b"+OK\r\n", b"+QUEUED\r\n"]])
    def test_a_block_whose_beginning_was_answered(
        self, core: Loopback, link: int, sent: int, replies: list[bytes]
    ) -> None:
        """Its rest is worth nothing without it, whether it was sent or not."""
        ann = core.add_session(link)
        core.feed(ann, MULTI + SET + EXEC + SET)
        core.link_output(link, len(MULTI) + max(sent, len(SET) * (len(replies) - 1)))
        core.link_receive(link, b"".join(replies))
        assert core.take(ann) == b"".join(replies)
        assert self.lose(core, link, 0) == SET
        assert core.take(ann) == LOST * (3 - len(replies))

    def test_a_refusal_answers_all(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + SET + GET)
        core.link_output(link, LOTS)
        core.link_lost(link)
        core.refuse(link, b"-ERR down\r\n")
        assert core.take(ann) == b"-ERR down\r\n" + LOST + b"-ERR down\r\n"
        core.feed(ann, SET)
        assert core.take(ann) == b"-ERR down\r\n"
        assert core.link_outstanding(link) == 0

    def test_without_resending_all_is_uncertain(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + SET)
        core.link_lost(link, False)
        assert core.take(ann) == LOST * 2

    def test_a_dead_client_s_reads_go_again_without_harm(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET + GET)
        core.feed(bob, GET)
        core.link_output(link, LOTS)
        core.drop(ann)
        core.link_lost(link)
        core.link_up(link)
        assert core.link_output(link, LOTS) == GET + GET
        core.link_receive(link, b"+ann\r\n+bob\r\n")
        assert core.take(bob) == b"+bob\r\n"


class TestDivert:
    """A link that is held up: who waits for reads only goes on elsewhere."""

    def test_readers_move_and_writers_stay(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(ann, SET + GET)
        core.feed(bob, GET)
        core.link_output(link, LOTS)
        other = core.add_link()
        core.divert(link, other)
        assert core.link_output(other, LOTS) == GET
        core.link_receive(other, b"+new\r\n")
        core.link_receive(link, b"+1\r\n+2\r\n+old\r\n")
        assert core.take(ann) == b"+1\r\n+2\r\n"
        assert core.take(bob) == b"+new\r\n"
        assert core.outstanding(bob) == 0

    def test_who_has_nothing_under_way_asks_for_a_link(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.divert(link, core.add_link())
        core.feed(ann, GET)
        assert core.stall(ann) == "link"
