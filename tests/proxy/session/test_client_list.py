"""CLIENT LIST with the sidecar's clients in the place of its links: text and facts in, text out.

tests/compat/test_client_list.py asks real servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.session.client_list import (
    Line,
    Listed,
    merge,
    own_line,
    parse,
    printable_address,
    render,
    rewrite,
)

LINK = b"id=7 addr=10.0.0.1:50 name=redis-sidecar age=99 idle=3 flags=N cmd=get user=default \
lib-name=redis-sidecar lib-ver=1"
FOREIGN = (
    b"id=9 addr=10.0.0.2:60 name=app age=5 idle=1 flags=N cmd=blpop user=bob lib-name= lib-ver="
)
SPARE = LINK.replace(b"id=7", b"id=8").replace(b":50", b":51")
TEXT = b"\n".join((LINK, SPARE, FOREIGN)) + b"\n"
OWN = {b"name": b"me", b"user": b"ann", b"lib-name": b"lib", b"lib-ver": b"2.0"}
TOLD = {b"addr": b"127.0.0.1:1234", b"age": b"4", b"cmd": b"set"}
CLIENT = Listed(1 << 33, 7, True, OWN, TOLD)

KEYS = st.binary(min_size=1, max_size=9).filter(lambda key: not set(key) & set(b" =\n\r\v\f"))
VALUES = st.text("abc=[]:|@0123456789-", max_size=9).map(str.encode)
LINES = st.dictionaries(KEYS, VALUES, max_size=6)


def names(lines: list[Line]) -> list[bytes]:
    return [line[b"name"] for line in lines]


def test_a_list_is_parsed_by_id() -> None:
    lines = parse(TEXT)
    assert list(lines) == [7, 8, 9]
    assert lines[9][b"name"] == b"app"
    assert lines[9][b"lib-name"] == b""


def test_lines_without_an_id_are_left_out() -> None:
    assert parse(b"") == parse(b"\n\n") == parse(b"name=x\nid=\nid=x\nid\n") == {}


def test_values_may_hold_equals_signs() -> None:
    line = b"id=1 name=a=b=c addr=[::1]:1"
    assert parse(line + b"\n")[1][b"name"] == b"a=b=c"
    assert render(parse(line)[1]) == line


def test_fields_keep_their_order() -> None:
    assert [render(line) for line in parse(TEXT).values()] == [LINK, SPARE, FOREIGN]


@given(st.dictionaries(st.integers(0, 2**63), LINES, max_size=5))
def test_what_is_rendered_is_parsed(lines: dict[int, Line]) -> None:
    numbered = {n: {**line, b"id": b"%d" % n} for n, line in lines.items()}
    text = b"".join(render(line) + b"\n" for line in numbered.values())
    assert parse(text) == numbered


def test_a_client_has_its_own_names_on_its_link_s_line() -> None:
    line = own_line(parse(TEXT)[7], CLIENT)
    assert render(line) == (
        b"id=8589934592 addr=127.0.0.1:1234 name=me age=4 idle=3 flags=N cmd=set user=ann "
        b"lib-name=lib lib-ver=2.0"
    )


def test_fields_the_server_does_not_know_are_not_added() -> None:
    assert own_line({b"id": b"7", b"name": b""}, CLIENT) == {b"id": b"8589934592", b"name": b"me"}


def test_on_a_link_of_its_own_the_server_knows_its_user_and_names() -> None:
    named = LINK.replace(b"redis-sidecar", b"other")
    line = own_line(parse(named)[7], replace(CLIENT, carried=False))
    assert (line[b"name"], line[b"user"], line[b"lib-name"]) == (b"other", b"default", b"other")
    assert (line[b"id"], line[b"addr"], line[b"cmd"]) == (b"8589934592", b"127.0.0.1:1234", b"set")


def test_a_link_that_the_server_may_not_name_has_its_client_s_names() -> None:
    line = own_line(parse(TEXT)[7], replace(CLIENT, carried=False))
    assert (line[b"name"], line[b"lib-name"], line[b"lib-ver"]) == (b"me", b"lib", b"2.0")
    assert line[b"user"] == b"default"


def test_requests_of_the_sidecar_s_own_in_a_transaction_are_not_counted() -> None:
    for multi, shown in ((b"3", b"1"), (b"-1", b"-1")):
        template = parse(LINK)[7] | {b"multi": multi}
        line = own_line(template, replace(CLIENT, carried=False, added=2))
        assert line[b"multi"] == shown


def test_whom_a_client_named_is_told_by_the_number_it_gave() -> None:
    template = parse(LINK)[7] | {b"redir": b"12"}
    client = replace(CLIENT, carried=False, redirected={b"12": b"8589934599"})
    assert own_line(template, client)[b"redir"] == b"8589934599"
    assert own_line(template, replace(client, redirected={b"1": b"2"}))[b"redir"] == b"12"


def test_a_client_without_an_address_has_its_link_s() -> None:
    """Unix sockets have none."""
    assert own_line(parse(TEXT)[7], replace(CLIENT, told={}))[b"addr"] == b"10.0.0.1:50"


def test_links_are_replaced_and_others_stay() -> None:
    two = [CLIENT, replace(CLIENT, id=CLIENT.id + 1, own=OWN | {b"name": b"you"})]
    lines = merge(parse(TEXT), [7], two, 8)
    assert names(lines) == [b"app", b"me", b"you"]
    assert render(lines[0]) == FOREIGN
    assert len({line[b"id"] for line in lines}) == 3


def test_a_client_whose_link_is_not_listed_has_the_asker_s_line() -> None:
    lines = merge(parse(TEXT), [7], [replace(CLIENT, link_id=0)], 8)
    assert names(lines) == [b"app", b"me"]
    assert lines[1][b"addr"] == TOLD[b"addr"]


def test_what_the_asker_has_under_way_is_not_another_client_s() -> None:
    state = b" flags=PT sub=2 psub=1 ssub=3 multi=4 watch=2 redir=9 qbuf=26 resp=3"
    asker, unused = LINK + state, dict(word.split(b"=") for word in state.split())
    (line,) = merge(parse(asker.replace(b" flags=N", b"")), [], [replace(CLIENT, link_id=0)], 7)
    unused |= dict.fromkeys((b"sub", b"psub", b"ssub", b"watch", b"qbuf"), b"0")
    unused |= {b"flags": b"N", b"multi": b"-1", b"redir": b"-1"}
    assert {field: line[field] for field in unused} == unused


def test_without_any_line_to_go_by_there_is_what_the_sidecar_knows() -> None:
    """The user may not ask for the list."""
    assert merge({}, [7], [CLIENT], 8) == [{b"id": b"8589934592"} | TOLD | OWN]


def test_who_gets_invalidations_has_the_id_that_clients_know() -> None:
    lines = parse(TEXT.replace(b"name=app", b"name=app redir=7"))
    listed = merge(lines, [7], [replace(CLIENT, carried=False)], 8)
    assert listed[0][b"redir"] == b"8589934592"
    assert merge(lines, [7], [CLIENT], 8)[0][b"redir"] == b"7"


def test_nothing_given_is_changed() -> None:
    lines = parse(TEXT)
    merge(lines, [7], [CLIENT], 8)
    assert lines == parse(TEXT)


@given(
    st.dictionaries(st.integers(1, 20), st.just({b"name": b""}), max_size=12),
    st.sets(st.integers(1, 20)),
    st.lists(st.integers(0, 20), max_size=8),
    st.integers(0, 20),
)
def test_every_line_is_foreign_or_a_client(
    lines: dict[int, Line], links: set[int], carried_by: list[int], spare: int
) -> None:
    table = {n: {b"id": b"%d" % n, **line} for n, line in lines.items()}
    clients = [replace(CLIENT, id=100 + i, link_id=n) for i, n in enumerate(carried_by)]
    ids = [int(line[b"id"]) for line in merge(table, links, clients, spare)]
    foreign = [n for n in table if n not in links and n != spare]
    assert ids == foreign + [c.id for c in clients]


def reply(text: bytes, *, verbatim: bool = False) -> bytes:
    """A CLIENT LIST reply: a bulk string in RESP2, a verbatim string in RESP3."""
    body = b"txt:" + text if verbatim else text
    return b"%b%d\r\n%b\r\n" % (b"=" if verbatim else b"$", len(body), body)


def all_lines(lines: dict[int, Line]) -> Iterable[Line]:
    return lines.values()


@pytest.mark.parametrize("verbatim", [False, True])
@pytest.mark.parametrize("text", [TEXT, FOREIGN + b"\n", b""])
def test_a_reply_without_changes_is_the_same(text: bytes, verbatim: bool) -> None:
    assert rewrite(reply(text, verbatim=verbatim), all_lines) == reply(text, verbatim=verbatim)


@pytest.mark.parametrize("verbatim", [False, True])
def test_the_length_is_that_of_the_changed_text(verbatim: bool) -> None:
    changed = rewrite(
        reply(TEXT, verbatim=verbatim),
        lambda lines: [own_line(lines[7], CLIENT), lines[9]],
    )
    mine = render(own_line(parse(LINK)[7], CLIENT))
    assert changed == reply(mine + b"\n" + FOREIGN + b"\n", verbatim=verbatim)


@pytest.mark.parametrize("other", [b"-NOPERM no\r\n", b"+OK\r\n", b":1\r\n"])
def test_other_replies_are_left_alone(other: bytes) -> None:
    assert rewrite(other, lambda lines: [{b"id": b"1"}]) == other


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (("127.0.0.1", 6380), b"127.0.0.1:6380"),
        (("::1", 6380, 0, 0), b"[::1]:6380"),
        ("", b""),
        (None, b""),
    ],
)
def test_addresses_are_written_as_the_server_does(peer: object, text: bytes) -> None:
    assert printable_address(peer) == text
