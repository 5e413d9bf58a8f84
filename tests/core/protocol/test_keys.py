"""Which keys a request names, by the rules that ship.

What servers themselves say of their requests is in tests/compat/test_keys.py, any rules and any
bytes in test_key_rules.py.
"""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.protocol.keys import (
    ANY,
    TOO_MANY,
    UNDECLARED,
    UNKNOWN,
    first_key_of,
    found_keys,
    keys_of,
)
from tests.native.shell import request, table

# Written keys stand in brackets.
NAMED = {
    "GET k": "k",
    "get k": "k",
    "SET k v": "[k]",
    "HGET h f": "h",
    "GETEX k EX 10": "[k]",
    "MGET a b c": "a b c",
    "DEL a b": "[a] [b]",
    "TOUCH a": "a",
    "MSET a 1 b 2": "[a] [b]",
    "mSetNx a 1 b 2 c 3": "[a] [b] [c]",
    "MSETEX 2 a 1 b 2 EX 10": "[a] [b]",
    "BITOP AND d a b": "[d] a b",
    "RENAME a b": "[a] [b]",
    "COPY a b DB 1 REPLACE": "a [b]",
    "SMOVE a b m": "[a] [b]",
    "LMOVE a b LEFT RIGHT": "[a] [b]",
    "PFCOUNT a b": "[a] [b]",
    "PFMERGE d": "[d]",
    "PFMERGE d a b": "[d] a b",
    "BLPOP a b 0": "[a] [b]",
    "LCS a b LEN": "a b",
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2": "[d] a b",
    "ZINTER 1 a WITHSCORES": "a",
    "ZINTERCARD 2 a b LIMIT 3": "a b",
    "SINTERCARD 2 a b": "a b",
    "LMPOP 2 a b LEFT COUNT 3": "[a] [b]",
    "BLMPOP 0.1 2 a b LEFT": "[a] [b]",
    "BZMPOP 0 1 a MIN": "[a]",
    "EVAL script 2 a b c": "[a] [b]",
    "evalsha 0123 1 a": "[a]",
    "EVAL_RO script 1 a b": "a",
    "FCALL f 1 a b": "[a]",
    "FCALL_RO f 2 a b": "a b",
    "SORT k": "k",
    "SORT k BY nosort GET # GET x_* DESC STORE d": "k [d]",
    "sort k store d": "k [d]",
    "SORT k STORE d store e": "k [e]",
    "SORT k BY store GET store LIMIT store 1": "k",
    "SORT k STORE": "k",
    "SORT k STORE limit STORE d": "k [d]",
    "SORT_RO k BY w_* GET store": "k",
    "GEORADIUS k 1 2 3 m STORE d": "k [d]",
    "GEORADIUS k 1 2 3 m COUNT 1 storedist d": "k [d]",
    "GEORADIUS k 1 2 3 m STORE d STOREDIST e": "k [e]",
    "GEORADIUS k 1 2 3 m STORE store": "k [store]",
    "GEORADIUS k 1 2 3 m STORE": "k",
    "GEORADIUSBYMEMBER k m 3 km store d": "k [d]",
    "GEORADIUS_RO k 1 2 3 m STORE d": "k",
    "GEOSEARCHSTORE d k FROMMEMBER m BYRADIUS 1 m": "[d] k",
    "ZRANGESTORE d k 0 1": "[d] k",
    "MIGRATE host 6379 k 0 100": "[k]",
    "MIGRATE host 6379 k 0 100 COPY REPLACE AUTH keys": "[k]",
    'MIGRATE host 6379 "" 0 100 COPY KEYS a b': "[a] [b]",
    'MIGRATE host 6379 "" 0 100 auth KEYS keys a b': "[a] [b]",
    'MIGRATE host 6379 "" 0 100 AUTH2 keys KEYS KEYS a': "[a]",
    "XREAD STREAMS a b 0 0": "a b",
    "XREAD COUNT 2 BLOCK 0 streams a $": "a",
    "XREADGROUP GROUP g c COUNT 1 STREAMS a b > >": "a b",
    "XADD s * f v": "[s]",
    "XGROUP CREATE s g $ MKSTREAM": "[s]",
    "xgroup createconsumer s g c": "[s]",
    "XGROUP DESTROY s g": "[s]",
    "XINFO STREAM s FULL": "s",
    "OBJECT ENCODING k": "k",
    "object freq k": "k",
    "MEMORY USAGE k SAMPLES 5": "k",
    "WATCH a b": "a b",
    "PFDEBUG getreg k": "[k]",
    "VADD v VALUES 1 1 e": "[v]",
    # None
    "PING": "",
    "PUBLISH channel text": "",
    "SPUBLISH channel text": "",
    "SSUBSCRIBE a b": "",
    "SCAN 0 MATCH k": "",
    "KEYS *": "",
    "OBJECT HELP": "",
    "XGROUP HELP": "",
    "XINFO HELP": "",
    "MEMORY STATS": "",
    "CONFIG SET maxmemory 1": "",
    "CLIENT LIST": "",
    "SCRIPT LOAD x": "",
    "FUNCTION FLUSH": "",
    "EXEC": "",
    "CLUSTER INFO": "",
    # Refused by the server, whatever is found
    "RENAME a": "[a]",
    "XREAD STREAMSX a 0": "",
    "XREAD STREAMS": "",
}

