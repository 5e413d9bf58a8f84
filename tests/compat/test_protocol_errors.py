"""Broken requests: the same error text, the same replies before it, and then a closed connection.

Each case is sent whole and byte by byte. `ERROR_CASES` hold everywhere; `VALKEY_CASES` are those
where Valkey 9.1 refuses what Redis lets pass (a wrong byte after a payload, a NUL in a header): in
front of Redis the sidecar may do as either does, it must only stay alive and keep others apart.
"""

from __future__ import annotations

import pytest

from tests.harness.farm import Farm
from tests.harness.pair import Pair, Session
from tests.harness.refdecoder import requests
from tests.harness.servers import Server
from tests.harness.wire import Wire, pack

ERROR_CASES = {
    "count-not-a-number": b"*x\r\n",
    "count-empty": b"*\r\n",
    "count-plus": b"*+1\r\n",
    "count-leading-zero": b"*01\r\n",
    "count-minus-zero": b"*-0\r\n",
    "count-space": b"*1 \r\n",
    "count-too-big": b"*2147483648\r\n",
    "count-beyond-64-bit": b"*9223372036854775808\r\n",
    "count-21-digits": b"*111111111111111111111\r\n",
    "no-dollar": b"*1\r\nx4\r\n",
    "no-dollar-colon": b"*2\r\n$4\r\nECHO\r\n:5\r\n",
    "no-dollar-empty": b"*1\r\n\r\n",
    "no-dollar-newline": b"*1\r\n\n$4\r\n",
    "no-dollar-high-byte": b"*1\r\n\xff\r\n",
    "bulk-not-a-number": b"*1\r\n$x\r\n",
    "bulk-empty": b"*1\r\n$\r\n",
    "bulk-negative": b"*1\r\n$-1\r\n",
    "bulk-leading-zero": b"*1\r\n$04\r\nPING\r\n",
    "bulk-plus": b"*1\r\n$+4\r\nPING\r\n",
    "bulk-too-big": b"*1\r\n$536870913\r\n",
    "bulk-beyond-64-bit": b"*1\r\n$99999999999999999999\r\n",
    "second-bulk-bad": b"*2\r\n$3\r\nGET\r\n$abc\r\n",
    "unbalanced-double": b'SET "k v\r\n',
    "unbalanced-single": b"SET 'k v\r\n",
}

LONG_CASES = {
    "inline-too-big": b"A" * 70000,
    "count-line-too-big": b"*" + b"1" * 70000,
    "bulk-line-too-big": b"*1\r\n$" + b"1" * 70000,
}

VALKEY_CASES = {
    "payload-without-crlf": b"*1\r\n$4\r\nPINGxx",
    "payload-too-long": b"*1\r\n$4\r\nPINGS\r\n",
    "payload-lf-only": b"*1\r\n$4\r\nPING\n\n",
    "count-cr-without-lf": b"*1\rX$4\r\nPING\r\n",
    "bulk-cr-without-lf": b"*1\r\n$4\rXPING\r\n",
    "bad-count-and-cr-without-lf": b"*x\rX",
    "no-dollar-and-cr-without-lf": b"*1\r\nx4\rX",
    "nul-for-dollar": b"*1\r\n\x00\r\n",
    "nul-in-count": b"*1\x00\r\n",
    "nul-in-length": b"*1\r\n$4\x00\r\nPING\r\n",
}

QUOTES = {
    "text-after-quote": b'ECHO "a"b\r\n',
    "text-after-single-quote": b"ECHO 'a'b\r\n",
    "quote-after-quote": b"ECHO ''\"b\"'c d'e\r\n",
    "name-in-pieces": b"\"EC\"HO ''''a\r\n",
    "blank-after-quote": b'ECHO "a" \r\n',
    "vertical-tab-after-quote": b'ECHO "a"\x0b\r\n',
    "vertical-tab-in-word": b"ECHO a\x0bb\x0cc \x0bd\r\n",
    "vertical-tab-between": b"ECHO \x0b\x0ca\r\n",
    "open-after-escape": b'ECHO "a\\\r\n',
    "escape-at-the-end": b"ECHO 'a\\'\r\n",
    "hex-at-the-end": b'ECHO "a\\x41"\r\n',
    "half-hex-at-the-end": b'ECHO "a\\x4"\r\n',
    "escaped-last-quote": b'ECHO "a\\"\r\n',
    "open-quote-after-quote": b"ECHO 'a'\"b\r\n",
}
"""Inline requests with something behind a closing quote: since Valkey 9 the word goes on."""

