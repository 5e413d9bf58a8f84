"""Records of commands: which get one, and that what it says is true (see
core/observe/trace_records.pyx).
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from sidecar.core.observe import trace_records as trace
from sidecar.core.observe.trace_records import Traces
from sidecar.telemetry.spans import Record
from tests.native.loopback import Loopback
from tests.native.shell import request, table

LOTS = 1 << 30
SLOW = 1000
GET, SET = request("GET", "k"), request("SET", "k", "v")
WRONG = b"-WRONGTYPE the value is 'secret'\r\n"
CONTEXT = bytes(range(24))


class Rig(NamedTuple):
    """A shell that records, one client, and the shared link it is on."""

    core: Loopback
    client: int
    link: int

    def take(self) -> list[Record]:
        """What has been recorded."""
        assert self.core.traces is not None
        return [Record._make(taken) for taken in self.core.traces.take()]

    def only(self) -> Record:
        """The one record there is."""
        (found,) = self.take()
        return found

    def ask(self, data: bytes, reply: bytes, took: int = 0) -> None:
        """Requests go up, replies come `took` microseconds later."""
        self.core.feed(self.client, data)
        self.core.link_output(self.link, LOTS)
        self.at(self.now + took)
        self.core.link_receive(self.link, reply)

    def at(self, now: int) -> None:
        """The time is this."""
        NOW[0] = now
        self.core.set_now(now & 0xFFFF_FFFF)

    @property
    def now(self) -> int:
        return NOW[0]


NOW = [0]


def rig(
    *,
    share: float = 0,
    failed: bool = True,
    allow: int = 1000,
    follows: bool = False,
    acks: int = 0,
) -> Rig:
    """A fresh one. The time is 5,000,000."""
    core = Loopback(table(), follows=follows, acks=acks)
    core.use_traces(Traces(table(), 7, share=share, failed=failed, keys=True), SLOW)
    core.traces.allow(allow)
    link = core.add_link()
    made = Rig(core, core.add_session(link), link)
    made.at(5_000_000)
    return made


class TestSampled:
    """Commands that the sampler picks."""

    def test_record_of_a_command(self) -> None:
        r = rig(share=1)
        r.core.feed(r.client, GET)
        r.at(5_000_010)
        assert r.core.link_output(r.link, LOTS) == GET
        r.at(5_000_250)
        r.core.link_receive(r.link, b"$5\r\nhello\r\n")
        record = r.only()
        assert (record.command, record.why, record.error) == ("get", trace.SAMPLED, "")
        assert (record.start, record.queued) == (5_000_000, 5_000_000)
        assert (record.sent, record.end) == (5_000_010, 5_000_250)
        assert (record.request, record.reply) == (len(GET), 11)
        assert (record.key, record.key_size, record.context) == (b"k", 1, b"")
        assert record.client == r.client
        assert r.core.take(r.client) == b"$5\r\nhello\r\n"

    def test_nothing_is_recorded_for_the_rest(self) -> None:
        r = rig(share=0)
        r.ask(GET * 100, b"$-1\r\n" * 100)
        assert r.take() == []

    @pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
    def test_share(self, share: float) -> None:
        r = rig(share=share, allow=LOTS)
        found = 0
        for _ in range(200):
            r.ask(GET * 100, b"$-1\r\n" * 100)
            found += len(r.take())
        assert 20_000 * share * 0.8 < found + r.core.traces.stats()["dropped"] < 24_000 * share

    def test_reply_in_pieces(self) -> None:
        r = rig(share=1)
        reply = b"$3000\r\n" + b"x" * 3000 + b"\r\n"
        r.ask(GET + GET, reply[:10])
        r.core.link_receive(r.link, reply[10:2000])
        r.core.link_receive(r.link, reply[2000:] + b"$1\r\na\r\n")
        assert [record.reply for record in r.take()] == [len(reply), 7]

    def test_times_that_wrap(self) -> None:
        r = rig(share=1)
        r.at((1 << 32) - 50)
        r.ask(GET, b"$-1\r\n", took=100)
        record = r.only()
        assert record.end - record.start == 100
        assert record.start == (1 << 32) - 50

    def test_long_keys_are_cut(self) -> None:
        r = rig(share=1)
        r.ask(request("GET", "k" * 500), b"$-1\r\n")
        record = r.only()
        assert (record.key, record.key_size) == (b"k" * 128, 500)

    def test_first_key_of_a_script(self) -> None:
        r = rig(share=1)
        r.ask(request("EVAL", "return 1", 1, "the-key", "an-argument"), b":1\r\n")
        assert r.only().key == b"the-key"

    def test_client_that_has_gone(self) -> None:
        r = rig(share=1)
        r.core.feed(r.client, GET)
        r.core.link_output(r.link, LOTS)
        r.core.drop(r.client)
        r.core.link_receive(r.link, b"$-1\r\n")
        assert r.only().client == r.client

    def test_more_at_once_than_can_be_told_apart(self) -> None:
        r = rig(share=1, allow=2000)
        keys = [f"key{number}" for number in range(700)]
        r.ask(b"".join(request("GET", key) for key in keys),
              b"".join(b"$%d\r\n%s\r\n" % (len(key), key.encode()) for key in keys))  # fmt: skip
        records = r.take()
        assert len(records) == 255
        for record in records:
            assert record.reply == len(record.key) + 6
        assert r.core.traces.stats()["dropped"] == 445

    def test_forgotten_records_are_used_again(self) -> None:
        r = rig(share=1, allow=2000)
        for _ in range(300):
            r.core.feed(r.client, request("MULTI") + SET)  # taken back
            r.core.drop(r.client)
            r = r._replace(client=r.core.add_session(r.link))
        r.at(r.now + 2_000_000)
        r.ask(GET, b"$-1\r\n")
        assert r.take() == []
        r.at(r.now + 20_000)
        r.ask(GET, b"$-1\r\n")
        assert r.only().command == "get"

    def test_late_reply_does_not_end_the_record_of_another(self) -> None:
        r = rig(share=1, allow=2000)
        r.core.feed(r.client, GET * 255)
        r.at(r.now + 2_000_000)
        r.core.feed(r.client, GET)  # there is no room for it, but the old ones are forgotten now
        r.at(r.now + 20_000)
        r.core.feed(r.client, request("GET", "new"))
        r.core.link_output(r.link, LOTS)
        r.core.link_receive(r.link, b"$-1\r\n" * 256)
        assert all(record.key == b"k" for record in r.take())
        r.core.link_receive(r.link, b"$9\r\nthe value\r\n")
        record = r.only()
        assert (record.key, record.reply) == (b"new", 15)

    def test_records_follow_their_entries_through_the_ring(self) -> None:
        r = rig(share=0.5)
        for lap in range(2000):
            r.core.traces.allow(lap % 3)
            keys = [b"k" * (1 + (lap + i) % 60) for i in range(12)]
            r.ask(b"".join(request("GET", key) for key in keys),
                  b"".join(b"+%s\r\n" % key for key in keys))  # fmt: skip
            for record in r.take():
                assert record.reply == len(record.key) + 3

    def test_transaction_that_is_taken_back(self) -> None:
        r = rig(share=1)
        r.core.feed(r.client, request("MULTI") + SET)
        assert r.core.stall(r.client) == "dedicated"
        link = r.core.add_link(shared=False)
        r.core.use_dedicated(r.client, link)
        r.core.resume(r.client)
        r.core.link_output(link, LOTS)
        r.core.link_receive(link, b"+OK\r\n+QUEUED\r\n")
        assert [record.command for record in r.take()] == ["multi", "set"]

    def test_commands_answered_here_are_not_recorded(self) -> None:
        r = rig(share=1)
        r.core.feed(r.client, request("CLIENT", "ID"))
        _, size = r.core.head(r.client)
        r.core.skip(r.client, size)
        r.core.say(r.client, b":1\r\n")
        r.core.resume(r.client)
        assert r.take() == []


class TestSlowAndFailed:
    """Commands that nobody picked."""

    def test_slow(self) -> None:
        r = rig()
        r.ask(GET, b"$-1\r\n", took=SLOW - 1)
        r.ask(SET, b"+OK\r\n", took=SLOW)
        record = r.only()
        assert (record.command, record.why, record.key) == ("set", trace.SLOW, b"k")
        assert (record.end - record.start, record.request, record.reply) == (SLOW, len(SET), 5)

    def test_slow_among_others(self) -> None:
        r = rig()
        r.core.feed(r.client, GET + request("GET", "other"))
        r.core.link_output(r.link, LOTS)
        r.at(r.now + SLOW)
        r.ask(GET, b"$-1\r\n$-1\r\n:1\r\n")
        assert [record.key for record in r.take()] == [b"k", b"other"]

    def test_sampled_and_slow_is_one_record(self) -> None:
        r = rig(share=1)
        r.ask(GET, b"$-1\r\n", took=SLOW)
        assert r.only().why == trace.SAMPLED | trace.SLOW

    def test_failed(self) -> None:
        r = rig()
        r.ask(GET + SET, b"$-1\r\n" + WRONG)
        record = r.only()
        assert (record.command, record.why) == ("set", trace.FAILED)
        assert (record.error, record.reply) == ("WRONGTYPE", len(WRONG))

    @pytest.mark.parametrize("follows", [False, True])
    @pytest.mark.parametrize("cut", [1, 5, 20])
    def test_error_in_pieces(self, follows: bool, cut: int) -> None:
        r = rig(follows=follows)
        r.ask(GET, WRONG[:cut])
        r.core.link_receive(r.link, WRONG[cut:])
        record = r.only()
        assert record.why == trace.FAILED
        assert record.reply == len(WRONG)
        assert record.error == "WRONGTYPE"

    def test_failed_ones_can_be_left_out(self) -> None:
        r = rig(failed=False)
        r.ask(GET, WRONG)
        assert r.take() == []

    @pytest.mark.parametrize("line", [b"-\r\n", b"- x\r\n", b"-lower case\r\n"])
    def test_error_without_a_code(self, line: bytes) -> None:
        r = rig()
        r.ask(GET, line)
        assert r.only().error == "ERR"

    def test_error_code_that_never_ends(self) -> None:
        r = rig()
        r.ask(GET, b"-" + b"A" * 300 + b"\r\n")
        assert r.only().error == "A" * 23

    def test_blocking_is_not_slow(self) -> None:
        r = rig()
        link = r.core.add_link(shared=False)
        r.core.feed(r.client, request("BLPOP", "k", 0))
        r.core.use_dedicated(r.client, link)
        r.core.resume(r.client)
        r.core.link_output(link, LOTS)
        r.at(r.now + 100 * SLOW)
        r.core.link_receive(link, b"*-1\r\n")
        assert r.take() == []

    @pytest.mark.parametrize("share", [0, 1])
    def test_write_that_was_lost(self, share: float) -> None:
        r = rig(share=share)
        r.core.feed(r.client, SET)
        r.core.link_output(r.link, LOTS)
        r.core.link_lost(r.link)
        record = r.only()
        assert record.error == "UNCERTAIN"
        assert record.why == trace.FAILED | (trace.SAMPLED if share else 0)

    def test_read_that_is_sent_again(self) -> None:
        r = rig(share=1)
        r.core.feed(r.client, GET)
        r.core.link_output(r.link, LOTS)
        r.core.link_lost(r.link)
        r.core.link_up(r.link)
        r.at(r.now + 70)
        assert r.core.link_output(r.link, LOTS) == GET
        r.core.link_receive(r.link, b"$-1\r\n")
        record = r.only()
        assert record.flags & trace.RESENT
        assert record.sent - record.queued == 70

    def test_read_that_is_led_past_a_link(self) -> None:
        r = rig(share=1)
        r.core.feed(r.core.add_session(r.link), SET)  # the server holds this one back
        r.core.feed(r.client, GET)
        r.core.link_output(r.link, LOTS)
        other = r.core.add_link()
        r.core.divert(r.link, other)
        r.core.link_output(other, LOTS)
        r.core.link_receive(other, b"$1\r\na\r\n")
        r.core.link_receive(r.link, b"+OK\r\n$4\r\nlate\r\n")
        (record,) = [record for record in r.take() if record.command == "get"]
        assert (record.reply, bool(record.flags & trace.RESENT)) == (7, True)

    def test_replica_that_refuses(self) -> None:
        r = rig(share=1, follows=True)
        r.ask(SET + GET, b"-READONLY no\r\n")
        assert r.take() == []
        r.core.link_receive(r.link, b"$-1\r\n")
        assert r.core.turn_over(r.link)
        r.core.link_lost(r.link)
        r.core.link_up(r.link)
        r.core.link_output(r.link, LOTS)
        r.core.link_receive(r.link, b"+OK\r\n$-1\r\n")
        assert [(x.command, x.error, bool(x.flags & trace.RESENT)) for x in r.take()] == [
            ("set", "", True),
            ("get", "", True),
        ]

    def test_no_connection_in_time(self) -> None:
        r = rig()
        r.core.link_lost(r.link)
        r.core.feed(r.client, GET)
        r.at(r.now + 300)
        r.core.refuse(r.link, b"-UNAVAILABLE redis://h is down\r\n")
        r.core.resume(r.client)
        waited = r.only()
        assert (waited.error, waited.key) == ("UNAVAILABLE", b"k")
        assert (waited.end - waited.start, waited.queued) == (300, 0)
        assert waited.flags & trace.WAITED
        assert waited.flags & trace.LOCAL
        r.core.feed(r.client, GET)
        at_once = r.only()
        assert (at_once.end - at_once.start, at_once.flags & trace.WAITED) == (0, 0)

    @pytest.mark.parametrize("share", [0, 1])
    def test_acknowledged_writes(self, share: float) -> None:
        r = rig(share=share, acks=1)
        r.core.feed(r.client, SET)
        r.core.seal(r.link)
        r.core.link_output(r.link, LOTS)
        r.core.link_receive(r.link, WRONG[:4])
        r.core.link_receive(r.link, WRONG[4:] + b":1\r\n")
        record = r.only()
        assert (record.command, record.error, record.reply) == ("set", "WRONGTYPE", len(WRONG))
        assert record.key == b"k"


class TestWaiting:
    """Time spent before a command could be put on a link belongs to it."""

    def test_waited_for_a_connection(self) -> None:
        r = rig()
        r.core.link_lost(r.link)
        r.core.feed(r.client, GET)
        assert r.core.stall(r.client) == "link"
        r.at(r.now + 5 * SLOW)
        r.core.link_up(r.link)
        r.core.resume(r.client)
        r.core.link_output(r.link, LOTS)
        r.at(r.now + 20)
        r.core.link_receive(r.link, b"$-1\r\n")
        record = r.only()
        assert record.why == trace.SLOW
        assert record.flags & trace.WAITED
        assert (record.queued - record.start, record.end - record.queued) == (5 * SLOW, 20)

    def test_held_write_that_was_picked(self) -> None:
        r = rig(share=1)
        r.core.hold_writes(True)
        r.core.feed(r.client, SET)
        assert r.core.stall(r.client) == "held"
        r.at(r.now + 10)
        r.core.hold_writes(False)
        r.core.resume(r.client)
        r.core.link_output(r.link, LOTS)
        r.core.link_receive(r.link, b"+OK\r\n")
        record = r.only()
        assert (record.why, record.queued - record.start) == (trace.SAMPLED, 10)

    def test_the_next_command_has_not_waited(self) -> None:
        r = rig()
        r.core.hold_writes(True)
        r.core.feed(r.client, SET)
        r.at(r.now + 5 * SLOW)
        _, size = r.core.head(r.client)
        r.core.skip(r.client, size)
        r.core.say(r.client, b"-UNAVAILABLE\r\n")
        r.core.resume(r.client)
        r.ask(GET, b"$-1\r\n")
        assert r.take() == []


class TestBudget:
    """What there is no room for costs nothing more, and is counted."""

    def test_allowance(self) -> None:
        r = rig(allow=3)
        r.ask(GET * 10, WRONG * 10)
        assert len(r.take()) == 3
        assert r.core.traces.stats() == {"sampled": 0, "slow": 0, "failed": 3, "dropped": 7}
        r.core.traces.allow(1)
        r.ask(GET * 2, WRONG * 2)
        assert len(r.take()) == 1

    def test_reserve_is_not_for_sampled_ones(self) -> None:
        r = rig(share=1)
        r.core.traces.allow(4, 2)
        r.ask(GET * 10, b"$-1\r\n" * 10)
        assert len(r.take()) == 2
        r.ask(GET, WRONG)
        assert r.only().why == trace.FAILED

    def test_nothing_before_it_is_allowed(self) -> None:
        r = rig(share=1, allow=0)
        r.ask(GET * 2, WRONG + b"$-1\r\n", took=SLOW)
        assert r.take() == []

    def test_full(self) -> None:
        r = rig(allow=5000)
        r.ask(GET * 3000, WRONG * 3000)
        assert len(r.take()) == 1024
        assert r.core.traces.stats()["dropped"] == 3000 - 1024

    def test_a_failed_command_gives_nothing_back(self) -> None:
        r = rig(share=1, allow=5)
        r.ask(GET * 2, b"$-1\r\n" * 2)
        assert r.core.traces.allowed == 3
        r.core.hold_writes(True)
        r.core.feed(r.client, SET)
        assert r.core.traces.allowed == 3


class TestContext:
    """The application has named a trace."""

    def test_its_commands_are_in_it(self) -> None:
        r = rig()
        r.core.join_trace(r.client, CONTEXT, True)
        other = r.core.add_session(r.link)
        r.core.feed(other, GET)
        r.ask(GET, b"$-1\r\n$-1\r\n")
        record = r.only()
        assert (record.client, record.context, record.why) == (r.client, CONTEXT, trace.SAMPLED)

    def test_unsampled_trace_is_left_alone(self) -> None:
        r = rig(share=1)
        r.core.join_trace(r.client, CONTEXT, False)
        r.ask(GET, b"$-1\r\n")
        assert r.take() == []

    def test_but_what_is_slow_or_fails_is_told_with_it(self) -> None:
        r = rig()
        r.core.join_trace(r.client, CONTEXT, False)
        r.ask(GET, WRONG)
        r.ask(GET, b"$-1\r\n", took=SLOW)
        assert [record.context for record in r.take()] == [CONTEXT, CONTEXT]


def test_share_is_checked() -> None:
    with pytest.raises(ValueError, match="share"):
        Traces(table(), 1, share=1.5)
