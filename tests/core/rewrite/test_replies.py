"""Replies to a client with a key prefix: what the client gets, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.protocol.test_reply import REPLIES
from tests.core.rewrite.client import Talk, array, bulk, bulks, cut, push

QUEUED = b"+QUEUED\r\n"
OK = b"+OK\r\n"

# Request, the server's reply, what the client gets.
SHOWN = [
    ("GET a", bulk(b"p:value"), bulk(b"p:value")),
    ("KEYS *", bulks(b"p:a", b"p:", b"x"), bulks(b"a", b"", b"x")),
    ("SCAN 0", array(bulk(b"p:7"), bulks(b"p:a")), array(bulk(b"p:7"), bulks(b"a"))),
    ("BLPOP a 0", bulks(b"p:a", b"p:v"), bulks(b"a", b"p:v")),
    ("BLPOP a 1", b"*-1\r\n", b"*-1\r\n"),
    ("BZPOPMIN a 1", b"_\r\n", b"_\r\n"),
    ("LMPOP 1 a LEFT", array(bulk(b"p:a"), bulks(b"p:v")), array(bulk(b"a"), bulks(b"p:v"))),
    (
        "XREAD STREAMS a 0",
        array(array(bulk(b"p:a"), array(array(bulk(b"1-1"), bulks(b"p:f", b"v"))))),
        array(array(bulk(b"a"), array(array(bulk(b"1-1"), bulks(b"p:f", b"v"))))),
    ),
    (
        "XREAD STREAMS a 0",
        b"%1\r\n" + bulk(b"p:a") + array(array(bulk(b"1-1"), bulks(b"p:f", b"v"))),
        b"%1\r\n" + bulk(b"a") + array(array(bulk(b"1-1"), bulks(b"p:f", b"v"))),
    ),
    (
        "XREADGROUP GROUP g c STREAMS a >",
        b"-NOGROUP No such key 'p:a' or consumer group 'p:g' in XREADGROUP with GROUP option\r\n",
        b"-NOGROUP No such key 'a' or consumer group 'p:g' in XREADGROUP with GROUP option\r\n",
    ),
    (
        "XINFO CONSUMERS a g",
        b"-NOGROUP No such consumer group 'g' for key name 'p:a'\r\n",
        b"-NOGROUP No such consumer group 'g' for key name 'a'\r\n",
    ),
    ("PUBSUB CHANNELS", bulks(b"p:a"), bulks(b"a")),
    (
        "PUBSUB NUMSUB a",
        array(bulk(b"p:a"), b":1\r\n", bulk(b"p:b"), b":2\r\n"),
        array(bulk(b"a"), b":1\r\n", bulk(b"b"), b":2\r\n"),
    ),
    (
        "CLIENT TRACKINGINFO",
        b"%3\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n"
        + bulks(b"p:a"),
        b"%3\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n"
        + bulks(b"a"),
    ),
]


@pytest.mark.parametrize(("request_line", "reply", "shown"), SHOWN)
def test_names_lose_the_prefix(request_line: str, reply: bytes, shown: bytes) -> None:
    """Where the reply has names, and in no value."""
    talk = Talk()
    talk.sends(request_line)
    assert talk.gets(reply) == shown


EVERY = [line for line, _, _ in SHOWN]


@given(st.lists(st.sampled_from(SHOWN), max_size=6), st.lists(st.integers(0, 999), max_size=9))
def test_wherever_the_bytes_are_cut(talks: list[tuple[str, bytes, bytes]], at: list[int]) -> None:
    """What the client gets is the same, in a transaction too."""
    talk = Talk()
    talk.sends(*(line for line, _, _ in talks), "MULTI", *(line for line, _, _ in talks), "EXEC")
    sent = b"".join(reply for _, reply, _ in talks) + OK + QUEUED * len(talks)
    sent += array(*(reply for _, reply, _ in talks))
    shown = b"".join(shown for _, _, shown in talks) + OK + QUEUED * len(talks)
    shown += array(*(shown for _, _, shown in talks))
    assert talk.gets(*cut(sent, at)) == shown


@given(st.lists(st.tuples(st.sampled_from(EVERY), REPLIES), max_size=5), st.data())
def test_any_reply_to_any_request(talks: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """Cut anywhere it is shown as it is uncut, and what comes behind it is in its place. Only
    prefixes are missing from it."""
    whole, parts = Talk(), Talk()
    lines = [line for line, _ in talks]
    whole.sends(*lines, "GET a")
    parts.sends(*lines, "GET a")
    sent = b"".join(reply for _, reply in talks) + b"$3\r\np:x\r\n"
    shown = whole.gets(sent)
    at = data.draw(st.lists(st.integers(0, len(sent)), max_size=8))
    assert parts.gets(*cut(sent, at)) == shown
    assert shown.endswith(b"$3\r\np:x\r\n")


def test_bytes_that_are_no_reply_are_shown_as_they_are() -> None:
    """The client is to see what is wrong."""
    talk = Talk()
    talk.sends("KEYS *")
    assert talk.gets(b"*1\r\nhello", b" p:\r\n") == b"*1\r\nhello p:\r\n"


def test_errors_that_nobody_asked_for() -> None:
    """The sidecar says why it hangs up."""
    assert Talk().gets(b"-ERR max\r\n") == b"-ERR max\r\n"


# Transactions


def test_a_transaction_that_was_refused() -> None:
    """Its commands were executed one by one; a program may say QUEUED."""
    talk = Talk()
    talk.sends("MULTI", "KEYS *", "EVAL s 0", "EXEC", "MULTI", "KEYS *", "EXEC")
    got = talk.gets(b"-NOPERM x\r\n", bulks(b"p:a"), QUEUED, b"-ERR EXEC without MULTI\r\n")
    assert got == b"-NOPERM x\r\n" + bulks(b"a") + QUEUED + b"-ERR EXEC without MULTI\r\n"
    got = talk.gets(OK, QUEUED, array(bulks(b"p:a")))
    assert got == OK + QUEUED + array(bulks(b"a"))


def test_a_transaction_that_was_given_up() -> None:
    """What was queued before DISCARD, or before RESET, is no part of the next one."""
    talk = Talk()
    talk.sends("MULTI", "KEYS *", "DISCARD", "MULTI", "GET a", "KEYS *", "EXEC")
    talk.gets(OK, QUEUED, OK, OK, QUEUED, QUEUED)
    got = talk.gets(array(bulk(b"p:x"), bulks(b"p:a")))
    assert got == array(bulk(b"p:x"), bulks(b"a"))


def test_a_program_that_says_queued() -> None:
    """Outside of a transaction that is a value, and no part of the next one."""
    talk = Talk()
    talk.sends("EVAL s 0", "MULTI", "KEYS *", "EXEC")
    got = talk.gets(QUEUED, OK, QUEUED, array(bulks(b"p:a")))
    assert got == QUEUED + OK + QUEUED + array(bulks(b"a"))


def test_exec_with_other_replies_than_were_queued() -> None:
    """It cannot be told which is which: they are shown as they are."""
    for replies in (array(bulks(b"p:a")), array(*[bulks(b"p:a")] * 3)):
        talk = Talk()
        talk.sends("MULTI", "KEYS *", "KEYS *", "EXEC", "KEYS *")
        got = talk.gets(OK, QUEUED, QUEUED, replies, bulks(b"p:a"))
        assert got == OK + QUEUED + QUEUED + replies + bulks(b"a")


def test_messages_within_the_reply_to_exec() -> None:
    """Old servers put them between its elements, of which they are none."""
    talk = Talk()
    talk.sends("MULTI", "GET a", "KEYS *", "EXEC")
    message = push(bulk(b"invalidate"), bulks(b"p:a"))
    sent = b"*2\r\n" + message + bulk(b"p:x") + message + bulks(b"p:a")
    got = talk.gets(OK, QUEUED, QUEUED, sent)
    assert got == OK + QUEUED + QUEUED + sent[: -len(bulks(b"p:a"))] + bulks(b"a")


# Messages


def resp(kind: bytes, *values: bytes) -> bytes:
    """A message as RESP2 or 3 has it."""
    return kind + b"%d\r\n" % len(values) + b"".join(values)


@pytest.mark.parametrize("kind", [b"*", b">"])
def test_messages_and_confirmations(kind: bytes) -> None:
    """Channels and patterns lose the prefix; messages about other names are dropped."""
    talk = Talk()
    talk.sends("SUBSCRIBE a __keyspace@0__:a __keyevent@0__:set", "PSUBSCRIBE a* __key*__:*")
    for name in (b"p:a", b"__keyspace@0__:p:a", b"__keyevent@0__:set"):
        shown = resp(kind, bulk(b"subscribe"), bulk(name.replace(b"p:", b"")), b":1\r\n")
        assert talk.gets(resp(kind, bulk(b"subscribe"), bulk(name), b":1\r\n")) == shown
    for number, name in enumerate((b"p:a*", b"__key*__:*"), 2):
        count = b":%d\r\n" % number
        shown = resp(kind, bulk(b"psubscribe"), bulk(name.replace(b"p:", b"")), count)
        assert talk.gets(resp(kind, bulk(b"psubscribe"), bulk(name), count)) == shown
    for before, after in [
        ((b"message", b"p:a", b"p:x"), (b"message", b"a", b"p:x")),
        ((b"message", b"q:a", b"p:x"), ()),
        ((b"smessage", b"p:a", b"p:x"), (b"smessage", b"a", b"p:x")),
        ((b"pmessage", b"p:a*", b"p:ab", b"x"), (b"pmessage", b"a*", b"ab", b"x")),
        ((b"message", b"__keyevent@0__:set", b"p:x"), (b"message", b"__keyevent@0__:set", b"x")),
        ((b"message", b"__keyevent@0__:set", b"q:x"), ()),
        ((b"message", b"__keyspace@0__:p:a", b"set"), (b"message", b"__keyspace@0__:a", b"set")),
        (
            (b"pmessage", b"__key*__:*", b"__keyspace@0__:p:a", b"set"),
            (b"pmessage", b"__key*__:*", b"__keyspace@0__:a", b"set"),
        ),
        ((b"pmessage", b"__key*__:*", b"__keyspace@0__:q:a", b"set"), ()),
        ((b"pmessage", b"__key*__:*", b"__keyevent@0__:del", b"q:a"), ()),
    ]:
        shown = resp(kind, *map(bulk, after)) if after else b""
        assert talk.gets(resp(kind, *map(bulk, before))) == shown


def test_replies_between_messages_of_resp3() -> None:
    """A value may look like a message's first word."""
    talk = Talk()
    talk.sends("SUBSCRIBE a", "LRANGE l 0 -1", "KEYS *")
    got = talk.gets(
        push(bulk(b"subscribe"), bulk(b"p:a"), b":1\r\n"),
        bulks(b"message", b"p:a", b"p:x"),
        push(bulk(b"message"), bulk(b"p:a"), bulk(b"x")),
        bulks(b"p:k"),
    )
    assert got == (
        push(bulk(b"subscribe"), bulk(b"a"), b":1\r\n")
        + bulks(b"message", b"p:a", b"p:x")
        + push(bulk(b"message"), bulk(b"a"), bulk(b"x"))
        + bulks(b"k")
    )


