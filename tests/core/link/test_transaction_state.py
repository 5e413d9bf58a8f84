"""What is open on a connection follows the server's replies, not the requests."""

from __future__ import annotations

import pytest

from tests.native.loopback import LinkError, Loopback
from tests.native.shell import request, table

LOTS = 1 << 30
OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
NOPERM = b"-NOPERM User u has no permissions to run this command\r\n"
ARGUMENTS = b"-ERR wrong number of arguments\r\n"
NO_MULTI = b"-ERR EXEC without MULTI\r\n"
ABORT = b"-EXECABORT Transaction discarded because of: NOPERM no permissions\r\n"
GET, SET, WATCH = request("GET", "k"), request("SET", "k", "v"), request("WATCH", "k")
MULTI, EXEC, DISCARD = request("MULTI"), request("EXEC"), request("DISCARD")
UNWATCH, SUBSCRIBE = request("UNWATCH"), request("SUBSCRIBE", "c")
WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n100\r\n"

# What is sent, what the server says, and whether something is still open on the connection.
DIALOGUES = [
    ([("WATCH k", OK)], True),
    ([("WATCH k", NOPERM)], False),
    ([("WATCH", ARGUMENTS)], False),
    ([("WATCH k", OK), ("UNWATCH", OK)], False),
    ([("WATCH k", OK), ("UNWATCH x", ARGUMENTS)], True),
    ([("WATCH k", OK), ("UNWATCH", NOPERM)], True),
    ([("WATCH k", OK), ("EXEC", NO_MULTI)], True),
    ([("WATCH k", OK), ("EXEC", ABORT)], False),
    ([("WATCH k", OK), ("EXEC x", ABORT)], False),
    ([("WATCH k", OK), ("DISCARD", b"-ERR DISCARD without MULTI\r\n")], True),
    ([("WATCH k", OK), ("MULTI", NOPERM)], True),
    ([("MULTI", NOPERM)], False),
    ([("MULTI x", ARGUMENTS), ("MULTI", OK)], True),
    ([("MULTI", OK), ("EXEC", b"*0\r\n")], False),
    ([("MULTI", OK), ("EXEC", b"*-1\r\n")], False),
    ([("MULTI", OK), ("EXEC", b"_\r\n")], False),
    ([("MULTI", OK), ("EXEC", ABORT)], False),
    ([("MULTI", OK), ("EXEC x", ABORT)], False),
    ([("MULTI", OK), ("EXEC", b"-MOVED 1 127.0.0.1:1\r\n")], False),
    ([("MULTI", OK), ("EXEC", b"-CLUSTERDOWN The cluster is down\r\n")], False),
    ([("MULTI", OK), ("EXEC", NOPERM)], True),
    ([("MULTI", OK), ("DISCARD", OK)], False),
    ([("MULTI", OK), ("DISCARD", NOPERM)], True),
    ([("MULTI", OK), ("DISCARD x", ARGUMENTS)], True),
    ([("MULTI", OK), ("UNWATCH", QUEUED)], True),
    ([("MULTI", OK), ("WATCH k", b"-ERR WATCH inside MULTI is not allowed\r\n")], True),
    ([("MULTI", OK), ("MULTI", b"-ERR MULTI calls can not be nested\r\n"), ("EXEC", ABORT)], False),
    ([("WATCH k", OK), ("MULTI", OK), ("UNWATCH", QUEUED), ("EXEC", b"*1\r\n+OK\r\n")], False),
    ([("WATCH k", OK), ("MULTI", OK), ("DISCARD", OK)], False),
]  # fmt: skip


def in_steps(core: Loopback, link: int, data: bytes, step: int) -> None:
    """The server's bytes arrive in pieces."""
    for at in range(0, len(data), step):
        core.link_receive(link, data[at : at + step])


class Own:
    """A session with a link of its own, given for what it sends first."""

    def __init__(self, first: bytes, **settings: int) -> None:
        self.core = Loopback(table(), **settings)
        self.shared = self.core.add_link()
        self.session = self.core.add_session(self.shared)
        self.core.feed(self.session, first)
        self.link = self.core.add_link(shared=False)
        self.core.use_dedicated(self.session, self.link)
        self.core.resume(self.session)

    def sent(self) -> bytes:
        """What the server has been sent since the last call."""
        self.core.seal(self.link)
        return self.core.link_output(self.link, LOTS)


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("dialogue", "still_open"), DIALOGUES)
def test_dialogues(
    dialogue: list[tuple[str, bytes]], still_open: bool, at_once: bool, step: int
) -> None:
    """A link is given back only when nothing is open on it, however its replies are split."""
    turns = [(request(*line.split()), reply) for line, reply in dialogue]
    if at_once:
        turns = [(b"".join(data for data, _ in turns), b"".join(reply for _, reply in turns))]
    own = Own(request("BLPOP", "other", "0"))
    own.sent()
    own.core.link_receive(own.link, b"*-1\r\n")
    for data, reply in turns:
        own.core.feed(own.session, data)
        assert own.sent() == data
        in_steps(own.core, own.link, reply, step)
    assert own.core.may_give_back(own.session) is not still_open
    own.core.feed(own.session, SUBSCRIBE)
    assert (own.core.mode(own.session) == "pinned") is still_open


