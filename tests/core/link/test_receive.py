"""Splitting what the server sends: whose a reply is, and what ends the link."""

from __future__ import annotations

import pytest

from tests.native.loopback import LinkError, Loopback
from tests.native.shell import request

from .transcript import GET, LOTS, SET


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