def test_after_the_last_subscription_of_resp2() -> None:
    """Arrays are replies again, whatever their first word."""
    talk = Talk()
    talk.sends("SUBSCRIBE a b", "UNSUBSCRIBE", "LRANGE l 0 -1", "KEYS *")
    for word, name, count in [
        (b"subscribe", b"a", 1), (b"subscribe", b"b", 2),
        (b"unsubscribe", b"b", 1), (b"unsubscribe", b"a", 0),
    ]:  # fmt: skip
        sent = array(bulk(word), bulk(b"p:" + name), b":%d\r\n" % count)
        assert talk.gets(sent) == array(bulk(word), bulk(name), b":%d\r\n" % count)
    assert talk.gets(bulks(b"message", b"p:a", b"x")) == bulks(b"message", b"p:a", b"x")
    assert talk.gets(bulks(b"p:a")) == bulks(b"a")


def test_after_reset_there_are_no_subscriptions() -> None:
    talk = Talk()
    talk.sends("SUBSCRIBE a", "RESET")
    talk.gets(array(bulk(b"subscribe"), bulk(b"p:a"), b":1\r\n"), b"+RESET\r\n")
    talk.resumes()
    talk.sends("LRANGE l 0 -1")
    value = bulks(b"message", b"p:a", b"x")
    assert talk.gets(value) == value


