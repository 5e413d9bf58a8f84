"""Sessions: which link each request goes down, and what a session waits for."""

from __future__ import annotations

import pytest

from tests.native.loopback import Loopback
from tests.native.shell import Shell, named, request, table

LOTS = 1 << 30
GET, SET = request("GET", "k"), request("SET", "k", "v")
MULTI, EXEC = request("MULTI"), request("EXEC")


@pytest.fixture
def core() -> Loopback:
    return Loopback(table())


@pytest.fixture
def link(core: Loopback) -> int:
    return core.add_link()


class TestRoutes:
    """What a command asks for on a shared link."""

    @pytest.mark.parametrize(
        ("args", "want"),
        [
            (("GET", "k"), "nothing"),
            (("EXEC",), "nothing"),
            (("UNWATCH",), "nothing"),
            (("MULTI", "x"), "nothing"),
            (("XREAD", "STREAMS", "block", "0"), "nothing"),
            (("XREAD", "block", "0", "STREAMS", "s", "$"), "dedicated"),
            (("XREAD", "block\0x", "0", "STREAMS", "s", "$"), "dedicated"),
            (("XREAD", "blocks", "0", "STREAMS", "s", "$"), "nothing"),
            (("BLPOP", "k", "0"), "dedicated"),
            (("WATCH", "k"), "dedicated"),
            (("MULTI",), "dedicated"),
            (("SUBSCRIBE", "c"), "pin"),
            (("MONITOR",), "pin"),
            (("NOSUCHCOMMAND",), "once"),
            (("DEBUG", "SLEEP", "1"), "once"),
            (("WAIT", "1", "0"), "wait_command"),
            (("SELECT", "1"), "session_command"),
            (("RESET",), "session_command"),
            (("QUIT",), "session_command"),
            (("POST", "/"), "hang_up"),
        ],
    )
    def test_wants(self, core: Loopback, link: int, args: tuple[str, ...], want: str) -> None:
        ann = core.add_session(link)
        core.feed(ann, request(*args))
        assert core.stall(ann) == want
        assert core.link_output(link, LOTS) == (request(*args) if want == "nothing" else b"")

    def test_without_a_link_it_waits_for_one(self, core: Loopback) -> None:
        ann = core.add_session()
        core.feed(ann, GET)
        assert core.stall(ann) == "link"
        link = core.add_link()
        core.use_shared(ann, link)
        core.resume(ann)
        assert core.link_output(link, LOTS) == GET

    def test_a_protocol_error(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + b"*x\r\n")
        assert core.stall(ann) == "protocol_error"
        assert not core.ready(ann)
        core.link_output(link, LOTS)
        core.link_receive(link, b"+a\r\n")
        assert core.ready(ann)
        assert core.error(ann) == b"-ERR Protocol error: invalid multibulk length\r\n"

    def test_inline_becomes_multibulk(self, core: Loopback, link: int) -> None:
        core.feed(core.add_session(link), b"GET k\r\n\r\nSET k 'v'\n")
        assert core.link_output(link, LOTS) == GET + SET

    def test_a_half_sent_request_never_reaches_the_link(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + SET[:-1])
        assert core.link_output(link, LOTS) == GET
        core.drop(ann)
        core.link_receive(link, b"+a\r\n")
        assert core.link_output(link, LOTS) == b""

    def test_a_full_link_makes_it_wait(self) -> None:
        core = Loopback(table(), link_pause=40)
        link = core.add_link()
        ann = core.add_session(link)
        core.feed(ann, GET * 3)
        assert core.stall(ann) == "room"
        core.feed(ann, GET)
        core.link_output(link, LOTS)
        core.resume(ann)
        assert core.link_output(link, LOTS) == GET


class TestOrder:
    """A session moves between links only when nothing is outstanding."""

    def test_a_want_waits_for_the_replies_before_it(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, GET + request("BLPOP", "k", "0") + GET)
        assert core.stall(ann) == "dedicated"
        assert not core.ready(ann)
        core.link_output(link, LOTS)
        core.link_receive(link, b"+a\r\n")
        assert core.ready(ann)
        own = core.add_link(shared=False)
        core.use_dedicated(ann, own)
        core.resume(ann)
        assert core.link_output(own, LOTS) == request("BLPOP", "k", "0") + GET
        core.link_receive(own, b"*-1\r\n")
        assert not core.may_give_back(ann)
        core.link_receive(own, b"+b\r\n")
        assert core.may_give_back(ann)
        assert core.take(ann) == b"+a\r\n*-1\r\n+b\r\n"