BYTE_FF = b"ECHO \xff\xfe\r\n"
"""Valkey 9.1 loses the first byte."""

FINE_CASES = {
    "count-zero": b"*0\r\n",
    "count-minus-one": b"*-1\r\n",
    "count-very-negative": b"*-9999999999999\r\n",
    "count-least-64-bit": b"*-9223372036854775808\r\n",
    "blank-lines": b"\r\n\n  \r\n\t\n",
    "inline": b"ECHO hello\r\n",
    "inline-lf-only": b"ECHO hello\n",
    "inline-spaces": b"   ECHO \t hello   \r\n",
    "inline-double-quotes": b'ECHO "a \\x41\\n\\r\\t\\b\\a\\\\ \\"q\\" \\z"\r\n',
    "inline-single-quotes": b"ECHO 'a \\'b\\' \\x41 \"c\"'\r\n",
    "inline-bad-hex": b'ECHO "\\xZZ\\x4"\r\n',
    "inline-empty-argument": b'ECHO ""\r\n',
    "inline-quote-inside": b'ECHO a"b c"\r\n',
    "inline-arity": b"GET\r\n",
    "inline-dollar": b"$4\r\nPING\r\n",
    "inline-colon": b":1\r\n",
    "inline-high-bytes": b"ECHO \x80\xfe\r\n",
    "inline-then-multibulk": b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n",
    "empty-argument": b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    "empty-name": b"*1\r\n$0\r\n\r\n",
}


def whole(data: bytes, session: Session) -> None:
    """Some good requests, then the case, all in one write."""
    client = session.open()
    client.send(pack("SET", "before", "1") + pack("INCR", "before") + data)
    client.to_end()


def bytewise(data: bytes, session: Session) -> None:
    """One byte a write, up to the one that makes it an error."""
    client = session.open()
    client.cmd("SET", "before", "1")
    for index, byte in enumerate(data):
        client.send(bytes([byte]))
        if list(requests(data[: index + 1]))[-1][0] == "error":
            break
    client.to_end()


@pytest.mark.parametrize("case", [*ERROR_CASES, *LONG_CASES])
def test_error_sent_whole(pair: Pair, case: str) -> None:
    """Earlier replies, the server's text, the end."""
    data = (ERROR_CASES | LONG_CASES)[case]
    record = pair.same(lambda session: whole(data, session))
    assert record[-1][2].startswith(b"+OK\r\n:2\r\n-ERR Protocol error: ")


@pytest.mark.parametrize("case", ERROR_CASES)
def test_error_sent_bytewise(pair: Pair, case: str) -> None:
    """The text does not depend on how the bytes arrive."""
    record = pair.same(lambda session: bytewise(ERROR_CASES[case], session))
    assert record[-1][2].startswith(b"-ERR Protocol error: ")


@pytest.mark.parametrize("case", VALKEY_CASES)
def test_strict_error(valkey_pair: Pair, case: str) -> None:
    """What Valkey 9.1 refuses is refused with its text."""
    record = valkey_pair.same(lambda session: whole(VALKEY_CASES[case], session))
    assert record[-1][2].startswith(b"+OK\r\n:2\r\n-ERR Protocol error: ")


@pytest.mark.redis
@pytest.mark.parametrize("case", VALKEY_CASES)
def test_strict_error_before_redis(farm: Farm, case: str) -> None:
    """In front of Redis such a request is refused or passed, and nobody else is hurt."""
    pair = farm.pair("redis7")
    with Wire(pair.sidecar.port) as other, Wire(pair.sidecar.port) as bad:
        assert other.cmd("ECHO", "one") == b"$3\r\none\r\n"
        bad.send(VALKEY_CASES[case])
        bad.half_close()
        assert bad.read_to_end()[:1] in (b"-", b"+", b"")
        assert other.cmd("ECHO", "two") == b"$3\r\ntwo\r\n"


@pytest.mark.parametrize("case", FINE_CASES)
def test_unusual_but_fine(pair: Pair, case: str) -> None:
    """Odd spellings that servers accept: the same replies, and the connection goes on."""

    def script(session: Session) -> None:
        client = session.open()
        client.send(FINE_CASES[case])
        client.drain()
        for byte in FINE_CASES[case]:
            client.send(bytes([byte]))
        client.drain()
        client.cmd("ECHO", "still here")

    pair.same(script)