CODES = {
    "EVAL script 0": UNDECLARED,
    "EVAL script 0 a b": UNDECLARED,
    "evalsha_ro 01 0": UNDECLARED,
    "FCALL f 0 a": UNDECLARED,
    "FCALL_RO f 0": UNDECLARED,
    "FLUSHALL": ANY,
    "flushdb ASYNC": ANY,
    "SWAPDB 0 1": ANY,
    "DEBUG RELOAD": ANY,
    "REPLICAOF host 1": ANY,
    "CLUSTER FLUSHSLOT 1": ANY,
    # Counts that are none
    "EVAL script": UNKNOWN,
    "EVAL script -1 a": UNKNOWN,
    "EVAL script +1 a": UNKNOWN,
    "EVAL script 01 a": UNKNOWN,
    'EVAL script "" a': UNKNOWN,
    'EVAL script " 1" a': UNKNOWN,
    "EVAL script x a": UNKNOWN,
    "EVAL script 1.0 a": UNKNOWN,
    "EVAL script 3 a b": UNKNOWN,
    "EVAL script 999999999 a": UNKNOWN,
    "EVAL script 4294967297 a": UNKNOWN,
    "EVAL script 18446744073709551617 a": UNKNOWN,
    "ZUNIONSTORE d 0 a": UNKNOWN,
    "ZUNIONSTORE d 9223372036854775807 a": UNKNOWN,
    "SINTERCARD 0 a": UNKNOWN,
    "LMPOP -2 a b LEFT": UNKNOWN,
    "MSETEX 3 a 1 b 2": UNKNOWN,
    # Others the server refuses
    "MIGRATE host 6379 k 0 100 KEYS a b": UNKNOWN,
    "GET": UNKNOWN,
    "XGROUP": UNKNOWN,
    "XGROUP NOSUCH s": UNKNOWN,
    "OBJECT ENCODIN k": UNKNOWN,
    "NOSUCH k": UNKNOWN,
    "M.SET k v": UNKNOWN,
}


def arguments(line: str) -> list[bytes]:
    return [word.encode() for word in shlex.split(line)]


@pytest.mark.parametrize(("line", "expected"), NAMED.items())
def test_named(line: str, expected: str) -> None:
    keys = [(w.strip("[]").encode(), w.startswith("[")) for w in expected.split()]
    raw = request(*arguments(line))
    assert found_keys(table(), raw) == keys
    assert keys_of(table(), raw) == [key for key, _ in keys]


