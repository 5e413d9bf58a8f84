"""The filters of CLIENT LIST and CLIENT KILL, applied to lines of the list.

The server has checked the filters before: what is not understood here matches no client. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Line = Mapping[bytes, bytes]
_BY_ID = (b"ID", b"NOT-ID")


@dataclass(frozen=True)
class Filter:
    """One filter: its name in capitals without NOT-, and the values, of which ID may have many."""

    name: bytes
    values: tuple[bytes, ...]
    negated: bool = False

    def matches(self, line: Line) -> bool:
        """Whether the client of this line is meant."""
        test = _TESTS.get(self.name)
        if test is None or not self.values:
            return False
        return test(line, self.values) is not self.negated


@dataclass(frozen=True)
class Filters:
    """All filters of one command. `skip_me`: the client that asks is not meant; None: not said."""

    each: tuple[Filter, ...]
    skip_me: bool | None

    def match(self, line: Line) -> bool:
        """Whether all filters match."""
        return all(each.matches(line) for each in self.each)

    @property
    def ids(self) -> tuple[bytes, ...]:
        """The ids that a filter names, in their order."""
        named = (each for each in self.each if each.name == b"ID" and not each.negated)
        return next((each.values for each in named), ())


def parse(words: Sequence[bytes], *, ids_add_up: bool = True) -> Filters:
    """The filters among the words after CLIENT LIST or CLIENT KILL.

    Of filters of the same name the last counts. Those by id add up, but not in Redis's CLIENT KILL.
    """
    found: dict[bytes, Filter] = {}
    skip_me = None
    for i, end in _spans(words):
        name, values = words[i].upper(), tuple(words[i + 1 : end])
        if name == b"SKIPME":
            skip_me = b"YES" in map(bytes.upper, values)
        else:
            plain = name.removeprefix(b"NOT-")
            if plain == b"ID" and ids_add_up and name in found:
                values = found[name].values + values
            found[name] = Filter(plain, values, negated=plain != name)
    return Filters(tuple(found.values()), skip_me)


def places_of_ids(args: Sequence[bytes]) -> Sequence[int]:
    """The indices of the ids among the arguments of CLIENT KILL with filters."""
    spans = _spans(args, 2) if len(args) > 3 else ()
    named = (range(i + 1, end) for i, end in spans if args[i].upper() in _BY_ID)
    return [at for places in named for at in places if at < len(args)]


def _spans(words: Sequence[bytes], i: int = 0) -> Iterator[tuple[int, int]]:
    """Where each filter begins, and the next one. Filters by id may have many values."""
    while i < len(words):
        end = i + 2
        while words[i].upper() in _BY_ID and end < len(words) and words[end].isdigit():
            end += 1
        yield i, end
        i = end


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else -1


def _is(field: bytes) -> Callable[[Line, Sequence[bytes]], bool]:
    return lambda line, values: line.get(field) == values[0]


def _at_least(field: bytes) -> Callable[[Line, Sequence[bytes]], bool]:
    return lambda line, values: _number(line.get(field, b"")) >= _number(values[0]) >= 0


def _has_all(field: bytes) -> Callable[[Line, Sequence[bytes]], bool]:
    return lambda line, values: set(values[0]) <= set(line.get(field, b""))


def _type_of(line: Line) -> bytes:
    """The type of a client, as the server tells it from its flags. A monitor is a normal client."""
    flags = line.get(b"flags", b"")
    for flag, name in ((b"M", b"MASTER"), (b"S", b"REPLICA"), (b"P", b"PUBSUB")):
        if flag in flags:
            return name
    return b"NORMAL"


def _is_type(line: Line, values: Sequence[bytes]) -> bool:
    wanted = values[0].upper()
    return _type_of(line) == (b"REPLICA" if wanted == b"SLAVE" else wanted)


def _has_id(line: Line, values: Sequence[bytes]) -> bool:
    return line.get(b"id") in {b"%d" % int(value) for value in values if value.isdigit()}


def _has_ip(line: Line, values: Sequence[bytes]) -> bool:
    host = line.get(b"addr", b"").rpartition(b":")[0]
    return values[0] in (host, host.strip(b"[]"))


_TESTS: Mapping[bytes, Callable[[Line, Sequence[bytes]], bool]] = {
    b"ID": _has_id,
    b"TYPE": _is_type,
    b"USER": _is(b"user"),
    b"ADDR": _is(b"addr"),
    b"LADDR": _is(b"laddr"),
    b"NAME": _is(b"name"),
    b"LIB-NAME": _is(b"lib-name"),
    b"LIB-VER": _is(b"lib-ver"),
    b"DB": _is(b"db"),
    b"MAXAGE": _at_least(b"age"),
    b"IDLE": _at_least(b"idle"),
    b"FLAGS": _has_all(b"flags"),
    b"CAPA": _has_all(b"capa"),
    b"IP": _has_ip,
}
