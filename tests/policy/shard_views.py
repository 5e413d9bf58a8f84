"""Clusters as tests of `policy` describe them: names for nodes, and the replies of servers."""

from __future__ import annotations

from typing import Any

from sidecar.policy.shards import SLOTS, Address, Member, Shard, View

ASKED: Address = ("asked", 7000)
LAST = SLOTS - 1


def node(name: str, port: int = 6379) -> Member:
    """A node whose id is its host."""
    return Member(name, (name, port), f"{name}:{port}")


def shard(slots: tuple[int, int] | list[tuple[int, int]] | None, *names: str) -> Shard:
    """The first of these is the primary; "" as the first: there is none."""
    ranges = slots if isinstance(slots, list) else [slots] if slots else []
    primary, *others = names
    return Shard(node(primary) if primary else None, tuple(map(node, others)), tuple(ranges))


def view(*shards: Shard, asked: Address = ASKED) -> View:
    """What one node says."""
    return View(asked, shards)


def slots_reply(shards: View) -> list[Any]:
    """As CLUSTER SLOTS has it."""
    return [
        [
            first,
            last,
            *([m.address[0].encode(), m.address[1], m.id.encode(), []] for m in each.members),
        ]
        for each in shards.shards
        for first, last in each.slots
        if each.primary
    ]


def shards_reply(shards: View, *, resp3: bool = False) -> list[Any]:
    """As CLUSTER SHARDS has it."""
    return [_shard(each, resp3) for each in shards.shards]


def _shard(each: Shard, resp3: bool) -> Any:
    nodes = [_node(m, each.primary is m, resp3) for m in each.members]
    flat = [slot for span in each.slots for slot in span]
    return _map({b"slots": flat, b"nodes": nodes, b"id": b"s"}, resp3)


def _node(member: Member, primary: bool, resp3: bool) -> Any:
    return _map(
        {
            b"id": member.id.encode(),
            b"port": member.address[1],
            b"ip": b"10.0.0.1",
            b"endpoint": member.address[0].encode(),
            b"role": b"master" if primary else b"replica",
            b"health": b"online",
        },
        resp3,
    )


def _map(fields: dict[bytes, Any], resp3: bool) -> Any:
    return fields if resp3 else [part for pair in fields.items() for part in pair]
