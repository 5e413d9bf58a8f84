"""Links that follow a master: which replies of a server demote a link.

The transcripts go by the same steps: requests are sent, the server's replies arrive until the link
is over (`turn_over`), the connection is dropped, and the next one is given what is left.
"""

from __future__ import annotations

import pytest

from tests.native.loopback import LinkError, Loopback
from tests.native.shell import request, table

from .transcript import (
    ABORT,
    GET,
    LOST,
    LOTS,
    PUBLISH,
    PUSH,
    READONLY,
    REFUSALS,
    SET,
    again,
    cuts,
    send,
)

CORE = {"follows": True}


class TestTurning:
    """Which replies turn a link."""

    @pytest.mark.parametrize("refusal", REFUSALS)
    @pytest.mark.parametrize("command", [GET, SET, PUBLISH])
    def test_a_refused_command_is_sent_again(
        self, core: Loopback, link: int, refusal: bytes, command: bytes
    ) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, command))
        core.link_receive(link, refusal)
        assert core.demoted(link)
        assert core.turn_over(link)
        assert core.take(ann) == b""
        assert again(core, link) == command
        assert not core.demoted(link)
        core.link_receive(link, b"+OK\r\n")
        assert core.take(ann) == b"+OK\r\n"
        assert core.counters()["uncertain"] == 0

    @pytest.mark.parametrize(
        "reply",
        [
            b"-READONLY\r\n",
            b"-READONLYISH no\r\n",
            b"-readonly no\r\n",
            b"-LOADIN g\r\n",
            b"-MASTERDOWN\r\n",
            b"-ERR READONLY \r\n",
            b"+READONLY x\r\n",
            b"$12\r\n-READONLY x\n\r\n",
            b"*2\r\n-READONLY x\r\n:1\r\n",
            ABORT,
            b"!11\r\nREADONLY x \r\n",
            b"-\r\n",
        ],
    )
    def test_what_only_looks_like_it_is_an_answer(
        self, core: Loopback, link: int, reply: bytes
    ) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET))
        core.link_receive(link, reply)
        assert not core.demoted(link)
        assert core.take(ann) == reply

    def test_a_link_that_follows_nobody_passes_it_on(self) -> None:
        core = Loopback(table())
        link = core.add_link()
        ann = core.add_session(link)
        send(core, link, (ann, SET))
        core.link_receive(link, READONLY)
        assert core.take(ann) == READONLY
        assert not core.demoted(link)

    def test_a_link_of_its_own_passes_it_on(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, request("BLPOP", "k", "0"))
        own = core.add_link(shared=False)
        core.use_dedicated(ann, own)
        core.resume(ann)
        core.link_output(own, LOTS)
        core.link_receive(own, READONLY[:5])
        assert core.take(ann) == READONLY[:5]
        core.link_receive(own, READONLY[5:])
        assert core.take(ann) == READONLY[5:]
        assert not core.demoted(own)

    def test_replies_before_it_are_given_out(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, GET), (bob, SET), (ann, SET + SET))
        core.link_receive(link, b"$1\r\na\r\n+b\r\n+c\r\n" + READONLY)
        assert core.take(ann) == b"$1\r\na\r\n+c\r\n"
        assert core.take(bob) == b"+b\r\n"
        assert again(core, link) == SET

    def test_a_dead_client_s_command_turns_it_too(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, SET))
        core.drop(ann)
        core.link_receive(link, READONLY + READONLY)
        assert core.turn_over(link)
        assert again(core, link) == SET + SET
        core.link_receive(link, b"+ann\r\n+bob\r\n")
        assert core.take(bob) == b"+bob\r\n"
        assert core.link_outstanding(link) == 0


