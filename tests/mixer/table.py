"""Every command in every form, on a direct server and through a sidecar: replies, state, and what
later reads say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar, redis7, redis8, valkey

from .duo import Command, Difference, Duo, Outcome
from .forms import Form, commands_of, forms_of, names, prepared, right_forms
from .masks import MASKS, NEVER, SKIPPED_FORMS, unordered, unordered_deep

BINARIES: dict[str, Callable[..., Server]] = {"valkey": valkey, "redis7": redis7, "redis8": redis8}
CACHES: dict[str, dict[str, str | int | float]] = {
    "off": {"cache.mode": "off"},
    "rules": {"cache.mode": "rules", "cache.rules": '["*"]'},
    "hot": {
        "cache.mode": "hot", "hotkeys.hot_share": 0.00001, "hotkeys.cool_share": 0.00001,
        "hotkeys.window": 0.1,
    },
}  # fmt: skip

LIBRARY = b"""#!lua name=mylib
redis.register_function('fset', function(k, a)
  return redis.call('set', k[1] or 's', a[1] or 'f') end)
redis.register_function{function_name='fget', flags={'no-writes'},
  callback=function(k, a) return redis.call('get', k[1] or 's') end}
redis.register_function('fother', function(k, a) return redis.call('set', 's', 'other') end)
"""

STATEFUL = names(
    "client auth hello quit reset select multi exec discard watch unwatch subscribe unsubscribe "
    "psubscribe punsubscribe ssubscribe sunsubscribe monitor readonly readwrite asking sync psync "
    "replconf shutdown debug failover script function"
)
"""Commands that may leave something on a connection: each form of them gets one of its own."""

SERVERWIDE = names("acl config function script slowlog latency swapdb")
"""What they change is no key, so that no digest tells."""
UNDIGESTED = names(
    "xgroup xreadgroup xack xackdel xclaim xautoclaim xsetid xadd xdelex expire pexpire expireat"
    " pexpireat getex set hexpire hpexpire hexpireat hpexpireat hgetex hsetex"
)
"""A digest tells neither of a stream's groups nor of when a key expires."""
VECTOR = b"VADD vs VALUES 3 1 1 1 el0".split()
"""Only Redis 8 has vectors."""
SAVING = names("save bgsave bgrewriteaof")
"""Refused while the server saves in the background, which another form may have begun."""

READS = [
    b"GET s", b"GET n", b"GET v", b"STRLEN s", b"LRANGE l 0 -1", b"HGETALL h", b"SMEMBERS i",
    b"ZRANGE z 0 -1 WITHSCORES", b"XRANGE x - +", b"EXISTS d", b"GET e", b"TYPE g",
    b"MGET s n e", b"GETRANGE d 0 -1", b"HGET h f",
]  # fmt: skip
PROBE: list[Command] = [line.split() for line in READS]
AFTERWARDS: list[list[Command]] = [
    [[b"PING"]], [[b"GET", b"s"], [b"CLIENT", b"GETNAME"], [b"INCR", b"n"]], [[b"MULTI"]],
    [[b"GET", b"n"], [b"EXEC"]],
]  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """Under what circumstances the forms are compared."""

    kind: str
    cache: str = "off"
    pooling: str = "shared"
    protocol: int = 2
    db: int = 0

    def __str__(self) -> str:
        return f"{self.kind}-{self.cache}-{self.pooling}-resp{self.protocol}-db{self.db}"


@dataclass
class Found:
    """A form whose outcome was not the same."""

    form: Form
    where: str
    differences: list[Difference] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"{self.form}, {self.where}", *map(str, self.differences)])