def test_each_kind_of_subscription_is_counted_by_itself() -> None:
    """UNSUBSCRIBE is over when there is no channel left, though there are patterns."""
    talk = Talk()
    talk.sends("SUBSCRIBE a b", "PSUBSCRIBE c", "SSUBSCRIBE d", "UNSUBSCRIBE", "KEYS *")
    for word, name, count in [
        (b"subscribe", b"a", 1), (b"subscribe", b"b", 2), (b"psubscribe", b"c", 3),
        (b"ssubscribe", b"d", 1), (b"unsubscribe", b"a", 2), (b"unsubscribe", b"b", 1),
    ]:  # fmt: skip
        sent = push(bulk(word), bulk(b"p:" + name), b":%d\r\n" % count)
        assert talk.gets(sent) == push(bulk(word), bulk(name), b":%d\r\n" % count)
    assert talk.gets(bulks(b"p:a")) == bulks(b"a")


@pytest.mark.parametrize("line", ["SUBSCRIBE a", "SUBSCRIBE a b c"])
def test_what_is_behind_a_subscription_that_is_refused(line: str) -> None:
    talk = Talk()
    talk.sends(line, "KEYS *")
    assert talk.gets(b"-NOPERM x\r\n", bulks(b"p:a")) == b"-NOPERM x\r\n" + bulks(b"a")


