"""Requests of a client with a key prefix: what the server gets."""

from __future__ import annotations

import pytest

from sidecar.core.protocol.commands import FINDS, FORMS, CommandTable
from sidecar.core.rewrite.rules import RewriteRules
from tests.core.rewrite.client import Talk, rules

REWRITTEN = """
GET a | GET p:a
get a | get p:a
MGET a b | MGET p:a p:b
MSET a 1 b 2 | MSET p:a 1 p:b 2
COPY a a | COPY p:a p:a
OBJECT ENCODING a | OBJECT ENCODING p:a
MEMORY USAGE a | MEMORY USAGE p:a
BITOP AND d a b | BITOP AND p:d p:a p:b
ZUNIONSTORE d 2 a b WEIGHTS 1 2 | ZUNIONSTORE p:d 2 p:a p:b WEIGHTS 1 2
EVAL s 2 a b c | EVAL s 2 p:a p:b c
EVAL s 0 c | EVAL s 0 c
EVAL s x c | EVAL s x c
GEORADIUS g 1 2 3 km STOREDIST d | GEORADIUS p:g 1 2 3 km STOREDIST p:d
XREAD COUNT 1 STREAMS a b 0 0 | XREAD COUNT 1 STREAMS p:a p:b 0 0
XREAD BLOCK 0 STREAMS streams 0 | XREAD BLOCK 0 STREAMS p:streams 0
XREADGROUP GROUP streams c STREAMS a > | XREADGROUP GROUP streams c STREAMS p:a >
XREADGROUP GROUP g c NOACK CLAIM 1 STREAMS a > | XREADGROUP GROUP g c NOACK CLAIM 1 STREAMS p:a >
XREAD FUTURE STREAMS a 0 | XREAD FUTURE STREAMS p:a 0
SORT a BY w_* GET # GET o_*->f GET x STORE d | SORT p:a BY p:w_* GET # GET p:o_*->f GET x STORE p:d
SORT a BY nosort LIMIT store 1 | SORT p:a BY nosort LIMIT store 1
SORT_RO a GET b* | SORT_RO p:a GET p:b*
KEYS a* | KEYS p:a*
SCAN 0 | SCAN 0 MATCH p:*
SCAN 0 COUNT 5 | SCAN 0 MATCH p:* COUNT 5
SCAN 0 COUNT | SCAN 0 MATCH p:* COUNT
SCAN 0 match a* TYPE match | SCAN 0 match p:a* TYPE match
SCAN 0 MATCH a MATCH b | SCAN 0 MATCH p:a MATCH p:b
SCAN 0 FUTURE MATCH a | SCAN 0 FUTURE MATCH p:a
SCAN | SCAN
HSCAN a 0 MATCH b | HSCAN p:a 0 MATCH b
PUBLISH a b | PUBLISH p:a b
SPUBLISH a b | SPUBLISH p:a b
SUBSCRIBE a b | SUBSCRIBE p:a p:b
SSUBSCRIBE a | SSUBSCRIBE p:a
PSUBSCRIBE a* | PSUBSCRIBE p:a*
SUBSCRIBE __redis__:invalidate | SUBSCRIBE __redis__:invalidate
SUBSCRIBE __keyspace@0__:a | SUBSCRIBE __keyspace@0__:p:a
SUBSCRIBE __keyevent@0__:set | SUBSCRIBE __keyevent@0__:set
PSUBSCRIBE __key*__:* | PSUBSCRIBE __key*__:*
PSUBSCRIBE __keyspace@*__:a* | PSUBSCRIBE __keyspace@*__:p:a*
SUBSCRIBE __key*__:* | SUBSCRIBE p:__key*__:*
UNSUBSCRIBE | UNSUBSCRIBE
PUBSUB CHANNELS | PUBSUB CHANNELS p:*
PUBSUB CHANNELS a* | PUBSUB CHANNELS p:a*
PUBSUB SHARDNUMSUB a b | PUBSUB SHARDNUMSUB p:a p:b
PUBSUB NUMPAT | PUBSUB NUMPAT
CLIENT TRACKING ON | CLIENT TRACKING ON
CLIENT TRACKING ON BCAST | CLIENT TRACKING ON BCAST PREFIX p:
CLIENT TRACKING ON PREFIX bcast BCAST PREFIX b | CLIENT TRACKING ON PREFIX p:bcast BCAST PREFIX p:b
CLIENT SETNAME a | CLIENT SETNAME a
CLUSTER KEYSLOT a | CLUSTER KEYSLOT p:a
CLUSTER INFO | CLUSTER INFO
COMMAND GETKEYS GET a | COMMAND GETKEYS GET a
CONFIG GET a | CONFIG GET a
CONFIG | CONFIG
ACL WHOAMI | ACL WHOAMI
SLOWLOG LEN | SLOWLOG LEN
INFO | INFO
"""

REFUSED = """
FLUSHALL
FLUSHDB
SWAPDB 0 1
DBSIZE
MONITOR
SYNC
PSYNC ? -1
DEBUG OBJECT a
MIGRATE h 1 a 0 1
SAVE
SHUTDOWN
REPLICAOF no one
CONFIG SET a b
ACL SETUSER a
ACL LOG
SLOWLOG GET
MODULE LOAD a
CLIENT REPLY OFF
CLIENT Reply\0x OFF
CLUSTER GETKEYSINSLOT 1 1
CLUSTER COUNTKEYSINSLOT 1
CLUSTER FLUSHSLOTS
CLUSTERSCAN 0
"""


