"""A session as the receiver of replies, living or gone."""

from __future__ import annotations

from tests.native.loopback import Loopback

from .transcript import GET, LOTS


class TestReceiver:
    """Bytes reach their client as they come, and nobody when it has gone."""

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
