"""What restricts a client, on the core alone: refusals come in their turn, limits make it wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from sidecar.core.guard.account import Account
from sidecar.core.guard.command_rules import Policy
from sidecar.core.guard.guard import ClientGuard, GuardTexts
from tests.native.loopback import Loopback
from tests.native.shell import request, table

GET, SET, KEYS = request("GET", "k"), request("SET", "k", "v"), request("KEYS", "*")
MULTI, EXEC = request("MULTI"), request("EXEC")
SUBSCRIBE = request("SUBSCRIBE", "c")
CONFIRMED = b"3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
NO_KEYS = b"-NOPERM User ann has no permissions to run the 'keys' command\r\n"
NO_KEY = b"-NOPERM No permissions to access a key\r\n"
UNKNOWN = b"-ERR unknown command 'sidecar-refused-%d', with args beginning with: \r\n"


def stand_in(number: int = 0) -> bytes:
    """The request that stands in for a refused one."""
    return request(f"sidecar-refused-{number}")


@pytest.fixture
def core() -> Loopback:
    return Loopback(table(), request_buffer=4096)


@pytest.fixture
def link(core: Loopback) -> int:
    return core.add_link()


def policy(
    deny: Sequence[str] = ("keys",),
    *,
    deny_keys: Sequence[bytes] = (),
    read_only_keys: Sequence[bytes] = (),
) -> Policy:
    found = Policy(table())
    found.put(
        [name.encode() for name in deny],
        {},
        deny_keys=deny_keys,
        read_only_keys=read_only_keys,
    )
    return found


def guard(policies: Sequence[Policy] = (), account: Account | None = None) -> ClientGuard:
    return ClientGuard(GuardTexts(), b"ann", policies, [account or Account()])


def refused_by(core: Loopback, link: int, rules: Policy) -> tuple[int, ClientGuard]:
    """A client that is restricted by these rules; its guard is to be kept."""
    ann, restricts = core.add_session(link), guard([rules])
    core.restrict(ann, restricts)
    return ann, restricts


def own_link(core: Loopback, session: int, pinned: bool = False) -> int:
    """The session gets the link of its own that it asks for."""
    assert core.stall(session) == ("pin" if pinned else "dedicated")
    own = core.add_link(shared=False)
    core.use_dedicated(session, own, pinned)
    core.resume(session)
    return own


class TestTurn:
    """Where the refusal is said."""

    def test_at_once_if_nothing_is_due(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, KEYS + GET)
        assert core.take(ann) == NO_KEYS
        assert core.link_output(link, 1000) == GET

    def test_behind_the_replies_that_are_due(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, GET + KEYS + SET)
        assert core.link_output(link, 1000) == GET
        assert core.stall(ann) == "replies"
        core.link_receive(link, b"$1\r\nx\r\n")
        core.resume(ann)
        assert core.take(ann) == b"$1\r\nx\r\n" + NO_KEYS
        assert core.link_output(link, 1000) == SET

    def test_an_inline_request(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, b"kEyS *\r\n")
        assert core.take(ann) == NO_KEYS

    def test_another_client_is_not_refused(self, core: Loopback, link: int) -> None:
        refused_by(core, link, policy())
        bob = core.add_session(link)
        core.feed(bob, KEYS)
        assert core.link_output(link, 1000) == KEYS

    def test_a_line_end_in_the_name_breaks_no_reply(self, core: Loopback, link: int) -> None:
        rules = Policy(table())
        rules.put([], {}, unknown_denied=True)
        ann, _kept = refused_by(core, link, rules)
        core.feed(ann, request("a\r\n+OK"))
        assert core.take(ann).count(b"\r\n") == 1


class TestTransaction:
    """In MULTI the server has to know, so that it aborts the transaction."""

    def test_one_that_is_whole(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, MULTI + GET + KEYS + EXEC)
        assert core.link_output(link, 1000) == b""  # it was taken back
        own = own_link(core, ann)
        assert core.link_output(own, 1000) == MULTI + GET + stand_in() + EXEC
        core.link_receive(own, b"+OK\r\n+QUEUED\r\n" + UNKNOWN % 0 + b"-EXECABORT x\r\n")
        assert core.take(ann) == b"+OK\r\n+QUEUED\r\n" + NO_KEYS + b"-EXECABORT x\r\n"

    @pytest.mark.parametrize("size", [1, 2, 7, 30])
    def test_the_servers_refusal_in_parts(self, core: Loopback, link: int, size: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, MULTI + KEYS + KEYS + EXEC)
        own = own_link(core, ann)
        assert core.link_output(own, 1000) == MULTI + stand_in() + stand_in(1) + EXEC
        said = b"+OK\r\n" + UNKNOWN % 0 + UNKNOWN % 1 + b"-EXECABORT x\r\n"
        for at in range(0, len(said), size):
            core.link_receive(own, said[at : at + size])
        assert core.take(ann) == b"+OK\r\n" + 2 * NO_KEYS + b"-EXECABORT x\r\n"

    def test_multi_itself(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy(["multi"]))
        core.feed(ann, MULTI + GET)
        assert core.take(ann).startswith(b"-NOPERM")
        assert core.link_output(link, 1000) == GET


class TestPinned:
    """On a link for good replies are not matched with requests."""

    @pytest.mark.parametrize("size", [1, 2, 3, 40, 1000])
    def test_the_refusal_is_exchanged(self, core: Loopback, link: int, size: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = own_link(core, ann, pinned=True)
        core.feed(ann, KEYS + request("PING"))
        assert core.link_output(own, 1000).endswith(stand_in() + request("PING"))
        message = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
        said = message + UNKNOWN % 0 + b"+PONG\r\n"
        for at in range(0, len(said), size):
            core.link_receive(own, said[at : at + size])
        assert core.take(ann) == message + NO_KEYS + b"+PONG\r\n"

    def test_one_that_the_server_does_not_answer(self, core: Loopback, link: int) -> None:
        """CLIENT REPLY OFF: the next refusal must not be taken for it."""
        ann, _kept = refused_by(core, link, policy(["keys", "flushall"]))
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = own_link(core, ann, pinned=True)
        core.feed(ann, KEYS + request("FLUSHALL"))
        core.link_output(own, 1000)
        core.link_receive(own, UNKNOWN % 1)
        assert b"'flushall'" in core.take(ann)

    def test_a_value_that_looks_like_it(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = own_link(core, ann, pinned=True)
        core.feed(ann, KEYS)
        value = UNKNOWN % 0
        core.link_receive(own, b"$%d\r\n" % len(value))
        core.link_receive(own, value)
        core.link_receive(own, b"\r\n")
        assert core.take(ann) == b"$%d\r\n%s\r\n" % (len(value), value)

    def test_what_is_no_request_does_not_pass(self, core: Loopback, link: int) -> None:
        """Servers do not look at the line ends of arguments, and would execute it."""
        ann, _kept = refused_by(core, link, policy())
        core.feed(ann, request("SUBSCRIBE", "c"))
        own = own_link(core, ann, pinned=True)
        core.link_output(own, 1000)
        core.feed(ann, b"*2\r\n$4\r\nKEYS\r\n$1\r\n*xx")
        assert b"KEYS" not in core.link_output(own, 1000)


class TestLarge:
    """A request too large to be kept is judged by its beginning, and discarded as it comes."""

    @pytest.mark.parametrize("pieces", [1, 3, 100])
    def test_the_rest_is_discarded(self, core: Loopback, link: int, pieces: int) -> None:
        ann, _kept = refused_by(core, link, policy(deny_keys=[b"secret:*"]))
        data = request("SET", "secret:1", "x" * 10000) + GET
        step = len(data) // pieces + 1
        for at in range(0, len(data), step):
            core.feed(ann, data[at : at + step])
        assert core.take(ann) == NO_KEY
        assert core.link_output(link, 100000) == GET
        assert core.mode(ann) == "shared"

    def test_behind_a_reply(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy(["set"]))
        core.feed(ann, GET + request("SET", "k", "x" * 10000)[:9000])
        core.link_output(link, 1000)
        assert core.stall(ann) == "replies"
        core.link_receive(link, b"$-1\r\n")
        core.resume(ann)
        core.feed(ann, request("SET", "k", "x" * 10000)[9000:] + GET)
        assert core.take(ann).startswith(b"$-1\r\n-NOPERM")
        assert core.link_output(link, 100000) == GET

    def test_in_a_transaction(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy(["set"]))
        core.feed(ann, MULTI)
        own = own_link(core, ann)
        core.feed(ann, request("SET", "k", "x" * 10000) + EXEC)
        assert core.link_output(own, 100000) == MULTI + stand_in() + EXEC

    def test_one_that_may_name_more_keys_than_have_come(self, core: Loopback, link: int) -> None:
        ann, _kept = refused_by(core, link, policy(deny_keys=[b"secret:*"]))
        core.feed(ann, request("MSET", "a", "x" * 10000, "secret:1", "y"))
        assert core.take(ann) == NO_KEY


class TestRate:
    """Commands a second."""

    def test_who_delays_waits_for_the_time_of_one(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(commands=100, burst=2)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.set_now(1_000_000)
        core.feed(ann, 5 * GET)
        assert core.link_output(link, 1000) == 2 * GET
        assert core.stall(ann) == "limit"
        assert not core.ready(ann)
        core.set_now(1_009_000)
        assert not core.ready(ann)
        core.set_now(1_010_000)
        assert core.ready(ann)
        core.resume(ann)
        assert core.link_output(link, 1000) == GET
        assert account.delayed == 2

    def test_who_does_not_delay_gets_an_error(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(commands=100, burst=2, delays=False)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.set_now(1_000_000)
        core.feed(ann, 3 * GET)
        core.link_output(link, 1000)
        core.link_receive(link, 2 * b"$-1\r\n")
        core.resume(ann)
        assert core.take(ann) == 2 * b"$-1\r\n" + (
            b"-LIMITED too many commands a second; try again later\r\n"
        )
        core.set_now(1_010_000)
        core.feed(ann, GET)
        assert core.link_output(link, 1000) == GET
        assert account.refused == {"rate": 1}

    def test_two_clients_share_it(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(commands=100, burst=2)
        ann, bob, kept = core.add_session(link), core.add_session(link), []
        for each in (ann, bob):
            kept.append(guard(account=account))
            core.restrict(each, kept[-1])
        core.set_now(1_000_000)
        core.feed(ann, 3 * GET)
        core.feed(bob, SET)
        core.set_now(1_010_000)
        assert core.ready(ann)
        assert not core.ready(bob)  # its place is behind hers
        core.set_now(1_020_000)
        assert core.ready(bob)

    def test_a_piece_is_charged_for_and_goes_as_a_whole(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(commands=100, burst=1)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.set_now(1_000_000)
        piece = MULTI + 3 * GET + EXEC
        core.feed(ann, piece + SET)
        assert core.link_output(link, 1000) == piece
        core.set_now(1_049_000)
        assert not core.ready(ann)
        core.set_now(1_050_000)
        assert core.ready(ann)

    def test_one_that_was_taken_back_is_charged_for_once(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(commands=100, burst=3)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.set_now(1_000_000)
        core.feed(ann, MULTI + GET)
        own = own_link(core, ann)
        core.feed(ann, EXEC)
        assert core.link_output(own, 1000) == MULTI + GET + EXEC


class TestUnderWay:
    """How much a client may have under way."""

    def test_a_pipeline(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(pipeline=2)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.feed(ann, 4 * GET)
        assert core.link_output(link, 1000) == 2 * GET
        assert not core.ready(ann)
        core.link_receive(link, b"$-1\r\n")
        assert core.ready(ann)
        core.resume(ann)
        assert core.link_output(link, 1000) == GET

    def test_bytes_of_all(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(in_flight=len(GET) + len(SET))
        ann, bob, kept = core.add_session(link), core.add_session(link), []
        for each in (ann, bob):
            kept.append(guard(account=account))
            core.restrict(each, kept[-1])
        core.feed(ann, GET)
        core.feed(bob, SET + SET)
        assert core.link_output(link, 1000) == GET + SET
        assert account.in_use == (len(GET) + len(SET), 0, 0)
        assert not core.ready(bob)
        core.link_receive(link, 2 * b"$-1\r\n")
        assert account.in_use == (0, 0, 0)
        assert core.ready(bob)

    def test_a_request_that_is_too_large(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(request=100)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.feed(ann, request("SET", "k", "x" * 200) + request("SET", "k", "x" * 20000) + GET)
        large = b"-LIMITED the request is larger than its client may send\r\n"
        assert core.take(ann) == 2 * large
        assert core.link_output(link, 1000) == GET
        assert account.refused == {"request": 2}

    def test_a_reply_that_is_too_large(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(reply=100)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        bob = core.add_session(link)
        core.feed(ann, GET + GET)
        core.feed(bob, GET)
        core.link_output(link, 1000)
        value = b"$200\r\n" + 200 * b"x" + b"\r\n"
        core.link_receive(link, value + value[:50])
        core.link_receive(link, value[50:90])
        core.link_receive(link, value[90:] + value)
        large = b"-LIMITED the reply is larger than its client may get\r\n"
        assert core.take(ann) == 2 * large
        assert core.take(bob) == value
        assert not core.must_close(ann)

    def test_one_that_does_not_say_so_ends_the_client(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(reply=100)
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.feed(ann, GET)
        core.link_output(link, 1000)
        core.link_receive(link, b"*2\r\n$60\r\n" + 60 * b"x" + b"\r\n")
        assert not core.must_close(ann)
        core.link_receive(link, b"$60\r\n" + 50 * b"x")
        assert core.must_close(ann)

    def test_blocked_clients(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(blocked=1)
        ann, bob, kept = core.add_session(link), core.add_session(link), []
        for each in (ann, bob):
            kept.append(guard(account=account))
            core.restrict(each, kept[-1])
        core.feed(ann, request("BLPOP", "q", "0"))
        own = own_link(core, ann)
        core.feed(bob, request("XREAD", "BLOCK", "0", "STREAMS", "s", "0"))
        assert core.take(bob) == b"-LIMITED too many clients are blocked\r\n"
        core.feed(bob, request("XREAD", "STREAMS", "block", "0"))
        assert core.take(bob) == b""
        core.link_output(own, 1000)
        core.link_receive(own, b"*-1\r\n")
        core.settle_limits(ann)
        core.feed(bob, request("BLPOP", "q", "0"))
        assert core.stall(bob) == "dedicated"

    def test_subscribed_clients(self, core: Loopback, link: int) -> None:
        account = Account()
        account.set_limits(subscribed=1)
        ann, bob, kept = core.add_session(link), core.add_session(link), []
        for each in (ann, bob):
            kept.append(guard(account=account))
            core.restrict(each, kept[-1])
        core.feed(ann, request("SUBSCRIBE", "c"))
        own_link(core, ann, pinned=True)
        core.feed(bob, request("PSUBSCRIBE", "c"))
        assert core.take(bob) == b"-LIMITED too many clients have subscribed\r\n"


class TestLinkForGood:
    """Limits on a link on which replies are not matched with requests."""

    @pytest.fixture
    def account(self) -> Account:
        return Account()

    @pytest.fixture
    def pinned(self, core: Loopback, link: int, account: Account) -> Iterator[tuple[int, int]]:
        """A client with such a link, a subscriber in RESP3: session and link."""
        ann, kept = core.add_session(link), guard(account=account)
        core.restrict(ann, kept)
        core.feed(ann, SUBSCRIBE)
        own = own_link(core, ann, pinned=True)
        core.link_output(own, 1000)
        core.link_receive(own, b">" + CONFIRMED)
        assert core.take(ann) == b">" + CONFIRMED
        core.settle_limits(ann)
        yield ann, own
        core.drop(ann)

    @pytest.mark.parametrize("limits", [{"pipeline": 2}, {"in_flight": 2 * len(GET)}])
    def test_what_is_under_way(
        self, core: Loopback, pinned: tuple[int, int], account: Account, limits: dict[str, int]
    ) -> None:
        ann, own = pinned
        account.set_limits(**limits)
        core.feed(ann, 5 * GET)
        assert core.link_output(own, 1000) == 2 * GET
        assert not core.ready(ann)
        core.link_receive(own, b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n")
        assert not core.ready(ann)  # a message is no reply
        core.link_receive(own, b"$-1\r\n")
        assert core.ready(ann)
        core.resume(ann)
        assert core.link_output(own, 1000) == GET
        core.link_receive(own, 2 * b"$-1\r\n")
        core.resume(ann)
        core.link_receive(own, 2 * b"$-1\r\n")
        core.settle_limits(ann)
        assert account.in_use[0] == 0

    def test_what_has_no_reply_is_not_waited_for(
        self, core: Loopback, pinned: tuple[int, int], account: Account
    ) -> None:
        ann, own = pinned
        account.set_limits(pipeline=2, in_flight=3 * len(SUBSCRIBE))
        core.feed(ann, 10 * SUBSCRIBE + GET)
        assert core.link_output(own, 1000) == 10 * SUBSCRIBE + GET
        core.feed(ann, request("CLIENT", "REPLY", "OFF") + 5 * GET)
        assert core.link_output(own, 1000) == request("CLIENT", "REPLY", "OFF") + 5 * GET

    def test_a_refused_reply_off_ends_no_limit(
        self, core: Loopback, pinned: tuple[int, int], account: Account
    ) -> None:
        ann, own = pinned
        account.set_limits(pipeline=2)
        core.feed(ann, request("client", "reply", "off"))
        core.link_output(own, 1000)
        core.link_receive(own, b"-NOPERM x\r\n")
        core.feed(ann, 3 * GET)
        assert core.link_output(own, 1000) == 2 * GET

    @pytest.mark.parametrize("size", [1000, 50, 7])
    def test_a_large_reply(
        self, core: Loopback, pinned: tuple[int, int], account: Account, size: int
    ) -> None:
        ann, own = pinned
        account.set_limits(reply=100)
        core.feed(ann, 2 * GET)
        said = b"$200\r\n" + 200 * b"x" + b"\r\n+OK\r\n"
        for at in range(0, len(said), size):
            core.link_receive(own, said[at : at + size])
        assert core.take(ann) == b"-LIMITED the reply is larger than its client may get\r\n+OK\r\n"
        assert account.refused == {"reply": 1}
        assert not core.must_close(ann)

    @pytest.mark.parametrize("mark", [b">3", b"*3"])
    def test_a_large_message_is_no_reply(
        self, core: Loopback, pinned: tuple[int, int], account: Account, mark: bytes
    ) -> None:
        ann, own = pinned
        account.set_limits(reply=100)
        message = mark + b"\r\n$7\r\nmessage\r\n$1\r\nc\r\n$200\r\n" + 200 * b"x" + b"\r\n"
        core.link_receive(own, message[:60])
        core.link_receive(own, message[60:])
        assert core.take(ann) == message

    def test_one_that_does_not_say_so_ends_the_client(
        self, core: Loopback, pinned: tuple[int, int], account: Account
    ) -> None:
        ann, own = pinned
        account.set_limits(reply=100)
        core.link_receive(own, b"*2\r\n$60\r\n" + 60 * b"x" + b"\r\n")
        assert not core.must_close(ann)
        core.link_receive(own, b"$60\r\n" + 50 * b"x")
        assert core.must_close(ann)


def test_overload_spares_transactions(core: Loopback, link: int) -> None:
    texts = GuardTexts()
    ann, kept = core.add_session(link), ClientGuard(texts, b"ann", [], [Account()])
    core.restrict(ann, kept)
    core.feed(ann, MULTI)
    own = own_link(core, ann)
    bob, kept_too = core.add_session(link), ClientGuard(texts, b"bob", [], [Account()])
    core.restrict(bob, kept_too)
    texts.shed(True)
    core.feed(ann, GET + EXEC)
    core.feed(bob, GET)
    assert core.link_output(own, 1000) == MULTI + GET + EXEC
    assert core.take(bob) == b"-OVERLOADED the sidecar cannot keep up; try again later\r\n"