def test_a_state_that_is_not_known_taints_the_link() -> None:
    own = Own(WATCH + MULTI + EXEC)
    own.sent()
    own.core.link_receive(own.link, OK * 2 + b"-ERR something else\r\n")
    assert own.core.tainted(own.link)
    assert not own.core.may_give_back(own.session)


class TestSharedLink:
    """A transaction is there as one piece, and the reply to its EXEC proves that it is over."""

    def core(self) -> tuple[Loopback, int, int, int]:
        """A link, and two sessions on it."""
        core = Loopback(table())
        link = core.add_link()
        return core, link, core.add_session(link), core.add_session(link)

    @pytest.mark.parametrize("reply", [b"*1\r\n+OK\r\n", b"*-1\r\n", b"_\r\n", ABORT])
    def test_proof(self, reply: bytes) -> None:
        core, link, ann, bob = self.core()
        core.feed(ann, MULTI + SET + EXEC)
        core.feed(bob, SET)
        core.link_output(link, LOTS)
        core.link_receive(link, OK + QUEUED + reply + OK)
        assert core.take(ann) == OK + QUEUED + reply
        assert core.take(bob) == OK

    def test_a_multi_that_is_refused(self) -> None:
        core, link, ann, bob = self.core()
        core.feed(ann, MULTI + SET + EXEC)
        core.feed(bob, SET)
        core.link_output(link, LOTS)
        core.link_receive(link, NOPERM + OK + NO_MULTI + OK)
        assert core.take(ann) == NOPERM + OK + NO_MULTI
        assert core.take(bob) == OK

    @pytest.mark.parametrize("step", [1, 3, 1 << 20])
    @pytest.mark.parametrize("reply", [NOPERM, NO_MULTI, b"-ERR something else\r\n"])
    def test_without_proof_nothing_behind_it_is_given_out(self, reply: bytes, step: int) -> None:
        """It may have been queued: `+QUEUED` is no reply to anybody's SET."""
        core, link, ann, bob = self.core()
        core.feed(ann, MULTI + SET + EXEC)
        core.feed(bob, SET + GET)
        core.link_output(link, LOTS)
        data = OK + QUEUED + reply + QUEUED * 2
        with pytest.raises(LinkError):
            in_steps(core, link, data, step)
        assert core.take(ann) == OK + QUEUED + reply
        assert core.take(bob) == b""
        core.link_lost(link)
        assert core.take(bob).startswith(b"-UNCERTAIN ")
        core.link_up(link)
        assert core.link_output(link, LOTS) == GET

    def test_a_discard_is_not_on_it(self) -> None:
        core, link, ann, _ = self.core()
        core.feed(ann, MULTI + SET + DISCARD)
        assert core.stall(ann) == "dedicated"
        assert core.link_output(link, LOTS) == b""


class TestAcknowledged:
    """Writes that replicas are to have, where MULTI, EXEC or DISCARD was refused."""

    def test_multi_refused_on_a_link_of_its_own(self) -> None:
        """What follows is executed at once: its reply waits for a WAIT of its own."""
        own = Own(MULTI + SET, acks=1)
        assert own.sent() == MULTI + SET
        own.core.link_receive(own.link, NOPERM + OK)
        assert own.core.take(own.session) == NOPERM
        assert own.sent() == WAIT
        own.core.link_receive(own.link, b":1\r\n")
        assert own.core.take(own.session) == OK
        assert own.core.may_give_back(own.session)

    def test_multi_refused_on_the_shared_link(self) -> None:
        core = Loopback(table(), acks=1)
        link = core.add_link()
        ann = core.add_session(link)
        core.feed(ann, MULTI + SET + EXEC)
        core.seal(link)
        assert core.link_output(link, LOTS) == MULTI + SET + EXEC + WAIT
        core.link_receive(link, NOPERM + OK + NO_MULTI)
        assert core.take(ann) == NOPERM
        core.link_receive(link, b":1\r\n")
        assert core.take(ann) == OK + NO_MULTI

    def test_no_wait_goes_into_a_transaction_that_discard_has_not_ended(self) -> None:
        own = Own(MULTI + DISCARD + SET, acks=1)
        assert own.sent() == MULTI + DISCARD
        assert own.core.stall(own.session) == "replies"
        own.core.link_receive(own.link, OK + NOPERM)
        assert own.core.ready(own.session)
        own.core.resume(own.session)
        assert own.sent() == SET
        own.core.link_receive(own.link, QUEUED)
        assert own.core.take(own.session) == OK + NOPERM + QUEUED
        own.core.feed(own.session, EXEC)
        assert own.sent() == EXEC + WAIT

    def test_exec_with_arguments_ends_it(self) -> None:
        own = Own(MULTI + request("EXEC", "x") + SET, acks=1)
        assert own.sent() == MULTI + request("EXEC", "x") + SET + WAIT
        own.core.link_receive(own.link, OK + ABORT + OK + b":1\r\n")
        assert own.core.take(own.session) == OK + ABORT + OK
        assert own.core.may_give_back(own.session)