@pytest.mark.parametrize("case", QUOTES)
def test_quotes(pair: Pair, case: str) -> None:
    """Each server's own reading of quotes; a request that is refused ends the connection."""
    pair.same(lambda session: to_the_end(session, QUOTES[case]))


@pytest.mark.parametrize("case", QUOTES)
def test_quotes_of_session_commands(pair: Pair, case: str) -> None:
    """The same for a request that the sidecar answers itself."""
    data = QUOTES[case].replace(b"ECHO", b"CLIENT SETNAME").replace(b'"EC"HO', b'"CLI"ENT SETNAME')
    pair.same(lambda session: to_the_end(session, data + b"CLIENT GETNAME\r\n"))


def to_the_end(session: Session, data: bytes) -> None:
    """Send this, say goodbye, and read all that comes."""
    client = session.open()
    client.send(data + b"QUIT\r\n")
    client.to_end()


def test_no_byte_is_lost(pair: Pair) -> None:
    """In front of every server."""
    with Wire(pair.sidecar.port) as wire:
        wire.send(BYTE_FF)
        assert wire.read_reply() == b"$2\r\n\xff\xfe\r\n"


def oracle_agrees(port: int, data: bytes) -> None:
    """Compare the reference decoder's events with what a server does."""
    events = list(requests(data))
    with Wire(port) as wire:
        wire.send(data)
        if events[-1][0] == "error":
            text = str(events[-1][1]).encode("latin-1")
            assert wire.read_to_end() == b"-ERR " + text + b"\r\n"
            return
        assert len(wire.drain()) == len(events) - 1
        for event in events[:-1]:
            if event[0] == "args" and event[1][0] == b"ECHO":
                wire.send(pack(*event[1]) + data)
                first, second = wire.read_replies(2)
                assert first == second


@pytest.mark.parametrize("case", [*ERROR_CASES, *VALKEY_CASES, *FINE_CASES])
def test_oracle_agrees_with_valkey(plain_server: Server, case: str) -> None:
    """The reference decoder of the core's tests says what Valkey says."""
    oracle_agrees(plain_server.port, (ERROR_CASES | VALKEY_CASES | FINE_CASES)[case])


@pytest.mark.redis
@pytest.mark.parametrize("case", [*ERROR_CASES, *QUOTES, *FINE_CASES])
def test_oracle_agrees_with_redis(farm: Farm, case: str) -> None:
    """And, for inline requests, what Redis says."""
    oracle_agrees(farm.server("redis7").port, (ERROR_CASES | QUOTES | FINE_CASES)[case])


@pytest.mark.parametrize("data", [b"*2147483647\r\n", b"*1\r\n$536870912\r\n", b"PING a\x00b\r\n"])
def test_incomplete_is_waited_for(pair: Pair, data: bytes) -> None:
    """The largest legal lengths are not errors; nobody else waits with this client."""

    def script(session: Session) -> None:
        waiting, other = session.open(), session.open()
        waiting.send(data)
        other.run("PING", "SET k v", "GET k")
        waiting.wire.expect_silence()

    pair.same(script)


@pytest.mark.parametrize("name", [b"POST", b"post", b"Host:", b"HOST:"])
def test_cross_protocol_scripting(pair: Pair, name: bytes) -> None:
    """Servers hang up without a word on a web browser's POST and Host:; others are not affected.

    On a shared upstream link the server would hang up on everybody.
    """

    def script(session: Session) -> None:
        browser, other = session.open(), session.open()
        other.cmd("SET", "k", "v")
        browser.send(name + b" /x HTTP/1.1\r\n")
        browser.to_end()
        other.run("GET k", "INCR n")
        again = session.open()
        again.send(pack(name, "x"))
        again.to_end()
        other.run("GET k", "INCR n")

    pair.same(script)


def test_what_came_before_a_browsers_word_is_answered(pair: Pair) -> None:
    """A server drops replies that it has not written yet."""
    with Wire(pair.sidecar.port) as browser:
        browser.send(b"PING\r\nECHO a\r\nPOST / HTTP/1.1\r\nECHO b\r\n")
        assert browser.read_reply() == b"+PONG\r\n"
        assert browser.read_reply() == b"$1\r\na\r\n"
        assert browser.read_to_end() == b""