class TestLines:
    """An error line that has come in part: nobody gets a byte before it is known what it says."""

    @pytest.mark.parametrize("refusal", REFUSALS)
    def test_a_refusal_cut_anywhere(self, refusal: bytes) -> None:
        for cut in cuts(refusal):
            core = Loopback(table(), follows=True)
            link = core.add_link()
            ann = core.add_session(link)
            send(core, link, (ann, GET + SET))
            core.link_receive(link, b"+a\r\n" + refusal[:cut])
            assert not core.demoted(link)
            assert core.take(ann) == b"+a\r\n"
            core.link_receive(link, refusal[cut:])
            assert core.turn_over(link)
            assert core.take(ann) == b""
            assert again(core, link) == SET

    def test_a_refusal_byte_by_byte(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET))
        for i in range(len(READONLY)):
            assert not core.demoted(link)
            core.link_receive(link, READONLY[i : i + 1])
        assert core.turn_over(link)

    def test_another_error_cut_anywhere(self, core: Loopback, link: int) -> None:
        error = b"-READONLY? no, -WRONGTYPE\r\n"
        ann = core.add_session(link)
        for cut in cuts(error):
            send(core, link, (ann, SET + GET))
            core.link_receive(link, error[:cut])
            # Once the first word is known, a line that may be long is not kept back.
            early = core.take(ann)
            assert early == (error[:cut] if cut > len(b"-MASTERDOWN ") else b"")
            core.link_receive(link, error[cut:] + b"+a")
            assert early + core.take(ann) == error + b"+a"
            core.link_receive(link, b"\r\n")
            assert core.take(ann) == b"\r\n"

    def test_what_follows_the_line_in_the_same_bytes(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, GET), (ann, GET))
        core.link_receive(link, b"-ERR ")
        core.link_receive(link, b"x\r\n$1\r\nb\r\n$1\r\na\r\n")
        assert core.take(ann) == b"-ERR x\r\n$1\r\na\r\n"
        assert core.take(bob) == b"$1\r\nb\r\n"

    @pytest.mark.parametrize("third", [b"z\r\n", b"z\r\n+more\r\n"])
    def test_line_after_line(self, core: Loopback, link: int, third: bytes) -> None:
        """A line taken up ends, and the next one has come in part with the same bytes."""
        ann, bob, cy = (core.add_session(link) for _ in range(3))
        send(core, link, (ann, SET), (bob, SET), (cy, SET + GET))
        core.link_receive(link, b"-ERR one ")
        core.link_receive(link, b"x\r\n-ERR two y\r\n-ERR three ")
        assert core.take(ann) == b"-ERR one x\r\n"
        assert core.take(bob) == b"-ERR two y\r\n"
        assert core.take(cy) == b""
        core.link_receive(link, third)
        assert core.take(cy) == b"-ERR three " + third

    def test_line_after_line_of_one_client(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        send(core, link, (ann, SET * 4))
        core.link_receive(link, b"-ERR one ")
        core.link_receive(link, b"x\r\n+two\r\n-ERR three ")
        assert core.take(ann) == b"-ERR one x\r\n+two\r\n"
        core.link_receive(link, b"y\r\n-READONLY ")
        assert core.take(ann) == b"-ERR three y\r\n"
        core.link_receive(link, b"z\r\n")
        assert core.turn_over(link)
        assert core.take(ann) == b""

    def test_a_long_line_in_many_parts(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        line = b"-ERR " + b"x" * 70000 + b"\r\n"
        send(core, link, (ann, SET), (bob, GET))
        for at in range(0, len(line), 9999):
            core.link_receive(link, line[at : at + 9999])
        core.link_receive(link, b"+b\r\n")
        assert core.take(ann) == line
        assert core.take(bob) == b"+b\r\n"

    def test_a_push_before_and_behind(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        data = PUSH + b"-ERR a\r\n" + PUSH + PUSH + READONLY + PUSH
        for cut in cuts(data):
            send(core, link, (ann, SET + SET))
            core.link_receive(link, data[:cut])
            core.link_receive(link, data[cut:])
            assert core.take(ann) == b"-ERR a\r\n"
            assert core.turn_over(link)
            assert again(core, link) == SET
            core.link_receive(link, b"+OK\r\n")
            assert core.take(ann) == b"+OK\r\n"

    def test_the_connection_is_lost_in_the_line(self, core: Loopback, link: int) -> None:
        """What it would have said is not known: a write is uncertain, a read is sent again."""
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, GET))
        core.link_receive(link, b"-READONLY You can't")
        assert again(core, link) == GET
        assert core.take(ann) == LOST
        core.link_receive(link, b"-ERR x\r\n")
        assert core.take(bob) == b"-ERR x\r\n"
        assert not core.must_close(ann)

    def test_who_waits_for_the_line_goes_away(self, core: Loopback, link: int) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        send(core, link, (ann, SET), (bob, GET))
        core.link_receive(link, b"-ERR ")
        core.drop(ann)
        core.link_receive(link, b"x\r\n+b\r\n")
        assert core.take(bob) == b"+b\r\n"

    @pytest.mark.parametrize("data", [b"-READONLY no", b"-E", READONLY])
    def test_a_line_nobody_asked_for_ends_the_link(
        self, core: Loopback, link: int, data: bytes
    ) -> None:
        core.feed(core.add_session(link), SET)
        with pytest.raises(LinkError):
            core.link_receive(link, data)
