"""Random programs: what many clients do one after the other, the same for the same seed.

A program is a list of steps that knows nothing of replies, so that any part of it is a program as
well; a client is opened at its first step. See `duo` for how steps are compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .duo import Command, Mask, id_of, pack
from .forms import Key, Name, right_forms
from .masks import CHANCE, MASKS, ORDER, TIMES, numbers, timed_deep, unordered_deep
from .vocabulary import (
    BLOCKING,
    BROKEN,
    COMMON,
    EVENTS,
    FUNCTIONS,
    IN_MULTI,
    INLINE,
    KEYS,
    MAKING,
    NAMES,
    PUBSUB,
    READS,
    RIGHTS,
    SCRIPTS,
    SESSION,
    TIMED,
    UNFIT,
    UNFIT_SUBCOMMANDS,
    WAKING,
)  # fmt: skip

DBS = (0, 0, 9)
BIG = 100_000
STREAMED = 400_000
LATE = 2.0
"""Seconds within which a server has ended a wait of 10 ms."""
AHEAD = 10
"""So many replies of BIG bytes the sidecar takes for a client that does not read, all at once."""


@dataclass(frozen=True)
class Step:
    """What one client does. `what`: send, drop, reset (drop with RST), pause, resume, pass (time).

    `db` and `protocol` are how the client begins, should this be its first step.
    """

    client: int
    commands: Sequence[Command] = ()
    what: str = "send"
    protocol: int = 2
    db: int = 0
    blocks: bool = False
    late: float = 0.0
    mask: Mask | None = None

    @property
    def count(self) -> int:
        """How many commands it sends."""
        return len(self.commands)

    @property
    def expected(self) -> int:
        """How many replies come, all to this client; 0 when that is not known."""
        if self.blocks or self.what != "send":
            return 0
        plain = all(not isinstance(c, bytes) and _says_one(c) for c in self.commands)
        return len(self.commands) if plain else 0

    def __str__(self) -> str:
        who = f"client {self.client} (RESP{self.protocol}, db {self.db})"
        if self.what != "send":
            return f"{who}: {self.what}"
        shown = [_shown(c) for c in self.commands]
        return f"{who}: {'; '.join(shown)}"


def _says_one(command: Sequence[bytes]) -> bool:
    name = command[0].upper() if command else b""
    return name not in (b"CLIENT", b"QUIT", b"RESET") and not name.endswith(b"SUBSCRIBE")


def _executes(command: Command) -> bool:
    """Whether the replies of all that was queued come now, whatever that was."""
    return b"EXEC" in (command if isinstance(command, bytes) else command[:1])


def _shown(command: Command) -> str:
    if isinstance(command, bytes):
        return f"bytes {_text(command)}"
    return " ".join(_text(w) if w.isalnum() else repr(_text(w)) for w in command)


def _text(word: bytes) -> str:
    text = word.decode("latin-1").encode("unicode_escape").decode()
    return text if len(text) < 120 else f"{text[:20]}...({len(word)} bytes)"


@dataclass
class ClientState:
    """What the generator believes of a client, to make sensible things more likely."""

    protocol: int
    db: int
    rest: bytes = b""
    multi: bool = False
    subscribed: bool = False
    paused: bool = False
    watching: bool = False
    bob: bool = False
    """It has logged in as another user."""
    redirecting: bool = False
    kept: bool = False
    """It has a link of its own for good."""
    pinned: bool = False
    """Likewise, and its replies are not matched with its requests any more."""
    timed: bool = False
    """What tells of time has been queued in a transaction."""
    exempt: bool = False
    """It has said NO-EVICT or NO-TOUCH."""
    session: bool = False
    """With session pooling."""
    asked: bool = False
    """It has asked who it is, in this transaction."""
    target: bool = False
    """Another one redirects its tracking to it."""
    renewed: bool = False
    """Its link is another one than that whose id it was told."""


KEEPING = (b"TRACKING", b"CACHING", b"NO-EVICT", b"NO-TOUCH", b"CAPA", b"IMPORT-SOURCE")

Avoid = Callable[[ClientState, Sequence[bytes]], bool]


class Generator:
    """Makes the steps of one program."""

    def __init__(
        self, rng: random.Random, known: set[str], avoid: Sequence[Avoid] = (), *, pinned: bool
    ) -> None:
        self.rng = rng
        self.pinned = pinned
        self.avoid = avoid
        self.clients: dict[int, ClientState] = {}
        self.turn = 0
        self.table = [
            (name.upper().encode().split(), forms, MASKS.get(name))
            for name, forms in right_forms().items()
            if name in known and not unfit(name)
        ]
        self.steps: list[Step] = []

    def program(self, steps: int, clients: int) -> list[Step]:
        """So many steps of so many clients."""
        rng = self.rng
        for i in range(clients):
            self._lost(i)
        for key in KEYS:
            if rng.random() < 0.6:
                self._add(rng.randrange(clients), [self._make(key)])
        makers = [make for weight, make in self._weights() for _ in range(weight)]
        while len(self.steps) < steps:
            client = rng.randrange(clients)
            rng.choice(makers)(client)
        for i, state in self.clients.items():
            if state.paused:
                self.steps.append(Step(i, what="resume", protocol=state.protocol, db=state.db))
        return self.steps

    def _weights(self) -> list[tuple[int, Callable[[int], None]]]:
        return [
            (24, self._pipeline), (14, self._reads), (10, self._single), (8, self._transaction),
            (4, self._watched),
            (6, self._blocking), (6, self._pubsub), (5, self._scripts), (5, self._client),
            (3, self._inline), (2, self._half), (2, self._leave), (2, self._large),
            (1, self._slow_reader), (1, self._shown),
            (2, self._session), (3, self._timed), (1, self._broken),
            (1, self._expiring), (1, self._lose), (2, self._rights),
        ]  # fmt: skip

    # Steps

    def _add(
        self, client: int, commands: Sequence[Command], *, blocks: bool = False, late: float = 0,
        mask: Mask | None = None
    ) -> None:  # fmt: skip
        state = self.clients[client]
        state.timed |= state.multi and mask is numbers
        if state.paused or self._to_avoid(state, commands):
            return
        if state.rest:
            commands = [state.rest, *commands]
            state.rest = b""
        if any(map(_executes, commands)):
            mask = timed_deep if state.timed else mask or unordered_deep
        self.steps.append(
            Step(client, tuple(commands), protocol=state.protocol, db=state.db, blocks=blocks,
                 late=late, mask=mask)
        )  # fmt: skip

    def _to_avoid(self, state: ClientState, commands: Sequence[Command]) -> bool:
        """Whether this would show a difference that is known; if not, it is believed done."""
        words = [word for command in commands for word in command if isinstance(word, bytes)]
        if any(each.renewed and id_of(name) in words for name, each in self.clients.items()):
            return True
        then = ClientState(**state.__dict__)
        for command in commands:
            if isinstance(command, bytes):
                continue
            if any(avoid(then, command) for avoid in self.avoid):
                return True
            self._believe(then, command)
        state.__dict__.update(then.__dict__)
        return False

    @staticmethod
    def _believe(state: ClientState, command: Sequence[bytes]) -> None:
        if command:
            name = command[0].upper()
            own = state.multi or state.watching or state.kept
            state.kept |= state.multi and name in (b"CLIENT", b"SELECT")
            state.pinned |= own and name in (b"AUTH", b"HELLO")
            if name == b"CLIENT":
                second = command[1].upper() if len(command) > 1 else b""
                state.asked |= state.multi
                state.kept |= second in KEEPING
                state.pinned |= second == b"REPLY"
                state.exempt |= second in (b"NO-EVICT", b"NO-TOUCH")
                state.redirecting |= b"REDIRECT" in command
            elif name == b"WATCH":
                state.watching = True
            elif name == b"MULTI":
                state.multi, state.asked = True, state.multi and state.asked
            elif name in (b"EXEC", b"DISCARD", b"RESET"):
                if state.multi or name == b"RESET":
                    state.multi = state.watching = False
                state.renewed |= state.session and name == b"RESET"
                if name == b"RESET" and len(command) == 1:
                    state.subscribed = state.kept = False
                    state.pinned = state.session
            elif name == b"MONITOR":
                state.pinned = True
            elif name.endswith(b"SUBSCRIBE"):
                state.pinned = True
                state.subscribed = not name.startswith((b"UN", b"PUN", b"SUN"))

    def _bare(self, client: int, what: str) -> None:
        state = self.clients[client]
        self.steps.append(Step(client, what=what, protocol=state.protocol, db=state.db))

    def _pipeline(self, client: int) -> None:
        count = min(int(self.rng.expovariate(0.06)) + 1, 150)
        commands, masks = [], set()
        for _ in range(count):
            command, mask = self.command()
            commands.append(command)
            if mask:
                masks.add(mask)
        self._add(client, commands, mask=_all(masks))

    def _reads(self, client: int) -> None:
        """The same reads again and again, so that they are cached; then something happens."""
        rng = self.rng
        count = rng.choice((1, 1, 2, 3, 5, 8, 12))
        reads: list[Command] = [self._line(READS) for _ in range(count)]
        for _ in range(rng.randrange(3, 10)):
            alike = [i for i, c in self.clients.items() if c.db == self.clients[client].db]
            self._add(rng.choice(alike), reads, mask=unordered_deep)
        if rng.random() < 0.8:
            other = rng.randrange(len(self.clients))
            self._add(other, [self._event(), *reads], mask=unordered_deep)
        self._add(client, reads, mask=unordered_deep)

    def _line(self, lines: Sequence[Sequence[bytes]], **words: bytes) -> list[bytes]:
        """One line of the vocabulary, filled in; `words` stand for words of the same name."""
        return [self._word(word, words) for word in self.rng.choice(lines)]

    def _word(self, word: bytes, words: Mapping[str, bytes]) -> bytes:
        if word == b"@":
            return self.key()
        if word == b"%":
            return self.rng.choice(NAMES)
        if word.isupper() and (found := words.get(word.decode())) is not None:
            return found
        return word.replace(b"#", b"%d" % self.rng.randrange(1000)) if b"#" in word else word

    def _event(self) -> list[bytes]:
        dice = self.rng.random()
        if dice < 0.2:
            return self._script()
        if dice < 0.25:
            return [b"EXISTS", *(b"k%d" % i for i in range(100))]
        return self._line(MAKING if dice < 0.35 else EVENTS)

    def _single(self, client: int) -> None:
        command, mask = self.command(alone=True)
        self._add(client, [command], mask=mask)

    def _transaction(self, client: int) -> None:
        rng = self.rng
        commands: list[Command] = [[b"MULTI"]]
        commands += [self.command(plain=True)[0] for _ in range(rng.randrange(6))]
        if rng.random() < 0.2:
            commands.insert(rng.randrange(1, len(commands) + 1), self._odd_in_multi())
        commands.append([rng.choice((b"EXEC", b"EXEC", b"EXEC", b"DISCARD"))])
        mask = unordered_deep
        if rng.random() < 0.5:
            self._add(client, commands, mask=mask)
            return
        while commands:
            cut = rng.randrange(len(commands)) + 1
            self._add(client, commands[:cut], mask=mask)
            commands = commands[cut:]
            if rng.random() < 0.3:
                self._pipeline(rng.randrange(len(self.clients)))
            if rng.random() < 0.03:
                return

    def _odd_in_multi(self) -> list[bytes]:
        if self.rng.random() < 0.1:
            return [b"EVAL", b"return redis.call('set','k1','multi')", b"0"]
        return self._line(IN_MULTI)

    def _watched(self, client: int) -> None:
        rng = self.rng
        key = self.key()
        self._add(client, [[b"WATCH", key]])
        if rng.random() < 0.2:
            self._add(
                client,
                [rng.choice([[b"EXEC"], [b"DISCARD"], [b"UNWATCH", b"x"], [b"MULTI", b"x"]])],
            )
        if rng.random() < 0.5:
            other = rng.randrange(len(self.clients))
            self._add(other, [[b"SET", key, b"w%d" % rng.randrange(99)]])
        if rng.random() < 0.5:
            self._add(client, [self.command(plain=True)[0]], mask=unordered_deep)
        if rng.random() < 0.2:
            self._add(client, [[b"UNWATCH"]])
        self._transaction(client)

    def _blocking(self, client: int) -> None:
        rng = self.rng
        forever = rng.random() < 0.6
        wait = b"0" if forever else b"0.01"
        key = self.key()
        command = self._line(BLOCKING, WAIT=wait, MS=b"0" if forever else b"10")
        commands: list[Command] = [command]
        if rng.random() < 0.3:
            commands.insert(0, self.command(plain=True)[0])
        self._add(client, commands, blocks=True, late=0 if forever else LATE, mask=unordered_deep)
        if forever:
            for _ in range(rng.randrange(4)):
                self._pipeline(rng.randrange(len(self.clients)))
            self._add(rng.randrange(len(self.clients)), [self._waking(key, client)])

    def _waking(self, key: bytes, client: int) -> list[bytes]:
        if self.rng.random() < 0.1:
            return [b"EVAL", b"return redis.call('lpush',KEYS[1],'s')", b"1", key]
        return self._line(WAKING, KEY=key, ID=id_of(client))

    def _pubsub(self, client: int) -> None:
        self._add(client, [self._line(PUBSUB)])

    def _scripts(self, client: int) -> None:
        rng = self.rng
        commands: list[Command] = []
        for _ in range(rng.randrange(1, 4)):
            commands.append(self._script())
            if rng.random() < 0.7:
                commands.append([b"GET", self.key()])
        self._add(client, commands)

    def _script(self) -> list[bytes]:
        rng = self.rng
        if rng.random() < 0.3:
            name, keys = rng.choice(FUNCTIONS)
            return [b"FCALL", name, b"%d" % keys, *(self.key() for _ in range(keys)), b"arg"]
        body, keys = rng.choice(SCRIPTS)
        words = [b"%d" % keys, *(self.key() for _ in range(keys)), self.key()]
        if rng.random() < 0.1:
            return [b"EVAL_RO", body, *words]
        return [b"EVAL", body, *words]

    def _client(self, client: int) -> None:
        rng = self.rng
        other = rng.randrange(len(self.clients))
        reply_off: list[Command] = [[b"CLIENT", b"REPLY", b"OFF"], [b"SET", self.key(), b"silent"],
                                    [b"CLIENT", b"REPLY", b"ON"]]  # fmt: skip
        skip: list[Command] = [[b"CLIENT", b"REPLY", b"SKIP"], [b"GET", b"k1"], [b"PING"]]
        choices: list[list[Command]] = [
            [[b"CLIENT", b"GETNAME"]], [[b"CLIENT", b"SETNAME", b"n%d" % rng.randrange(9)]],
            [[b"CLIENT", b"ID"]], [[b"CLIENT", b"SETINFO", b"LIB-NAME", b"mixer"]],
            [[b"CLIENT", b"NO-EVICT", b"on"]], [[b"CLIENT", b"NO-TOUCH", b"ON"]],
            [[b"CLIENT", b"TRACKING", b"ON"]], [[b"CLIENT", b"TRACKING", b"OFF"]],
            [[b"CLIENT", b"TRACKING", b"ON", b"NOLOOP"]],
            [[b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", b"k"]],
            [[b"CLIENT", b"TRACKING", b"ON", b"OPTIN"]],
            [[b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(other)]],
            [[b"CLIENT", b"CACHING", b"YES"], [b"GET", self.key()]],
            [[b"CLIENT", b"TRACKINGINFO"]], [[b"CLIENT", b"GETREDIR"]],
            [[b"CLIENT", b"KILL", b"ID", id_of(other)]],
            [[b"CLIENT", b"KILL", b"ID", id_of(other), b"TYPE", b"normal"]],
            [[b"CLIENT", b"KILL", b"ID", id_of(client), b"SKIPME", b"no"]],
            [[b"CLIENT", b"KILL", b"ID", id_of(client)]],
            [[b"CLIENT", b"UNBLOCK", id_of(other)]], [[b"CLIENT", b"UNPAUSE"]],
            [[b"CLIENT", b"NONSENSE"]], [[b"CLIENT"]], [[b"CLIENT", b"SETNAME", b"a b"]],
            reply_off, skip, [[b"PING"], *reply_off, [b"PING"]],
        ]  # fmt: skip
        chosen = rng.choice(choices)
        if chosen[0][-2:-1] == [b"REDIRECT"]:
            self.clients[other].kept = self.clients[other].target = True
        self._add(client, chosen)

    def _shown(self, client: int) -> None:
        """What CLIENT LIST and INFO say of a client."""
        other = self.rng.randrange(len(self.clients))
        lines: list[list[bytes]] = [
            [b"CLIENT", b"INFO"], [b"CLIENT", b"LIST", b"ID", id_of(other), id_of(client)],
        ]  # fmt: skip
        self._add(client, [self.rng.choice(lines)], mask=MASKS["client list"])

    def _rights(self, client: int) -> None:
        """What a user may do changes while its clients are connected."""
        rule = self._line(RIGHTS)[0].replace(b"!", b"|")
        self._add(client, [[b"ACL", b"SETUSER", b"bob", rule]])
        other = self.rng.randrange(len(self.clients))
        if self.rng.random() < 0.5:
            self._add(other, [[b"AUTH", b"bob", b"secret"]])
            self.clients[other].bob = True
        bobs = [i for i, state in self.clients.items() if state.bob]
        for _ in range(3 * bool(bobs)):
            makers = (self._pipeline, self._client, self._transaction, self._single)
            self.rng.choice(makers)(self.rng.choice(bobs))

    def _session(self, client: int) -> None:
        commands = self.rng.choice(SESSION)
        self._add(client, commands, mask=MASKS["hello"])
        if commands[0][0] == b"QUIT":
            self._lost(client)

    def _inline(self, client: int) -> None:
        self._add(client, [self.rng.choice(INLINE)])

    def _half(self, client: int) -> None:
        rng = self.rng
        data = b"".join(pack(self.command(plain=True)[0]) for _ in range(rng.randrange(1, 4)))
        cut = rng.randrange(1, len(data))
        state = self.clients[client]
        if state.rest or state.paused:
            return
        self._add(client, [data[:cut]], mask=unordered_deep)
        state.rest = data[cut:]
        for _ in range(rng.randrange(3)):
            self._pipeline(rng.randrange(len(self.clients)))
        if rng.random() < 0.8:
            self._add(client, [], mask=unordered_deep)

    def _lost(self, client: int) -> None:
        """The client is gone; another takes its place."""
        protocol, db = self.rng.choice((2, 2, 3)), self.rng.choice(DBS)
        self.clients[client] = ClientState(protocol, db, pinned=self.pinned, session=self.pinned)

    def _leave(self, client: int) -> None:
        self._bare(client, self.rng.choice(("drop", "drop", "reset")))
        self._lost(client)

    def _lose(self, client: int) -> None:
        """A client in the middle of something goes away."""
        rng = self.rng
        self._add(client, rng.choice([
            [[b"MULTI"], [b"SET", b"k1", b"never"]], [[b"WATCH", b"k1"]],
            [pack([b"SET", b"k1", b"x"])[:-4]],
            [[b"SUBSCRIBE", b"chan"]], [[b"CLIENT", b"TRACKING", b"ON"]],
        ]))  # fmt: skip
        self._leave(client)

    def _large(self, client: int) -> None:
        rng = self.rng
        key = self.key()
        size = rng.choice((20_000, BIG, STREAMED))
        value = bytes([rng.randrange(97, 123)]) * size
        commands: list[Command] = [[b"SET", key, value], [b"GET", key], [b"STRLEN", key]]
        if rng.random() < 0.3:
            commands += [[b"MULTI"], [b"APPEND", key, value], [b"GET", key], [b"EXEC"]]
        commands.append([b"SETRANGE", key, b"0", b"x"] if rng.random() < 0.3 else [b"DEL", key])
        self._add(client, commands)

    def _slow_reader(self, client: int) -> None:
        rng = self.rng
        state = self.clients[client]
        if state.multi or state.rest or state.paused:
            return
        key = rng.choice(KEYS[:9])
        self._add(client, [[b"SET", key, b"v" * BIG]])
        self._bare(client, "pause")
        count = rng.randrange(1, 60)
        self.steps.append(
            Step(client, tuple([[b"GET", key]] * count), protocol=state.protocol, db=state.db)
        )
        state.paused = True
        for _ in range(rng.randrange(5)):
            other = rng.randrange(len(self.clients))
            if count < AHEAD:
                self._single(other)
            else:
                # The last of its requests wait until it reads (`limits.client_output_pause`).
                self._add(other, [self._line(READS)], mask=unordered_deep)
        state.paused = False
        self._bare(client, rng.choice(("resume", "resume", "drop")))
        if self.steps[-1].what == "drop":
            self._lost(client)

    def _timed(self, client: int) -> None:
        self._add(client, [self._line(TIMED)], mask=numbers)

    def _expiring(self, client: int) -> None:
        key = self.key()
        self._add(client, [[b"SET", key, b"short", b"PX", b"2"]])
        self._bare(client, "pass")
        self._add(client, [[b"GET", key], [b"EXISTS", key]])

    def _broken(self, client: int) -> None:
        if self.clients[client].rest:
            return  # behind a request that is answered, a browser's word differs on purpose
        self._add(client, [self.rng.choice([*BROKEN, b"*-1\r\n*0\r\n"])])
        if self.steps and b"*0" not in self.steps[-1].commands[-1:][0][:9]:
            self._lost(client)

    # Commands

    def key(self) -> bytes:
        """A key; some are much used."""
        rng = self.rng
        return KEYS[rng.randrange(3)] if rng.random() < 0.5 else rng.choice(KEYS)

    def _make(self, key: bytes) -> list[bytes]:
        """What gives a key some value."""
        words = self._line(MAKING)
        at = 2 if words[0] == b"XGROUP" else 1
        return [*words[:at], key, *words[at + 1 :]]

    def command(
        self, *, alone: bool = False, plain: bool = False
    ) -> tuple[list[bytes], Mask | None]:
        """One command and how its reply is compared. `plain`: without a mask."""
        rng = self.rng
        while True:
            dice = rng.random()
            if dice < 0.35:
                return self._line(COMMON), None
            if dice < 0.45:
                key = self.key()
                return rng.choice([[b"DEL", key], self._make(key)]), None
            words, forms, mask = rng.choice(self.table)
            name = b" ".join(words).decode().lower()
            if mask is not None and name not in ORDER and not alone:
                continue
            if plain and mask is not None:
                continue
            return self._varied([*words, *rng.choice(forms)]), mask

    def _varied(self, words: Sequence[bytes]) -> list[bytes]:
        """A form of the tables with keys and names of this program, now and then wrong."""
        rng = self.rng
        made = []
        for word in words:
            if isinstance(word, Key):
                made.append(self.key())
            elif isinstance(word, Name):
                made.append(rng.choice(NAMES))
            else:
                made.append(bytes(word))
        # The cursors of SCAN are not the same on both sides, but for the first.
        # And what ends in a moment must not be in the middle of a pipeline.
        timed = b"EX" in made or b"PX" in made or b"EXP" in made[0] or made[0].endswith(b"SETEX")
        if rng.random() < 0.12 and not timed and not made[0].endswith(b"SCAN"):
            at = rng.randrange(len(made))
            kind = rng.randrange(5)
            if kind == 0 and len(made) > 1:
                del made[-1]
            elif kind == 1:
                made.insert(at + 1, rng.choice(NAMES))
            elif kind == 2:
                made[at] = made[at].swapcase()
            elif kind == 3 and at:
                made[at] = rng.choice([b"", b"x", b"-1", b"99999999999", *NAMES])
            elif kind == 4:
                made = made[:1]
        return made


def unfit(name: str) -> bool:
    """Whether a command of the tables is not for programs."""
    first = name.split()[0]
    return first in UNFIT or name in UNFIT_SUBCOMMANDS or name in CHANCE or name in TIMES


def _all(masks: set[Mask]) -> Mask | None:
    if not masks:
        return None
    return masks.pop() if len(masks) == 1 else unordered_deep
