"""The queue of a link: requests beyond its first ring, and replies made here in their turn."""

from __future__ import annotations

from tests.native.loopback import Loopback

from .transcript import GET, LOST, LOTS, SET


def test_more_requests_than_the_first_ring_holds(core: Loopback, link: int) -> None:
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
