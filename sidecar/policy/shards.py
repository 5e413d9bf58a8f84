"""What nodes of a cluster say about its shards, and what of it is believed. Pure.

A node is asked `CLUSTER SHARDS`, and `CLUSTER SLOTS` if that gives no view: because the server is
too old for it, or because a shard has two primaries for a moment (the old one is back and has not
been told that it was replaced; Redis 8 then lists the shard without its slots). The reply becomes a
`View`. Replies are not trusted: what is malformed, contradicts itself, or names no slot at all is a
ValueError and no view. What several nodes say is put together by `agreed`, so that one
node that is cut off from the others moves nothing.

How a node is called. Each node is known by its id. It announces a host, as
`cluster-preferred-endpoint-type` has it: an IP address, a name, `?` (a name that is still to come:
its IP address stands beside it), or nothing, which means: the host that was asked. Redirections
write what is announced; what is connected to may be somewhere else (`reached`). So a `Member` has
both.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

SLOTS = 16384
MOST_MEMBERS = (
    16384  # no cluster is nearly as large; a thousand nodes are what servers are made for
)
MOST_HOST = 255  # bytes of a name

# What CLUSTER SHARDS says of a node, other than online.
HEALTH: Mapping[object, str] = {b"loading": "loading", b"fail": "failed", b"failed": "failed"}

Address = tuple[str, int]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A server of a cluster: its id, where it is reached, how redirections call it, and how the
    cluster says that it is: online, loading or failed."""

    id: str
    address: Address
    announced: str = ""
    health: str = field(default="online", compare=False)


@dataclass(frozen=True, slots=True)
class Shard:
    """Who has some slots: ranges, first and last slot included, in order.

    `primary` is None if nobody is to be used now. `replicas` are all other members: replicas, and
    primaries that the others have found dead or replaced.
    """

    primary: Member | None
    replicas: tuple[Member, ...]
    slots: Ranges

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them."""
        return (self.primary, *self.replicas) if self.primary else self.replicas


@dataclass(frozen=True, slots=True)
class View:
    """What the node that was `asked` says."""

    asked: Address
    shards: tuple[Shard, ...]


def same(address: Address) -> Address:
    """Nodes are reached where they say that they are."""
    return address


@dataclass(frozen=True)
class Reading:
    """How replies are read: `tls` takes the ports for TLS, `reached` tells where an announced
    address is reached."""

    tls: bool = False
    reached: Callable[[Address], Address] = same


PLAIN = Reading()


# CLUSTER SHARDS


def view_of_shards(reply: object, asked: Address, how: Reading = PLAIN) -> View:
    """A reply to CLUSTER SHARDS, decoded. Raises ValueError with what is wrong with it."""
    shards = [_shard(row, asked, how) for row in _listed(reply, "the reply")]
    return _checked(asked, shards)


def _shard(row: object, asked: Address, how: Reading) -> Shard:
    fields = _fields(row, "a shard")
    numbers = [
        _number(each, 0, SLOTS - 1, "a slot") for each in _listed(fields.get("slots"), "slots")
    ]
    if len(numbers) % 2:
        raise ValueError("slots that are no pairs of first and last")
    nodes = [_fields(node, "a node") for node in _listed(fields.get("nodes"), "nodes")]
    usable, members = [], []
    for node in nodes:
        member = _member_of_shard(node, asked, how)
        if member is None:
            continue
        members.append(member)
        if node.get("role") == b"master" and node.get("health", b"online") == b"online":
            usable.append(member)
    if len(usable) > 1:
        raise ValueError(f"{usable[0].id} and {usable[1].id} are primaries of one shard")
    primary = usable[0] if usable else None
    others = tuple(member for member in members if member is not primary)
    return Shard(primary, others, _ranges(list(zip(numbers[::2], numbers[1::2], strict=True))))


def _member_of_shard(node: Mapping[str, object], asked: Address, how: Reading) -> Member | None:
    """None: it does not listen for those who connect as we do."""
    port = node.get("tls-port" if how.tls else "port")
    name = _id(node.get("id"))
    if port is None:
        return None
    announced = node["endpoint"] if "endpoint" in node else node.get("ip")
    member = _member(name, announced, node.get("ip"), port, asked, how)
    health = HEALTH.get(node.get("health"), member.health)
    return member if health == member.health else replace(member, health=health)


# CLUSTER SLOTS


def view_of_slots(reply: object, asked: Address, how: Reading = PLAIN) -> View:
    """A reply to CLUSTER SLOTS, decoded. Raises ValueError with what is wrong with it."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    primaries: dict[str, Member] = {}
    replicas: dict[str, dict[str, Member]] = {}
    read = _SlotsReader(asked, how)
    for row in _listed(reply, "the reply"):
        fields = _listed(row, "a range of slots")
        if len(fields) < 3:
            raise ValueError("a range of slots without a node")
        first, last = (_number(each, 0, SLOTS - 1, "a slot") for each in fields[:2])
        primary, *others = map(read.member, fields[2:])
        primaries[primary.id] = primary
        ranges.setdefault(primary.id, []).append((first, last))
        replicas.setdefault(primary.id, {}).update((member.id, member) for member in others)
    return _checked(
        asked,
        [
            Shard(primary, tuple(replicas[name].values()), _ranges(ranges[name]))
            for name, primary in primaries.items()
        ],
    )