class TestTransactions:
    """A block that is whole and ordinary goes down the shared link in one piece."""

    def test_a_whole_block(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, MULTI + SET + EXEC)
        assert core.mode(ann) == "shared"
        assert core.link_output(link, LOTS) == MULTI + SET + EXEC

    @pytest.mark.parametrize("length", range(len(MULTI), len(MULTI + SET + EXEC)))
    def test_a_block_split_anywhere(self, core: Loopback, link: int, length: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, (MULTI + SET + EXEC)[:length])
        assert core.stall(ann) == "dedicated"
        assert core.link_output(link, LOTS) == b""
        assert core.link_outstanding(link) == core.outstanding(ann) == 0

    @pytest.mark.parametrize(
        "inside", [("SELECT", "1"), ("SUBSCRIBE", "c"), ("WATCH", "k"), ("BLPOP", "k", "0")]
    )
    def test_a_block_that_is_not_ordinary(
        self, core: Loopback, link: int, inside: tuple[str, ...]
    ) -> None:
        ann = core.add_session(link)
        core.feed(ann, MULTI + SET + request(*inside) + EXEC)
        assert core.stall(ann) == "dedicated"
        assert core.link_output(link, LOTS) == b""

    @pytest.mark.parametrize("answered", range(17))
    @pytest.mark.parametrize("size", [0, 14, 15, 16, 40])
    def test_taking_a_block_back_leaves_nothing(
        self, core: Loopback, link: int, answered: int, size: int
    ) -> None:
        ann, bob = core.add_session(link), core.add_session(link)
        core.feed(bob, GET * answered)
        core.link_output(link, LOTS)
        core.link_receive(link, b"+x\r\n" * answered)
        core.feed(bob, GET)
        core.feed(ann, MULTI + SET * size)
        assert core.outstanding(ann) == 0
        assert core.link_outstanding(link) == 1
        assert core.link_output(link, LOTS) == GET

    def test_watch_until_exec(self) -> None:
        shell = Shell()
        ann = shell.connect()
        ann.due = [
            (named(*args), False) for args in (["WATCH", "k"], ["MULTI"], ["GET", "k"], ["EXEC"])
        ]
        for data in (request("WATCH", "k"), MULTI, GET):
            shell.send(ann, data)
            shell.drain()
            assert shell.core.mode(ann.session) == "dedicated"
        shell.send(ann, EXEC)
        shell.drain()
        assert shell.core.mode(ann.session) == "shared"
        assert ann.answered == 4