@pytest.mark.parametrize("line", REWRITTEN.strip().splitlines())
def test_names_get_the_prefix(line: str) -> None:
    """Wherever a request has a key, a pattern or a channel, and nowhere else."""
    sent, got = line.split(" | ")
    assert Talk().sends(sent) == [got]


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_what_has_no_keys_of_its_own_is_refused(line: str) -> None:
    """In its turn: the server is asked for what it certainly refuses."""
    talk = Talk()
    assert talk.sends("GET a", line, "GET b") == ["GET p:a", "GET", "GET p:b"]
    got = talk.gets(b"$1\r\nx\r\n-ERR wrong number of arguments for 'get' command\r\n:1\r\n")
    assert got.startswith(b"$1\r\nx\r\n-NOPERM the sidecar can't keep '")
    assert got.endswith(b"' within a key prefix\r\n:1\r\n")


def test_a_command_that_is_not_known_is_the_servers_error() -> None:
    """Its keys could not get a prefix, so the server does not see it."""
    talk = Talk()
    assert talk.sends("FOO a b", "GET") == ["GET", "GET"]
    own = b"-ERR wrong number of arguments for 'get' command\r\n"
    unknown = b"-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"
    assert talk.gets(own, own) == unknown + own


def test_other_errors_in_a_refused_commands_turn_are_shown() -> None:
    """The link is lost, or the sidecar has another reason."""
    talk = Talk()
    talk.sends("FLUSHALL")
    assert talk.gets(b"-UNAVAILABLE x\r\n") == b"-UNAVAILABLE x\r\n"


def test_renamed_commands() -> None:
    """By their new names they are what the server calls them; the server's names are unknown."""
    talk = Talk(rules(b"", {b"XGET": b"get", b"SET": b"append"}))
    sent = talk.sends("xget a", "GET a", "set a b", "APPEND a b", "MGET a", "nothing a")
    assert sent == ["get a", "GET", "append a b", "GET", "MGET a", "nothing a"]
    own = b"-ERR wrong number of arguments for 'get' command\r\n"
    got = talk.gets(b"$-1\r\n", own, b":1\r\n", own, b"*0\r\n", b"-ERR unknown\r\n")
    assert got == (
        b"$-1\r\n-ERR unknown command 'GET', with args beginning with: 'a' \r\n:1\r\n"
        b"-ERR unknown command 'APPEND', with args beginning with: 'a' 'b' \r\n*0\r\n"
        b"-ERR unknown\r\n"
    )


def test_renamed_commands_with_a_prefix() -> None:
    """Both hold."""
    talk = Talk(rules(b"p:", {b"XGET": b"get", b"XFLUSHALL": b"FLUSHALL"}))
    assert talk.sends("XGET a", "XFLUSHALL") == ["get p:a", "GET"]


def test_without_a_prefix_nothing_is_refused() -> None:
    """Replies that are not one for each request pass as they are."""
    talk = Talk(rules(b"", {b"XGET": b"get"}))
    assert talk.sends("FLUSHALL", "SCAN 0", "MONITOR") == ["FLUSHALL", "SCAN 0", "MONITOR"]
    assert talk.sends("xget a", "GET a") == ["get a", "GET"]
    raw = b'+OK\r\n*2\r\n$1\r\n0\r\n*0\r\n+OK\r\n+1 [0] "GET"\r\n'
    assert talk.gets(raw) == raw


def test_subscriptions_do_not_mix_with_a_transaction() -> None:
    """Their confirmations would break EXEC's array."""
    talk = Talk()
    sent = talk.sends("MULTI", "SUBSCRIBE a", "RANDOMKEY", "EXEC", "SUBSCRIBE a")
    assert sent == ["MULTI", "GET", "GET", "EXEC", "SUBSCRIBE p:a"]


@pytest.mark.parametrize("places", [(3, 1), (1, 3), (2, 2), (3, 3)])
def test_specifications_in_any_order(places: tuple[int, int]) -> None:
    """Of a module: they may tell the same key."""
    table = CommandTable(1, ["other"])
    specs = tuple((b"", at, FINDS["range"], 0, 0, 1, 0, 0, 0) for at in places)
    table.update({b"module.do": (0, 0, 0, -1, (FORMS["specs"], specs, ()), ())})
    talk = Talk(RewriteRules(table, {}, b"p:"))
    words = [f"p:a{i}" if i in places else f"a{i}" for i in (1, 2, 3)]
    assert talk.sends("module.do a1 a2 a3") == [" ".join(["module.do", *words])]


@pytest.mark.parametrize("form", ["unknown", "none", "any"])
def test_a_module_whose_keys_are_not_known(form: str) -> None:
    """Nothing says that it is kept apart."""
    table = CommandTable(1, ["other"])
    table.update({b"ft.search": (0, 0, 0, -1, (FORMS[form], (), ()), ())})
    assert Talk(RewriteRules(table, {}, b"p:")).sends("FT.SEARCH a b") == ["GET"]


def test_a_command_that_was_learnt_later() -> None:
    """The table has it when the server has said that it has it."""
    table = CommandTable(1, ["other"])
    talk = Talk(RewriteRules(table, {}, b"p:"))
    assert talk.sends("NEW a") == ["GET"]
    table.update({b"new": (0, 0, 0, -1, (FORMS["one"], (), ()), ())})
    assert talk.sends("NEW a") == ["NEW p:a"]