class _SlotsReader:
    """Reads nodes, each of which stands beside every range of its slots."""

    def __init__(self, asked: Address, how: Reading) -> None:
        self._asked = asked
        self._how = how
        self._read: dict[bytes, tuple[list[object], Member]] = {}

    def member(self, node: object) -> Member:
        fields = _listed(node, "a node")
        if len(fields) < 2:
            raise ValueError("a node without a port")
        key = fields[2] if len(fields) > 2 else None
        if isinstance(key, bytes) and key in self._read:
            before, member = self._read[key]
            if before == fields:
                return member
        name = _id(key) if len(fields) > 2 else f"{_host(fields[0]) or self._asked[0]}:{fields[1]}"
        more = _fields(fields[3], "what is known of a node") if len(fields) > 3 else {}
        member = _member(name, fields[0], more.get("ip"), fields[1], self._asked, self._how)
        if isinstance(key, bytes):
            self._read[key] = (fields, member)
        return member


# Both


def _member(
    name: str, announced: object, ip: object, port: object, asked: Address, how: Reading
) -> Member:
    number = _number(port, 1, 65535, "a port")
    host = _host(announced)
    place = _host(ip) if host == "?" else host
    address = how.reached((place, number)) if place else (asked[0], number)
    return Member(name, address, f"{host}:{number}")


def _checked(asked: Address, shards: Sequence[Shard]) -> View:
    """A view, if no slot and no node is in two shards, and slots are known at all."""
    names = [member.id for shard in shards for member in shard.members]
    if len(names) > MOST_MEMBERS:
        raise ValueError(f"{len(names)} nodes; a cluster has {MOST_MEMBERS} at most")
    if len(set(names)) != len(names):
        raise ValueError(f"the node {Counter(names).most_common(1)[0][0]} is listed twice")
    spans = sorted(span for shard in shards for span in shard.slots)
    if not spans:
        raise ValueError("no node has any slot")
    for (_, last), (first, _) in pairwise(spans):
        if first <= last:
            raise ValueError(f"slot {first} is listed twice")
    return View(asked, tuple(shards))