class TestPinned:
    """A pinned session's bytes pass both ways as they are."""

    def pinned(self, core: Loopback, link: int) -> tuple[int, int]:
        """A session on a link of its own for good."""
        ann = core.add_session(link)
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = core.add_link(shared=False)
        core.use_dedicated(ann, own, True)
        core.resume(ann)
        assert core.link_output(own, LOTS) == request("SUBSCRIBE", "c")
        return ann, own

    def test_pushes_reach_it(self, core: Loopback, link: int) -> None:
        ann, own = self.pinned(core, link)
        core.link_receive(own, b">1\r\n+a\r\n*1\r\n:1")
        assert core.take(ann) == b">1\r\n+a\r\n*1\r\n:1"

    def test_own_requests_before_it_are_not_its_own(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = core.add_link(shared=False)
        core.ask_first(own, request("PING"))
        core.use_dedicated(ann, own, True)
        core.resume(ann)
        core.link_receive(own, b"+PO")
        core.link_receive(own, b"NG\r\n*1\r\n:1\r\n")
        assert core.take(ann) == b"*1\r\n:1\r\n"

    def test_pinned_in_a_transaction_after_own_requests(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link)
        core.feed(ann, request("WAIT", "1", "0") + MULTI + request("SUBSCRIBE", "c"))
        own = core.add_link(shared=False)
        core.ask_first(own, request("PUBLISH", "a", "b"))
        core.use_dedicated(ann, own)
        core.resume(ann)
        assert core.mode(ann) == "pinned"
        core.link_receive(own, b":99\r\n:1\r\n+OK\r\n+QUEUED\r\n")
        assert core.take(ann) == b":1\r\n+OK\r\n+QUEUED\r\n"

    @pytest.mark.parametrize(
        ("wrong", "behind", "end"),
        [
            (b"*x\r\n", b"", b"\r\n*1\r\n!\r\n"),
            (b"*1\r\n$4\r\nPINGxx", b"*1\r\n$8\r\nFLUSHALL\r\n", b"*1\r\n!\r\n"),
            (b"*1\rX", b"$8\r\nFLUSHALL\r\n", b"*1\r\n!\r\n"),
            (b"*1\r\n$999999999999\r\n", b"*1\r\n$8\r\nFLUSHALL\r\n", b"*1\r\n!\r\n"),
        ],
    )
    def test_errors_are_the_server_s_to_judge(
        self, core: Loopback, link: int, wrong: bytes, behind: bytes, end: bytes
    ) -> None:
        """And what stands behind them is passed to nobody: no one could say what it is. In its
        place is what every server refuses."""
        ann, own = self.pinned(core, link)
        core.feed(ann, wrong + behind)
        core.feed(ann, b"*1\r\n$4\r\nPING\r\n")
        assert core.stall(ann) == "nothing"
        assert core.link_output(own, LOTS) == wrong + end

    @pytest.mark.parametrize("cut", range(1, 8))
    def test_reset_is_noticed(self, core: Loopback, link: int, cut: int) -> None:
        ann, own = self.pinned(core, link)
        core.link_receive(own, b"*1\r\n+RESET\r\n")
        core.feed(ann, request("RESET"))
        assert core.stall(ann) == "shell"
        core.link_receive(own, b"+RESET\r\n"[:cut])
        assert not core.was_reset(ann)
        core.link_receive(own, b"+RESET\r\n"[cut:])
        assert core.was_reset(ann)

    @pytest.mark.parametrize("size", [1, 2, 30, 100])
    @pytest.mark.parametrize("pinned", [True, False])
    def test_a_target_that_has_gone_is_named_as_the_client_named_it(
        self, core: Loopback, link: int, pinned: bool, size: int
    ) -> None:
        """However the push is cut; other numbers and other pushes stay as they are."""
        if pinned:
            ann, own = self.pinned(core, link)
            core.link_receive(own, b"+OK\r\n")
            core.take(ann)
        else:
            ann = core.add_session(link)
            core.feed(ann, request("WATCH", "k"))
            own = core.add_link(shared=False)
            core.use_dedicated(ann, own)
            core.resume(ann)
            core.link_receive(own, b"+OK\r\n")
            core.take(ann)
        core.redirect(ann, 12, 7_000_000_000)
        broken = b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n"
        other = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
        told = other + broken % 12 + broken % 13 + other
        for at in range(0, len(told), size):
            core.link_receive(own, told[at : at + size])
        assert core.take(ann) == other + broken % 7_000_000_000 + broken % 13 + other


class TestStreaming:
    """Requests too large to keep pass in pieces on a link of their own."""

    LARGE = request("SET", "k", b"x" * 5000)

    def streaming(self) -> tuple[Loopback, int, int]:
        """A session that has sent half of a large request, and its link."""
        core = Loopback(table(), request_buffer=1000)
        ann = core.add_session(core.add_link())
        core.feed(ann, self.LARGE[:2000])
        assert core.stall(ann) == "dedicated"
        own = core.add_link(shared=False)
        core.use_dedicated(ann, own)
        core.resume(ann)
        return core, ann, own

    def test_pieces_pass_as_they_come(self) -> None:
        core, ann, own = self.streaming()
        assert core.link_output(own, LOTS) == self.LARGE[:2000]
        assert core.unread(ann) == 0
        core.feed(ann, self.LARGE[2000:] + GET)
        assert core.link_output(own, LOTS) == self.LARGE[2000:] + GET
        core.link_receive(own, b"+OK\r\n")
        assert core.outstanding(ann) == 1
        core.link_receive(own, b"+a\r\n")
        assert core.may_give_back(ann)

    @pytest.mark.parametrize("cut", range(1, 60, 7))
    def test_any_split(self, cut: int) -> None:
        core, ann, own = self.streaming()
        got = core.link_output(own, LOTS)
        rest = self.LARGE[2000:] + GET
        for at in range(0, len(rest), 97 * cut):
            core.feed(ann, rest[at : at + 97 * cut])
            got += core.link_output(own, LOTS)
        assert got == self.LARGE + GET
        assert core.outstanding(ann) == 2

    def test_an_error_in_the_middle_does_not_hang(self) -> None:
        core, ann, _ = self.streaming()
        core.feed(ann, b"x" * 10000)
        assert core.stall(ann) == "protocol_error"
        assert core.ready(ann) or core.must_close(ann)


class TestBeforeAuthentication:
    """The server's tighter limits."""

    def test_limits(self, core: Loopback, link: int) -> None:
        ann = core.add_session(link, authenticated=False)
        core.feed(ann, b"*11\r\n")
        assert core.stall(ann) == "protocol_error"
        assert core.error(ann) == b"-ERR Protocol error: unauthenticated multibulk length\r\n"