def test_a_subscription_that_is_refused() -> None:
    """Its error is the one reply to it."""
    talk = Talk()
    talk.sends("SUBSCRIBE a b", "KEYS *", "UNSUBSCRIBE", "KEYS *")
    none = array(bulk(b"unsubscribe"), bulk(None), b":0\r\n")
    got = talk.gets(b"-NOPERM x\r\n", bulks(b"p:a"), none, bulks(b"p:a"))
    assert got == b"-NOPERM x\r\n" + bulks(b"a") + none + bulks(b"a")


def test_invalidations() -> None:
    """As RESP3 pushes them, as a channel of RESP2 has them, and those of all keys."""
    talk = Talk()
    assert talk.gets(push(bulk(b"invalidate"), bulks(b"p:a"))) == push(
        bulk(b"invalidate"), bulks(b"a")
    )
    everything = push(bulk(b"invalidate"), b"_\r\n")
    assert talk.gets(everything) == everything
    other = Talk()
    other.sends("SUBSCRIBE __redis__:invalidate")
    confirmed = array(bulk(b"subscribe"), bulk(b"__redis__:invalidate"), b":1\r\n")
    assert other.gets(confirmed) == confirmed
    message = array(bulk(b"message"), bulk(b"__redis__:invalidate"), bulks(b"p:a", b"p:b"))
    shown = array(bulk(b"message"), bulk(b"__redis__:invalidate"), bulks(b"a", b"b"))
    assert other.gets(message) == shown


# RANDOMKEY


def scanned(cursor: bytes, *keys: bytes) -> bytes:
    """A reply to SCAN."""
    return array(bulk(cursor), bulks(*keys))


def test_a_random_key_is_one_of_its_own() -> None:
    """It scans until there is one; what follows waits."""
    talk = Talk()
    (scan,) = talk.sends("RANDOMKEY", "KEYS *")
    words = scan.split()
    assert words[0] == "SCAN"
    assert words[2:] == ["MATCH", "p:*", "COUNT", "1000"]
    assert talk.gets(scanned(b"77")) == b""
    assert talk.resumes() == ["SCAN 77 MATCH p:* COUNT 1000"]
    assert talk.gets(scanned(b"0")) == b""
    assert talk.resumes() == ["SCAN 0 MATCH p:* COUNT 1000"]
    assert talk.gets(scanned(b"5", b"p:a")) == bulk(b"a")
    assert talk.resumes() == ["KEYS p:*"]
    assert talk.gets(bulks(b"p:a")) == bulks(b"a")


def test_no_key_at_all() -> None:
    """The null string of the client's protocol."""
    for protocol, null in ((2, b"$-1\r\n"), (3, b"_\r\n")):
        talk = Talk(protocol=protocol)
        talk.sends("RANDOMKEY")
        talk.gets(scanned(b"0"))
        talk.resumes()
        assert talk.gets(scanned(b"0")) == null


def test_a_random_key_is_refused() -> None:
    """The server's error is the answer."""
    talk = Talk()
    talk.sends("RANDOMKEY", "GET a")
    assert talk.gets(b"-NOPERM x\r\n") == b"-NOPERM x\r\n"
    assert talk.resumes() == ["GET p:a"]


def test_random_keys_are_not_always_the_same() -> None:
    """The one that is given is drawn."""
    talk, found = Talk(), set()
    for _ in range(50):
        talk.sends("RANDOMKEY")
        found.add(talk.gets(scanned(b"0", b"p:a", b"p:b", b"p:c")))
        talk.resumes()
    assert found == {bulk(b"a"), bulk(b"b"), bulk(b"c")}
