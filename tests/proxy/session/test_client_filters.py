"""Filters of CLIENT LIST and CLIENT KILL: which lines they match. What is not understood: none."""

from __future__ import annotations

import pytest

from sidecar.proxy.session.client_filters import parse, places_of_ids

LINE = dict(
    word.split(b"=", 1)
    for word in b"id=7 addr=10.0.0.1:50 laddr=10.0.0.9:6379 name=me age=99 idle=3 flags=PT capa=r "
    b"db=9 user=ann lib-name=py lib-ver=1".split()
)

MATCHING = """
ID 7 | ID 007 | ID 1 7 9 | ADDR 10.0.0.1:50 | LADDR 10.0.0.9:6379 | NAME me | USER ann | DB 9
LIB-NAME py | LIB-VER 1 | MAXAGE 99 | IDLE 3 | FLAGS P | FLAGS TP | CAPA r | IP 10.0.0.1
TYPE pubsub | type PubSub | NOT-ID 8 9 | NOT-NAME you | NOT-TYPE normal | NOT-FLAGS PN
ID 7 NAME me DB 9 | SKIPME yes | ID 1 7 TYPE pubsub
"""
OTHERS = """
ID 8 | ADDR 10.0.0.1:5 | NAME m | USER bob | DB 0 | LIB-NAME | MAXAGE 100 | IDLE 4 | FLAGS N
FLAGS PX | TYPE normal | TYPE replica | TYPE nonsense | NOT-ID 7 | NOT-ID 6 7 | NOT-IP 10.0.0.1
NOSUCH x | NOT-NOSUCH x | ID 7 NAME you | MAXAGE x | IDLE -1 | ID x
"""


def cases(text: str) -> list[str]:
    return [case.strip() for line in text.strip().splitlines() for case in line.split("|")]


@pytest.mark.parametrize("words", cases(MATCHING))
def test_what_matches(words: str) -> None:
    assert parse(words.encode().split()).match(LINE)


@pytest.mark.parametrize("words", cases(OTHERS))
def test_what_does_not(words: str) -> None:
    assert not parse(words.encode().split()).match(LINE)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [(b"N", b"normal"), (b"O", b"normal"), (b"S", b"slave"), (b"S", b"replica"), (b"M", b"master")],
)
def test_types(flags: bytes, kind: bytes) -> None:
    """As the server tells them: a monitor is a normal client."""
    line = {b"flags": flags}
    assert parse([b"TYPE", kind]).match(line)
    assert not parse([b"TYPE", b"pubsub"]).match(line)


def test_who_asks() -> None:
    assert parse([]).skip_me is None
    assert parse([b"SKIPME", b"YES", b"ID", b"7"]).skip_me is True
    assert parse([b"ID", b"7", b"skipme", b"no"]).skip_me is False
    assert parse([b"NAME", b"x", b"ID", b"3", b"1", b"3"]).ids == (b"3", b"1", b"3")


@pytest.mark.parametrize(
    ("line", "places"),
    [
        (b"CLIENT KILL ID 7", [3]),
        (b"CLIENT KILL id 7 8 9 NAME 5", [3, 4, 5]),
        (b"CLIENT KILL ID 7 ID 8 NOT-ID 9", [3, 5, 7]),
        (b"CLIENT KILL USER id ID 7", [5]),
        (b"CLIENT KILL NAME ID", []),
        (b"CLIENT KILL ID", []),
        (b"CLIENT KILL 1.2.3.4:5", []),
    ],
)
def test_places_of_ids(line: bytes, places: list[int]) -> None:
    """Where the ids stand, and no words of other filters."""
    assert list(places_of_ids(line.split(b" "))) == places