@pytest.mark.parametrize(("line", "code"), CODES.items())
def test_not_known(line: str, code: int) -> None:
    raw = request(*arguments(line))
    assert found_keys(table(), raw) == code
    assert keys_of(table(), raw) is None
    assert first_key_of(table(), raw) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET k", (b"k", False)),
        ("set k v EX 10", (b"k", True)),
        ("HGETALL k", (b"k", False)),
        ("PFADD k e", (b"k", True)),
        ("MGET k", (b"k", False)),
        ("EXISTS k", (b"k", False)),
        ("DEL k", (b"k", True)),
        ("MGET a b", None),
        ("DEL a b", None),
        ("MSET k v", None),
        ("RENAME a b", None),
        ("OBJECT ENCODING k", None),
        ("SORT k", None),
        ("EVAL s 1 k", None),
        ("GET", None),
        ("PING k", None),
        ("NOSUCH k", None),
        ("FLUSHALL k", None),
    ],
)
def test_the_short_way(line: str, expected: tuple[bytes, bool] | None) -> None:
    assert first_key_of(table(), request(*line.split())) == expected


@given(st.sampled_from(["GET", "SET", "DEL", "MGET", "PING"]), st.lists(st.binary(), max_size=4))
def test_the_short_way_finds_the_same(name: str, args: list[bytes]) -> None:
    raw = request(name, *args)
    found = found_keys(table(), raw)
    assert isinstance(found, list) or (not args and found == UNKNOWN)
    short = first_key_of(table(), raw)
    assert short is None or [short] == found
    assert short is not None or not isinstance(found, list) or len(found) != 1
    assert first_key_of(table(), raw + b"x") is None


def test_a_word_ends_at_a_nul() -> None:
    """Servers compare option words as C strings: this SORT does write to d."""
    assert keys_of(table(), request("SORT", "k", b"STORE\0x", "d")) == [b"k", b"d"]
    assert keys_of(table(), request("XREAD", b"streams\0", "s", 0)) == [b"s"]
    assert keys_of(table(), request("SORT", "k", b"STOREx", "d")) == [b"k"]
    assert keys_of(table(), request("SORT", "k", b"STOR\0", "d")) == [b"k"]
    # But not names of commands and subcommands.
    assert keys_of(table(), request(b"GET\0", "k")) is None
    assert keys_of(table(), request("OBJECT", b"FREQ\0", "k")) is None


def test_keys_are_any_bytes() -> None:
    odd = [b"", b"\r\n", b"$1\r\nk\r\n", bytes(range(256)), b"*2\r\n"]
    assert keys_of(table(), request("MGET", *odd)) == odd
    for key in odd:
        assert first_key_of(table(), request("GET", key)) == (key, False)


@pytest.mark.parametrize("name", ["MGET", "MSET", "ZUNIONSTORE", "EVAL", "XREAD", "SDIFFSTORE"])
def test_room(name: str) -> None:
    before, step = {
        "MGET": ([], 1),
        "MSET": ([], 2),
        "ZUNIONSTORE": (["d", 50], 1),
        "EVAL": (["s", 50], 1),
        "XREAD": (["STREAMS"], 1),
        "SDIFFSTORE": (["d"], 1),
    }[name]
    keys = [b"%d" % (i // step) for i in range(50 * step)]
    raw = request(name, *before, *keys, *([0] * 50 if name == "XREAD" else []))
    many = 50 + (name in ("ZUNIONSTORE", "SDIFFSTORE"))
    assert len(keys_of(table(), raw, many) or ()) == many
    for most in (0, 1, 10, many - 1):
        assert found_keys(table(), raw, most) == TOO_MANY
    assert found_keys(table(), request("PING"), 0) == []
    with pytest.raises(ValueError, match="negative"):
        found_keys(table(), raw, -1)


def test_a_huge_request() -> None:
    raw = request("DEL", *range(200_000))
    assert found_keys(table(), raw) == TOO_MANY
    assert len(keys_of(table(), raw, 200_000) or ()) == 200_000
