"""Links that are lost, held up or given up: what becomes of each request."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.native.loopback import Loopback
from tests.native.shell import request

from .transcript import EXEC, GET, LOST, LOTS, MULTI, PUBLISH, READONLY, SET

CORE = {"follows": True}


@pytest.fixture
def old(link: int) -> int:
    return link


def replace(core: Loopback, old: int, up: bool = True) -> int:
    """Another link takes the place of this one, which is held up; then this one is lost."""
    new = core.add_link(up=up)
    core.divert(old, new)
    return new


def lose(core: Loopback, old: int, new: int) -> bytes:
    """The replaced link is lost; what is left on it moves. What the other one is given."""
    core.link_lost(old)
    core.link_move(old, new)
    assert core.link_outstanding(old) == 0
    core.close_link(old)
    return core.link_output(new, LOTS)


class TestMove:
    """All that is left goes to the other link; nothing is answered twice, or out of turn."""

    def test_what_may_be_sent_again_is(self, core: Loopback, old: int) -> None:
        ann = core.add_session(old)
        core.feed(ann, SET + GET)
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.feed(ann, PUBLISH)
        assert lose(core, old, new) == GET + PUBLISH
        assert core.link_of(ann) == new
        assert core.take(ann) == LOST
        core.link_receive(new, b"+a\r\n:1\r\n")
        assert core.take(ann) == b"+a\r\n:1\r\n"
        assert core.outstanding(ann) == 0

    def test_it_goes_behind_what_is_there(self, core: Loopback, old: int) -> None:
        ann, bob, cy = (core.add_session(old) for _ in range(3))
        core.feed(ann, SET + GET)
        core.feed(bob, GET)
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.use_shared(cy, new)
        core.feed(cy, GET)
        core.link_output(new, len(GET) + 3)
        core.feed(ann, SET)
        assert lose(core, old, new) == GET[3:] + GET + GET + SET
        core.link_receive(new, b"+bob\r\n+cy\r\n+1\r\n+for nobody\r\n+2\r\n")
        assert core.take(ann) == LOST + b"+1\r\n+2\r\n"
        assert core.take(bob) == b"+bob\r\n"
        assert core.take(cy) == b"+cy\r\n"
        assert core.link_outstanding(new) == 0

    def test_uncertain_ones_keep_their_turn(self, core: Loopback, old: int) -> None:
        ann = core.add_session(old)
        core.feed(ann, GET + SET + GET + SET)
        core.link_output(old, LOTS)
        new = replace(core, old)
        assert lose(core, old, new) == GET + GET
        assert core.take(ann) == b""
        core.link_receive(new, b"+1\r\n")
        assert core.take(ann) == b"+1\r\n" + LOST
        core.link_receive(new, b"+2\r\n")
        assert core.take(ann) == b"+2\r\n" + LOST
        assert core.counters()["uncertain"] == 2

    def test_what_the_server_refused_is_sent_again(self, core: Loopback, old: int) -> None:
        ann, bob = core.add_session(old), core.add_session(old)
        piece = MULTI + SET + EXEC
        core.feed(ann, SET + GET)
        core.feed(bob, piece)
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.link_receive(old, READONLY + b"+a\r\n+OK\r\n" + READONLY)
        core.link_receive(old, b"-EXECABORT Transaction discarded\r\n")
        assert core.turn_over(old)
        assert lose(core, old, new) == SET + GET + piece
        core.link_lost(new)
        core.link_up(new)
        assert core.link_output(new, LOTS) == GET
        assert core.take(ann) == LOST

    def test_onto_a_link_that_is_down(self, core: Loopback, old: int) -> None:
        """Both were lost, the one that stays first: what moves waits for its connection."""
        ann, bob = core.add_session(old), core.add_session(old)
        core.feed(ann, SET + SET)
        core.feed(bob, GET)
        core.link_output(old, len(SET))
        new = replace(core, old)
        core.link_lost(new)
        core.link_lost(old)
        core.link_move(old, new)
        core.link_up(new)
        assert core.link_output(new, LOTS) == GET + SET + GET
        core.link_receive(new, b"+b\r\n+a\r\n+for nobody\r\n")
        assert core.take(ann) == LOST + b"+a\r\n"
        assert core.take(bob) == b"+b\r\n"

    def test_a_refusal_answers_what_has_moved(self, core: Loopback, old: int) -> None:
        ann = core.add_session(old)
        core.feed(ann, GET + SET)
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.link_lost(new)
        core.link_lost(old)
        core.link_move(old, new)
        core.refuse(new, b"-ERR down\r\n")
        assert core.take(ann) == b"-ERR down\r\n" + LOST

    def test_a_client_s_next_commands_follow(self, core: Loopback, old: int) -> None:
        ann = core.add_session(old)
        core.feed(ann, SET)
        new = replace(core, old)
        core.feed(ann, GET + MULTI + SET)
        assert core.stall(ann) == "dedicated"
        assert not core.ready(ann)
        assert lose(core, old, new) == SET + GET
        core.link_receive(new, b"+1\r\n+2\r\n")
        assert core.ready(ann)
        assert core.take(ann) == b"+1\r\n+2\r\n"

    def test_who_was_led_past_is_not_answered_twice(self, core: Loopback, old: int) -> None:
        """Its reads are on the other link since; the old ones go again for nobody."""
        ann, bob = core.add_session(old), core.add_session(old)
        core.feed(ann, SET)
        core.feed(bob, GET)
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.link_output(new, LOTS)
        assert lose(core, old, new) == GET
        core.link_receive(new, b"+b\r\n+again\r\n")
        assert core.take(bob) == b"+b\r\n"
        assert core.outstanding(bob) == 0
        assert core.link_outstanding(new) == 0

    def test_dead_clients_move_and_are_forgotten(self, core: Loopback, old: int) -> None:
        ann, bob, cy = (core.add_session(old) for _ in range(3))
        core.feed(ann, SET + GET)
        core.feed(bob, GET + SET)
        core.feed(cy, SET)
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.drop(ann)
        core.drop(bob)
        assert lose(core, old, new) == GET + GET
        core.link_receive(new, b"+ann\r\n+bob\r\n")
        assert core.take(cy) == LOST
        assert core.link_outstanding(new) == 0

    @pytest.mark.parametrize("there", [0, 10, 15, 16, 17])
    @pytest.mark.parametrize("moved", [1, 16, 17, 200])
    def test_the_ring_grows_as_they_move(
        self, core: Loopback, old: int, there: int, moved: int
    ) -> None:
        ann, bob = core.add_session(old), core.add_session(old)
        core.feed(ann, SET * moved)
        new = replace(core, old)
        core.use_shared(bob, new)
        core.feed(bob, GET * 9)
        core.link_output(new, LOTS)
        core.link_receive(new, b"+x\r\n" * 9)
        core.take(bob)
        core.feed(bob, GET * there)
        assert lose(core, old, new) == GET * there + SET * moved
        core.link_receive(new, b"".join(b":%d\r\n" % i for i in range(there + moved)))
        assert core.take(bob) == b"".join(b":%d\r\n" % i for i in range(there))
        assert core.take(ann) == b"".join(b":%d\r\n" % i for i in range(there, there + moved))

    def test_a_half_delivered_reply_closes_its_client_only(self, core: Loopback, old: int) -> None:
        ann, bob = core.add_session(old), core.add_session(old)
        core.feed(ann, GET)
        core.feed(bob, SET + GET)
        core.link_output(old, LOTS)
        core.link_receive(old, b"$9\r\nabc")
        new = replace(core, old)
        assert lose(core, old, new) == GET
        assert core.must_close(ann)
        assert core.take(ann) == b"$9\r\nabc"
        core.drop(ann)
        core.link_receive(new, b"+b\r\n")
        assert core.take(bob) == LOST + b"+b\r\n"

    def test_replies_made_here_keep_their_turn(self, core: Loopback, old: int) -> None:
        ann, bob, cy = (core.add_session(old) for _ in range(3))
        core.feed(ann, SET + GET)
        core.say_behind(ann, b"+ann\r\n")
        core.feed(bob, SET)
        core.say_behind(bob, b"+bob\r\n")
        core.link_output(old, LOTS)
        new = replace(core, old)
        core.use_shared(cy, new)
        core.feed(cy, GET)
        core.say_behind(cy, b"+cy\r\n")
        assert lose(core, old, new) == GET + GET
        core.link_receive(new, b"+1\r\n")
        assert core.take(cy) == b"+1\r\n+cy\r\n"
        core.link_receive(new, b"+2\r\n")
        assert core.take(ann) == LOST + b"+2\r\n+ann\r\n"
        assert core.take(bob) == LOST + b"+bob\r\n"

    def test_nothing_is_left(self, core: Loopback, old: int) -> None:
        ann = core.add_session(old)
        new = replace(core, old)
        assert lose(core, old, new) == b""
        core.use_shared(ann, new)
        core.feed(ann, GET)
        assert core.link_output(new, LOTS) == GET


class TestLoss:
    """What was never sent, and reads, are sent again; a sent write is not."""

    CORE: ClassVar[dict[str, bool]] = {}

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

    CORE: ClassVar[dict[str, bool]] = {}

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
