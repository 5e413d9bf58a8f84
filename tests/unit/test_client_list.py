"""CLIENT LIST with the sidecar's clients in the place of its links: text and facts in, text out.

The last two ask real servers, through a sidecar and past it.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.client_list import Line, Listed, merge, own_line, parse, render
from tests.compat.harness import Pair
from tests.support.wire import Wire

LINK = b"id=7 addr=10.0.0.1:50 name=redis-sidecar age=99 idle=3 flags=N cmd=get user=default \
lib-name=redis-sidecar lib-ver=1"
FOREIGN = (
    b"id=9 addr=10.0.0.2:60 name=app age=5 idle=1 flags=N cmd=blpop user=bob lib-name= lib-ver="
)
SPARE = LINK.replace(b"id=7", b"id=8").replace(b":50", b":51")
TEXT = b"\n".join((LINK, SPARE, FOREIGN)) + b"\n"
CLIENT = Listed(1 << 33, 7, b"127.0.0.1:1234", b"me", b"lib", b"2.0", 4, False)

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
        b"id=8589934592 addr=127.0.0.1:1234 name=me age=4 idle=3 flags=N cmd=get user=default "
        b"lib-name=lib lib-ver=2.0"
    )


def test_fields_the_server_does_not_know_are_not_added() -> None:
    assert own_line({b"id": b"7", b"name": b""}, CLIENT) == {b"id": b"8589934592", b"name": b"me"}


def test_who_asks_is_busy_with_that() -> None:
    line = own_line(parse(TEXT)[7], replace(CLIENT, asking=True))
    assert (line[b"cmd"], line[b"idle"]) == (b"client|list", b"0")


def test_a_client_without_an_address_has_its_link_s() -> None:
    """Unix sockets have none."""
    assert own_line(parse(TEXT)[7], replace(CLIENT, address=b""))[b"addr"] == b"10.0.0.1:50"


def test_links_are_replaced_and_others_stay() -> None:
    two = [CLIENT, replace(CLIENT, id=CLIENT.id + 1, name=b"you")]
    lines = merge(parse(TEXT), [7], two, 8)
    assert names(lines) == [b"app", b"me", b"you"]
    assert render(lines[0]) == FOREIGN
    assert len({line[b"id"] for line in lines}) == 3


def test_a_client_whose_link_is_not_listed_has_the_asker_s_line() -> None:
    lines = merge(parse(TEXT), [7], [replace(CLIENT, link_id=0)], 8)
    assert names(lines) == [b"app", b"me"]
    assert lines[1][b"addr"] == CLIENT.address


def test_without_any_line_to_go_by_a_client_is_left_out() -> None:
    """The server's filter has hidden the link and the asker."""
    assert names(merge(parse(FOREIGN), [7], [CLIENT], 8)) == [b"app"]


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
    shown = [c.id for c in clients if c.link_id in table or spare in table]
    assert ids == foreign + shown


def _lines(wire: Wire, *args: str) -> list[dict[str, str]]:
    """What CLIENT LIST says, line by line."""
    text = wire.cmd("CLIENT", "LIST", *args).partition(b"\r\n")[2].decode().strip()
    return [dict(w.split("=", 1) for w in line.split(" ")) for line in text.split("\n")]


def _address(wire: Wire) -> str:
    return "{}:{}".format(*wire._sock.getsockname())


def test_client_list_and_kill(pair: Pair) -> None:
    """Each client once, as itself; no links; others as they are. KILL ADDR ends just the one."""
    port = pair.sidecar.port
    with Wire(port) as a, Wire(port) as b, Wire(port) as c, Wire(pair.behind.port) as foreign:
        wires = {"a": a, "b": b, "c": c, "foreign": foreign}
        for name, wire in wires.items():
            assert wire.cmd("CLIENT", "SETNAME", name) == b"+OK\r\n"
        ids = {name: wire.cmd("CLIENT", "ID")[1:-2].decode() for name, wire in wires.items()}
        assert c.cmd("SUBSCRIBE", "x").endswith(b":1\r\n")
        own = {(name, ids[name], _address(wire)) for name, wire in wires.items()}

        def ours(*args: str) -> list[tuple[str, str, str]]:
            return sorted((i["name"], i["id"], i["addr"]) for i in _lines(a, *args) if i["name"])

        assert ours() == sorted(own)
        assert {i["name"] for i in _lines(foreign)} >= {"foreign", "redis-sidecar"}
        assert ours("ID", ids["a"], ids["b"]) == sorted(o for o in own if o[0] in "ab")
        assert [i["id"] for i in _lines(a, "ID", ids["foreign"])] == [ids["foreign"]]
        with Wire(port) as d:
            assert d.cmd("PING") == b"+PONG\r\n"
            assert a.cmd("CLIENT", "KILL", "ADDR", _address(b)) == b":1\r\n"
            b.expect_eof()
            gone = _address(d)
            assert a.cmd("CLIENT", "KILL", gone) == b"+OK\r\n"
            d.expect_eof()
        assert a.cmd("CLIENT", "KILL", gone) == b"-ERR No such client\r\n"
        assert ours() == sorted(o for o in own if o[0] != "b")
        assert a.cmd("PUBLISH", "x", "1") == b":1\r\n"
        assert c.read_reply().endswith(b"$1\r\n1\r\n")


def test_client_kill_user(pair: Pair) -> None:
    """That user's clients, pinned ones too, and nobody else."""
    port = pair.sidecar.port
    with Wire(port) as a, Wire(port) as bob, Wire(port) as bob_too, Wire(port) as other:
        assert a.cmd("ACL", "SETUSER", "bob", "on", ">p", "~*", "&*", "+@all") == b"+OK\r\n"
        for wire in (bob, bob_too):
            assert wire.cmd("AUTH", "bob", "p") == b"+OK\r\n"
        assert bob_too.cmd("SUBSCRIBE", "x").endswith(b":1\r\n")
        assert other.cmd("SET", "k", "v") == b"+OK\r\n"
        assert a.cmd("CLIENT", "KILL", "USER", "bob")[:1] == b":"
        bob.expect_eof()
        bob_too.expect_eof()
        assert other.cmd("GET", "k") == b"$1\r\nv\r\n"
        assert a.cmd("ACL", "DELUSER", "bob") == b":1\r\n"
