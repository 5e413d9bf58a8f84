"""A cluster of one node, as the sidecar itself reads what nodes say."""

from __future__ import annotations

import hiredis
import pytest

from sidecar.policy.one_node import OneNode
from sidecar.policy.shards import Reading, view_of_shards, view_of_slots

ASKED = ("10.0.0.1", 6380)


def said(*words: bytes, protocol: int = 2, tls: bool = False) -> object:
    reply = OneNode("127.0.0.1", 6380, protocol, tls).answer([b"CLUSTER", *words])
    assert reply is not None
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_it_has_all_slots(protocol: int, tls: bool) -> None:
    slots = view_of_slots(said(b"slots", protocol=protocol), ASKED)
    shards = view_of_shards(said(b"SHARDS", protocol=protocol, tls=tls), ASKED, Reading(tls))
    for view in (slots, shards):
        (shard,) = view.shards
        assert shard.slots == ((0, 16383),)
        assert shard.primary is not None
        assert shard.primary.address == ("127.0.0.1", 6380)
        assert shard.primary.id == said(b"MYID").decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", [2, 3])
def test_texts(protocol: int) -> None:
    nodes = str(said(b"NODES", protocol=protocol))
    assert "127.0.0.1:6380@16380 myself,master - 0 0 1 connected 0-16383" in nodes
    assert "cluster_state:ok" in str(said(b"INFO", protocol=protocol))


def test_a_slot() -> None:
    assert said(b"KEYSLOT", b"{user1}.a") == said(b"KEYSLOT", b"user1")


def test_what_one_node_cannot_answer() -> None:
    node = OneNode("127.0.0.1", 6380, 2)
    for words in ([b"FORGET", b"x"], [b"COUNTKEYSINSLOT", b"1"], [b"SLOTS", b"x"], []):
        assert node.answer([b"CLUSTER", *words]) is None