def _ranges(pairs: list[tuple[int, int]]) -> Ranges:
    """In order, and whole where they touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if first > last:
            raise ValueError(f"slots from {first} to {last}")
        if found and found[-1][1] + 1 == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def _listed(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{what}: no list")
    return value


def _fields(value: object, what: str) -> Mapping[str, object]:
    """A map, or what stands for one in RESP2: names and values in turn."""
    pairs: Iterator[tuple[object, object]]
    if isinstance(value, Mapping):
        pairs = iter(value.items())
    elif isinstance(value, list) and len(value) % 2 == 0:
        pairs = zip(value[::2], value[1::2], strict=True)
    else:
        raise ValueError(f"{what}: no map")
    found = {}
    for name, each in pairs:
        if not isinstance(name, bytes):
            raise ValueError(f"{what}: a name that is no text")
        found[name.decode("ascii", "replace")] = each
    return found


def _number(value: object, least: int, most: int, what: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} that is no number from {least} to {most}")
    return value


def _id(value: object) -> str:
    if not isinstance(value, bytes) or not 0 < len(value) <= 64 or not _is_word(value):
        raise ValueError("the id of a node is no word")
    return value.decode()


def _host(value: object) -> str:
    """A host; "" if none is named."""
    if value is None or value == b"":
        return ""
    if not isinstance(value, bytes) or len(value) > MOST_HOST or not _is_word(value):
        raise ValueError("the host of a node is no name and no address")
    return value.decode()


def _is_word(value: bytes) -> bool:
    return value.isascii() and value.decode().isprintable() and b" " not in value


# What several nodes say


def agreed(views: Sequence[View], in_use: View | None = None) -> View:
    """What is believed of these views: for each slot what most of them say of its primary.

    Where as many say one thing as another, that stays which is `in_use`; without it the first view
    is right. A primary without slots is believed if half of the views list it. It costs about as
    much however the slots are scattered.
    """
    if len(views) == 1:
        return views[0]
    claims = _Claims()
    columns = [claims.column(view) for view in views]
    used = claims.column(in_use) if in_use is not None else None
    spans: dict[int, list[tuple[int, int]]] = {}
    begun, before = 0, 0
    for slot, said in enumerate(zip(*columns, strict=True)):
        claim = said[0]
        if said.count(claim) != len(said):
            claim = claims.most(said, used[slot] if used is not None else None)
        if claim != before:
            spans.setdefault(before, []).append((begun, slot - 1))
            begun, before = slot, claim
    spans.setdefault(before, []).append((begun, SLOTS - 1))
    shards = []
    for claim, having in spans.items():
        shard = claims.shards[claim]
        if shard is not None:
            shards.append(Shard(shard.primary, shard.replicas, _ranges(having)))
    return View(views[0].asked, _consistent([*shards, *_without_slots(views, shards)]))


class _Claims:
    """What views say of slots, as numbers: 0 is nobody; a shard is as its primary is called, or one
    of its members if it has none. `owners` has what counts in a vote: 0 without a primary."""

    def __init__(self) -> None:
        self.shards: list[Shard | None] = [None]
        self.owners = [0]
        self._numbers: dict[tuple[bool, str], int] = {}

    def column(self, view: View) -> array[int]:
        """The claim on each slot."""
        found = array("i", [0]) * SLOTS
        for shard in view.shards:
            if not shard.members:
                continue
            name = shard.primary.id if shard.primary else min(m.id for m in shard.replicas)
            key = shard.primary is not None, name
            number = self._numbers.setdefault(key, len(self.shards))
            if number == len(self.shards):
                self.shards.append(shard)
                self.owners.append(number if shard.primary else 0)
            for first, last in shard.slots:
                found[first : last + 1] = array("i", [number]) * (last - first + 1)
        return found

    def most(self, said: Sequence[int], used: int | None) -> int:
        """What most say; among equals what is in use, or who comes first."""
        votes = Counter(self.owners[claim] for claim in said)
        top = max(votes.values())
        best = [claim for claim in said if votes[self.owners[claim]] == top]
        if used is None:
            return best[0]
        held = self.owners[used]
        return next((claim for claim in best if self.owners[claim] == held), best[0])


def _without_slots(views: Sequence[View], having: Sequence[Shard]) -> Iterator[Shard]:
    """Primaries that have no slot yet, or none any more."""
    named: Counter[str] = Counter()
    shards: dict[str, Shard] = {}
    taken = {shard.primary.id for shard in having if shard.primary}
    for view in views:
        for shard in view.shards:
            if shard.primary is not None and not shard.slots and shard.primary.id not in taken:
                named[shard.primary.id] += 1
                shards.setdefault(shard.primary.id, shard)
    yield from (shard for name, shard in shards.items() if named[name] * 2 >= len(views))


def _consistent(shards: Sequence[Shard]) -> tuple[Shard, ...]:
    """No node in two shards: views may differ in whose replica one is, or what is its part."""
    seen = {shard.primary.id for shard in shards if shard.primary}
    found = []
    for shard in shards:
        others = tuple(member for member in shard.replicas if member.id not in seen)
        seen.update(member.id for member in others)
        found.append(Shard(shard.primary, others, shard.slots))
    return tuple(found)
