"""Replies of all shards become one, as one server would have written it. Pure.

`merge` takes raw replies and gives a raw reply, of the same protocol and shape: what can be left as
it is (the keys of KEYS, the entries of a log) is not decoded. What each way of merging means is
said in `fan_out.Merge`. Where replies do not have the shape that their merge is for (`ACL LOG
RESET` says OK where `ACL LOG` lists; a newer server has written something else), the first is
given.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from sidecar.core.protocol.reply import ReplyDecoder
from sidecar.policy.fan_out import Merge
from sidecar.policy.merging_info import merged_info

_AGGREGATES = b"*~%"
_TEXTS = b"$="
_NULLS = (b"$-1\r\n", b"*-1\r\n", b"_\r\n")
_MOST_OF_A_LOG = 10  # what SLOWLOG GET gives if it is not asked for a number


def merge(how: Merge, replies: Sequence[bytes], args: Sequence[bytes] = ()) -> bytes:
    """The reply to a request (`args`: all of it) whose shards have said this; at least one has."""
    if how is Merge.ONE:
        return _one(replies)
    well = [reply for reply in replies if not is_error(reply)]
    # An event that only some shards know is an error at the others.
    if len(well) < len(replies) and not (how is Merge.TEXT and well):
        return next(reply for reply in replies if is_error(reply))
    if how is Merge.FIRST or len(well) == 1:
        return well[0]
    kinds, merged = _WAYS[how]
    kind = well[0][:1]
    if kind not in kinds or any(reply[:1] != kind or reply in _NULLS for reply in well):
        return well[0]
    try:
        return merged(well, args)
    except (ValueError, LookupError):
        return well[0]


def is_error(reply: bytes) -> bool:
    """Whether a raw reply is an error."""
    return reply[:1] in (b"-", b"!")


# Reading and writing


def header_end(reply: bytes) -> int:
    """Where the first line ends."""
    return reply.index(b"\r\n") + 2


def elements(reply: bytes) -> list[bytes]:
    """The elements of an aggregate, raw; of a map, names and values in turn."""
    return [each for _, each in ReplyDecoder().feed(reply[header_end(reply) :])]


def aggregate(kind: bytes, items: Sequence[bytes]) -> bytes:
    """An aggregate of raw elements; a map (%) of names and values in turn."""
    count = len(items) // 2 if kind == b"%" else len(items)
    return b"%b%d\r\n%b" % (kind, count, b"".join(items))


def number(reply: bytes) -> int:
    """The value of an integer."""
    return int(reply[1:-2])


def integer(value: int) -> bytes:
    """An integer, raw."""
    return b":%d\r\n" % value


def text_of(reply: bytes) -> bytes:
    """The bytes of a string; of a verbatim one without its format."""
    start = header_end(reply)
    return reply[start + 4 : -2] if reply[:1] == b"=" else reply[start:-2]


def with_text(like: bytes, text: bytes) -> bytes:
    """A string of the kind of another one."""
    if like[:1] == b"=":
        start = header_end(like)
        text = like[start : start + 4] + text
    return b"%b%d\r\n%b\r\n" % (like[:1], len(text), text)


def pairs(reply: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of a map, or of what stands for one in RESP2."""
    items = elements(reply)
    return list(zip(items[::2], items[1::2], strict=True))


# Ways


def _one(replies: Sequence[bytes]) -> bytes:
    for reply in replies:
        if not is_error(reply):
            return reply
    # "There is nothing to kill" is said by those where nothing runs.
    return next((r for r in replies if not r.startswith(b"-NOTBUSY")), replies[0])