class Table:
    """One pair of servers and one sidecar; forms are compared one after the other."""

    def __init__(self, setup: Setup, direct: Server, behind: Server, sidecar: Sidecar) -> None:
        self.setup, self.server, self.sidecar = setup, direct, sidecar
        self.duo = self.pair_up(direct.port, sidecar.port, behind.port)
        self.found: list[Found] = []
        self.base = b""
        self.answered: set[str] = set()
        """Commands of which a right form was not refused."""
        self.prepared = prepared()
        if b"$4\r\nvadd\r\n" in self.duo.direct.ask("COMMAND").lower():
            self.prepared.append(VECTOR)
        self.next_client = 100
        self.duo.open(0, setup.protocol, setup.db)
        self.duo.open(1, setup.protocol, setup.db)
        self.duo.open(2)
        self.reset()

    def pair_up(self, direct: int, sidecar: int, behind: int) -> Duo:
        """The two sides, by their ports."""
        return Duo(direct, sidecar, behind, patience=4.0)

    def forms(self) -> Iterator[Form]:
        """All forms of all commands this server has."""
        rights = right_forms()
        names = commands_of(self.duo.direct.ask("COMMAND"))
        missing = [n for n in names if n not in rights]
        assert not missing, f"tests/compat/forms has no arguments for {missing}"
        for name in names:
            container = any(n.startswith(f"{name} ") for n in names)
            if name not in NEVER:
                yield from forms_of(name, rights[name], container)

    def reset(self, everything: bool = True) -> None:
        """The prepared keys on both sides, and in the cache."""
        requests: list[Command] = list(self.prepared)
        if everything:
            requests += [[b"FUNCTION", b"FLUSH"], [b"FUNCTION", b"LOAD", LIBRARY]]
            requests.append([b"SCRIPT", b"LOAD", b"return 1"])
        for client in (0, 1, 2):
            if self.duo.direct.peers[client].ended or self.duo.sidecar.peers[client].ended:
                self.replace(client)
        self.empty()
        outcome = self.duo.step(0, requests, expect=len(requests))
        assert not outcome.differences, [str(d) for d in outcome.differences]
        assert not [f for f in outcome.frames[0] if f[:1] == b"-"], outcome.frames
        left, right = self.duo.digests()
        assert left == right, "the prepared keys differ"
        self.base = left
        self.probe(0)

    def empty(self) -> None:
        """Delete all keys on both sides, and the user that forms make."""
        outcome = self.duo.step(0, [[b"FLUSHALL"], [b"ACL", b"DELUSER", b"bob"]], expect=2)
        assert not outcome.differences, [str(d) for d in outcome.differences]

    def probe(self, client: int) -> Outcome:
        """What later reads say."""
        return self.duo.step(client, PROBE, expect=len(PROBE))

    def warm(self) -> None:
        """Read the prepared keys until the cache has them."""
        if self.setup.cache == "off" or self.setup.pooling == "session":
            return

        def served() -> bool:
            def calls() -> bytes:
                return self.duo.sidecar.ask("INFO", "commandstats")

            for _ in range(20):
                self.probe(1)
            before = _gets(calls())
            self.probe(1)
            return _gets(calls()) == before

        wait_until(served, "the cache has the prepared keys", 20)

    def compare(self, form: Form) -> None:
        """One form, and all that may follow from it."""
        if (form.command, form.kind) in SKIPPED_FORMS:
            return
        first = form.command.split()[0]
        stateful = first in STATEFUL or form.kind.startswith("in MULTI")
        client = 0
        if stateful:
            client = self.next_client = self.next_client + 1
            self.duo.open(client, self.setup.protocol, self.setup.db)
        self._say(form, client)
        if stateful:
            for commands in AFTERWARDS:
                self._check(form, "afterwards", self.duo.step(client, commands))
            self.duo.drop(client, agree="subscribe" in first)
            if form.command == "client reply":
                self.duo.same_keys()
        self._follow(form, first)

    def _say(self, form: Form, client: int) -> None:
        mask = MASKS.get(form.command)
        if form.kind.startswith("in MULTI") and mask is unordered:
            mask = unordered_deep
        if form.command in SAVING:
            self._saved()
        late = 0.3 if form.command[:1] == "b" or form.command.startswith(("xread", "wait")) else 0.0
        multi: list[Command] = [[b"MULTI"], form.words, [b"EXEC"]]
        if form.kind == "in MULTI":
            self._check(form, "", self.duo.step(client, multi, mask=mask))
        elif form.kind == "in MULTI, piece by piece":
            for command in multi:
                self._check(form, "", self.duo.step(client, [command], mask=mask))
        else:
            if client == 0 and self.setup.cache != "off":
                # What is cached must be right at once: reads in the same write, behind it.
                words = [form.words, *PROBE]
                outcome = self.duo.step(
                    client, words, mask=mask, masked=1, late=late, expect=len(words)
                )
                self._note_answered(form, client, outcome)
                self._check(form, "reads in the same write", outcome)
                if form.command in SAVING:
                    self._saved()
            outcome = self.duo.step(
                client, [form.words], mask=mask, late=late, expect=int(client == 0)
            )
            self._note_answered(form, client, outcome)
            self._check(form, "", outcome)

    def _note_answered(self, form: Form, client: int, outcome: Outcome) -> None:
        """Some are right only once: what they make is there the second time."""
        if form.kind == "right" and outcome.frames.get(client, [b"-"])[0][:1] != b"-":
            self.answered.add(form.command)

    def _saved(self) -> None:
        """Wait until neither server saves in the background."""

        def idle() -> bool:
            told = b"".join(side.ask("INFO", "persistence") for side in self.duo.sides)
            return not re.search(rb"(?:bgsave|rewrite)_(?:in_progress|scheduled):1", told)

        wait_until(idle, "both servers have saved", 20)

    def _follow(self, form: Form, first: str) -> None:
        """Reads of another client, twice; and the state of all keys."""
        rounds = 1 if self.setup.cache == "off" else 3
        for turn in range(rounds):
            self._check(form, f"read {turn + 1} of another client", self.probe(1))
        left, right = self.duo.digests()
        if left != right:
            self.found.append(
                Found(form, "keys", [Difference(client=0, direct=[left], sidecar=[right])])
            )
        again = first in SERVERWIDE | UNDIGESTED or first.startswith("flush")
        if again or left != self.base or left != right:
            self.reset(first in SERVERWIDE)

    def _check(self, form: Form, where: str, outcome: Outcome) -> None:
        if outcome.differences:
            self.found.append(Found(form, where, outcome.differences))
            for client in (0, 1, 2):
                if form.command.split()[0] not in STATEFUL:
                    self.replace(client)

    def replace(self, client: int) -> None:
        """A new connection in the place of one that has got out of step."""
        db, protocol = (0, 2) if client == 2 else (self.setup.db, self.setup.protocol)
        self.duo.drop(client, agree=False)
        self.duo.open(client, protocol, db)

    def close(self) -> None:
        """Close the clients."""
        self.duo.close()


def _gets(info: bytes) -> list[bytes]:
    return [
        line for line in info.split(b"\r\n") if line.startswith((b"cmdstat_get:", b"cmdstat_hget:"))
    ]


def in_multi(forms: Iterable[Form]) -> Iterator[Form]:
    """The first right form of each command inside of a transaction, in one piece and in three."""
    seen = set()
    for form in forms:
        if form.kind == "right" and form.command not in seen:
            seen.add(form.command)
            yield Form(form.command, "in MULTI", form.words)
            yield Form(form.command, "in MULTI, piece by piece", form.words)
