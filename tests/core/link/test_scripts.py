"""Scripts that a shard lacks, and that a client has given before."""

from __future__ import annotations

import hashlib

import pytest

from sidecar.core.link.scripts import Scripts
from tests.core.cluster.shell import Cluster
from tests.core.cluster.test_branches import A, B
from tests.native.shell import named, request

NOSCRIPT = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
TEXT = b"return redis.call('GET', KEYS[1])"


def digest(script: bytes) -> bytes:
    return hashlib.sha1(script).hexdigest().encode()


class Scripted:
    """A cluster whose servers know the scripts that they have been given."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.kept = Scripts(1)
        self.kept.use_addresses([(Cluster.address(n), n, True) for n in range(3)])
        self.cluster.core.use_scripts(self.kept)
        self.has: list[set[bytes]] = [set() for _ in self.cluster.shards]
        self.runs: list[bytes] = []
        self.refuses = False
        self.loads = 0
        for shard, has in zip(self.cluster.shards, self.has, strict=True):
            shard.answers = {
                b"EVAL": lambda args, has=has: self._eval(has, args),
                b"EVALSHA": lambda args, has=has: self._evalsha(has, args),
                b"SCRIPT": lambda args, has=has: self._load(has, args),
            }

    def _load(self, has: set[bytes], args: list[bytes]) -> bytes:
        if self.refuses:
            return b"-NOPERM x\r\n"
        self.loads += 1
        has.add(digest(args[2]))
        return b"$40\r\n%b\r\n" % digest(args[2])

    def _eval(self, has: set[bytes], args: list[bytes]) -> bytes:
        has.add(digest(args[1]))
        self.runs.append(args[1])
        return named(b"ran", args[1])

    def _evalsha(self, has: set[bytes], args: list[bytes]) -> bytes:
        if args[1].lower() not in has:
            return NOSCRIPT
        self.runs.append(args[1])
        return named(b"ran", args[1])

    def forget(self) -> None:
        """All servers do."""
        for has in self.has:
            has.clear()

    def run(self, *requests: bytes) -> list[bytes]:
        """The replies to requests that come in one piece."""
        self.cluster.send(b"".join(requests))
        self.cluster.drain()
        return self.cluster.replies()


def evalsha(script: bytes, key: bytes, name: str = "EVALSHA") -> bytes:
    return request(name, digest(script), b"1", key)


RAN = named(b"ran", digest(TEXT))


def test_another_shard_gets_the_script() -> None:
    world = Scripted()
    assert world.run(request("EVAL", TEXT, b"1", A)) == [named(b"ran", TEXT)]
    assert world.run(evalsha(TEXT, B)) == [RAN]
    assert world.run(request("GET", B), evalsha(TEXT, B)) == [named("GET", B), RAN]
    assert world.runs.count(digest(TEXT)) == 2


def test_in_a_pipeline() -> None:
    """The script goes before its first use at a shard, and once only."""
    world = Scripted()
    world.kept.keep(TEXT)
    wanted = [evalsha(TEXT, B), request("GET", B), evalsha(TEXT, A), evalsha(TEXT, B)]
    for _ in range(2):
        assert world.run(*wanted) == [RAN, named("GET", B), RAN, RAN]
    assert world.loads == 2


def test_a_server_has_forgotten_it_in_a_pipeline() -> None:
    """What the client has sent to other shards is no reason not to run it; nothing overtakes it at
    its own: then the server's answer is given, and the script is there for the next time."""
    world = Scripted()
    world.kept.keep(TEXT)
    assert world.run(evalsha(TEXT, B)) == [RAN]
    world.forget()
    wanted = [request("GET", A), request("GET", B), evalsha(TEXT, B), request("GET", A)]
    assert world.run(*wanted) == [named("GET", A), named("GET", B), RAN, named("GET", A)]
    world.forget()
    wanted = [evalsha(TEXT, B), request("GET", B)]
    assert world.run(*wanted) == [NOSCRIPT, named("GET", B)]
    assert world.run(*wanted) == [RAN, named("GET", B)]


def test_another_server_is_brought_it_again() -> None:
    world = Scripted()
    world.kept.keep(TEXT)
    wanted = [evalsha(TEXT, B), request("GET", B)]
    assert world.run(*wanted) == [RAN, named("GET", B)]
    world.forget()
    assert world.kept.loading()
    assert world.run(*wanted) == [RAN, named("GET", B)]


def test_a_server_is_given_all_of_them() -> None:
    kept = Scripts(1)
    kept.keep(TEXT)
    assert kept.loading() == [request("SCRIPT", "LOAD", TEXT)]


def test_what_nobody_has_given_stays_unknown() -> None:
    world = Scripted()
    assert world.run(evalsha(TEXT, A), request("EVALSHA", b"short", b"1", A)) == [NOSCRIPT] * 2
    world.kept.keep(TEXT)
    assert world.run(evalsha(TEXT, A)) == [named(b"ran", digest(TEXT))]
    world.kept.forget()
    world.forget()
    assert world.run(evalsha(TEXT, A)) == [NOSCRIPT]


def test_a_script_that_cannot_be_loaded() -> None:
    """The user may not, or the server has forgotten it again: once is tried."""
    world = Scripted()
    world.kept.keep(TEXT)
    world.refuses = True
    assert world.run(evalsha(TEXT, A), request("GET", A)) == [NOSCRIPT, named("GET", A)]


@pytest.mark.parametrize("size", [1, 5, 20])
def test_an_answer_that_comes_in_parts(size: int) -> None:
    world = Scripted()
    world.kept.keep(TEXT)
    world.cluster.send(evalsha(TEXT, A))
    for _ in range(300):
        world.cluster.flush(0)
        world.cluster.arrive(0, size)
    assert world.cluster.replies() == [RAN]
    assert world.runs == [digest(TEXT)]


def test_a_digest_in_capitals() -> None:
    world = Scripted()
    world.kept.keep(TEXT)
    wanted = digest(TEXT).upper()
    assert world.run(request("EVALSHA", wanted, b"1", A)) == [named(b"ran", wanted)]


def test_those_used_least_recently_make_room() -> None:
    kept = Scripts(1)
    scripts = [b"-- %d " % n + b"x" * 400_000 for n in range(12)]
    for script in scripts:
        kept.keep(script)
        kept.keep(scripts[0])
    assert digest(scripts[0]) in kept
    assert digest(scripts[1]) not in kept
    assert digest(scripts[-1]) in kept
    assert kept.size <= 4 << 20
    kept.keep(b"x" * 600_000)
    assert digest(b"x" * 600_000) not in kept


def test_a_script_that_had_to_make_room_is_kept_when_it_is_given_again() -> None:
    world = Scripted()
    world.run(request("EVAL", TEXT, b"1", A))
    for number in range(12):
        world.kept.keep(b"-- %d " % number + b"x" * 400_000)
    assert digest(TEXT) not in world.kept
    world.run(request("EVAL", TEXT, b"1", A))
    assert digest(TEXT) in world.kept