def _sum(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    return integer(sum(map(number, replies)))


def _by_place(how: Callable[[Sequence[int]], int], replies: Sequence[bytes]) -> bytes:
    columns = zip(*([number(each) for each in elements(reply)] for reply in replies), strict=True)
    return aggregate(replies[0][:1], [integer(how(column)) for column in columns])


def _min(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    if replies[0][:1] == b":":
        return integer(min(map(number, replies)))
    return _by_place(min, replies)


def _and(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    return _by_place(lambda column: int(all(column)), replies)


def _concat(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    count = sum(int(reply[1 : header_end(reply) - 2]) for reply in replies)
    whole = b"".join(reply[header_end(reply) :] for reply in replies)
    return b"%b%d\r\n%b" % (replies[0][:1], count, whole)


def _union(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    found = dict.fromkeys(each for reply in replies for each in elements(reply))
    return aggregate(replies[0][:1], list(found))


def _sum_by_name(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    found: dict[bytes, int] = {}
    for reply in replies:
        for name, value in pairs(reply):
            found[name] = found.get(name, 0) + number(value)
    items = [part for name, value in found.items() for part in (name, integer(value))]
    return aggregate(replies[0][:1], items)


def _newest(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    entries = [each for reply in replies for each in elements(reply)]
    entries.sort(key=lambda entry: number(elements(entry)[1]), reverse=True)
    most = int(args[2]) if len(args) > 2 else _MOST_OF_A_LOG
    return aggregate(replies[0][:1], entries[:most] if most >= 0 else entries)


def _history(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    entries = [each for reply in replies for each in elements(reply)]
    entries.sort(key=lambda entry: number(elements(entry)[0]))
    return aggregate(replies[0][:1], entries)


def _latest(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    """Rows of event, latest time, what it took then, the most; newer servers: sum, count."""
    events: dict[bytes, list[list[bytes]]] = {}
    for reply in replies:
        for row in elements(reply):
            name, *numbers = elements(row)
            events.setdefault(name, []).append(numbers)
    rows = []
    for name, said in events.items():
        newest = max(said, key=lambda numbers: number(numbers[0]))
        most = integer(max(number(numbers[2]) for numbers in said))
        sums = [
            integer(sum(map(number, column))) for column in zip(*(n[3:] for n in said), strict=True)
        ]
        rows.append(aggregate(b"*", [name, *newest[:2], most, *sums]))
    return aggregate(replies[0][:1], rows)


def _text(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    return with_text(
        replies[0], b"\n".join(text_of(reply).rstrip(b"\r\n") for reply in replies) + b"\n"
    )


def _running(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    return next((reply for reply in replies if elements(reply)[1] not in _NULLS), replies[0])


def _histogram(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    """For each command its calls, and how many took no longer than so many microseconds."""
    kind = replies[0][:1]
    commands: dict[bytes, list[dict[bytes, bytes]]] = {}
    for reply in replies:
        for command, said in pairs(reply):
            commands.setdefault(command, []).append(dict(pairs(said)))
    items = []
    for command, said_of in commands.items():
        fields = []
        for name, value in said_of[0].items():
            if value[:1] == b":":
                total = integer(sum(number(said[name]) for said in said_of))
            else:
                total = _counts([said[name] for said in said_of])
            fields += [name, total]
        items += [command, aggregate(kind, fields)]
    return aggregate(kind, items)


def _counts(histograms: Sequence[bytes]) -> bytes:
    """Bounds and how many are below them: where one does not list a bound, it has no more than at
    the bound before."""
    columns = [[(number(b), number(c)) for b, c in pairs(each)] for each in histograms]
    bounds = sorted({bound for column in columns for bound, _ in column})
    items = []
    for bound in bounds:
        count = 0
        for column in columns:
            place = bisect_right(column, bound, key=lambda pair: pair[0])
            count += column[place - 1][1] if place else 0
        items += [integer(bound), integer(count)]
    return aggregate(histograms[0][:1], items)


def _memory(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    merged = _fields([dict(pairs(reply)) for reply in replies])
    by_name = {text_of(name): name for name in merged}
    names = (b"total.allocated", b"startup.allocated", b"keys.count", b"keys.bytes-per-key")
    total, startup, keys, each = (by_name.get(name) for name in names)
    if total and startup and keys and each and (count := number(merged[keys])):
        used = number(merged[total]) - number(merged[startup])
        merged[each] = integer(max(used, 0) // count)
    return aggregate(replies[0][:1], [part for pair in merged.items() for part in pair])


def _fields(said: Sequence[Mapping[bytes, bytes]]) -> dict[bytes, bytes]:
    """Maps as one: what stands in any of them, integers added, fractions as their mean."""
    found: dict[bytes, bytes] = {}
    for name in dict.fromkeys(name for each in said for name in each):
        values = [each[name] for each in said if name in each]
        first = values[0]
        kind = first[:1]
        if kind == b":":
            found[name] = integer(sum(map(number, values)))
        elif kind in b"*%" and kind:
            inner = _fields([dict(pairs(value)) for value in values])
            found[name] = aggregate(kind, [part for pair in inner.items() for part in pair])
        else:
            found[name] = _mean(values)
    return found


def _mean(values: Sequence[bytes]) -> bytes:
    """Of fractions: doubles of RESP3, strings of RESP2. Of anything else the first."""
    is_double = values[0][:1] == b","
    try:
        numbers = [float(v[1:-2] if is_double else text_of(v)) for v in values]
    except ValueError:
        return values[0]
    mean = repr(sum(numbers) / len(numbers)).encode()
    return b",%b\r\n" % mean if is_double else with_text(values[0], mean)


def _xor(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    """A server's digest is that of its keys, put together by XOR, and of the number of the
    database if that has any key. So it is here, for database 0."""
    database = int(hashlib.sha1(hashlib.sha1(bytes(4)).digest()).hexdigest(), 16)
    keys, some = 0, False
    for reply in replies:
        digest = int(reply[1:-2], 16)
        if digest:
            keys ^= digest ^ database
            some = True
    return b"+%040x\r\n" % (keys ^ database if some else 0)


def _info(replies: Sequence[bytes], args: Sequence[bytes]) -> bytes:
    return with_text(replies[0], merged_info([text_of(reply) for reply in replies]))


# What a reply must be, and what is done.
_WAYS: Mapping[Merge, tuple[bytes, Callable[[Sequence[bytes], Sequence[bytes]], bytes]]] = {
    Merge.SUM: (b":", _sum),
    Merge.MIN: (b":*", _min),
    Merge.AND: (b"*", _and),
    Merge.CONCAT: (_AGGREGATES, _concat),
    Merge.UNION: (_AGGREGATES, _union),
    Merge.SUM_BY_NAME: (b"*%", _sum_by_name),
    Merge.NEWEST: (b"*", _newest),
    Merge.HISTORY: (b"*", _history),
    Merge.LATEST: (b"*", _latest),
    Merge.TEXT: (_TEXTS, _text),
    Merge.RUNNING: (b"*%", _running),
    Merge.HISTOGRAM: (b"*%", _histogram),
    Merge.MEMORY: (b"*%", _memory),
    Merge.INFO: (_TEXTS, _info),
    Merge.XOR: (b"+", _xor),
}
