"""What the near cache promises, as a judge of replies: for tests only.

The judge knows each event of the model server, so it knows of each reply when and on which
connection it was made. It holds every reply against the cache's contract
(sidecar/core/cache/serve.pyx) and knows nothing of how that is kept.

A reply read on a tracked connection is a *hit*, whoever's request it answers. It must be

    of the client's own user and database, and of the connection that is there now;
    from a time after every change of the key that was announced, or made through the sidecar;
    within its deadline, and not old by more than the lease allows.

Any reply must show the key as it was at some moment after the newest one that the sidecar has told
anybody of when the request was sent, or told this client of before: own writes are read, nobody
goes back, and what was told by a message or by the reply to a script is seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.native.model_connection import Connection, Event, Place
from tests.native.model_replies import Args
from tests.native.model_server import ModelServer, written

UnderWay: TypeAlias = Callable[[Place], bool]

MAX_TTL = 60_000_000
"""A deadline that no test reaches."""

LARGE = 1000
"""Bytes of a command that is passed on in pieces."""


@dataclass
class Due:
    """A request that was sent: what must hold of its reply."""

    args: Args
    sent_at: int
    floors: dict[Place, int]
    in_multi: bool = False


@dataclass(eq=False)
class Reader:
    """One client: who it is, and what it waits for."""

    user: bytes
    db: int
    proto: int
    due: list[Due] = field(default_factory=list)
    answered: int = 0
    pinned: bool = False
    fresh: bool = False
    told: dict[Place, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What the cache is told to promise; times in microseconds."""

    staleness: int
    ttl_max: int = MAX_TTL
    ttl_missing: int = MAX_TTL
    serves: bool = True
    never: Callable[[bytes], bool] = lambda key: False
    staleness_of: Callable[[bytes], int | None] = lambda key: None
    ttl_of: Callable[[bytes], int | None] = lambda key: None


class Violation(AssertionError):
    """A promise was broken."""


class Judge:
    """Holds replies against the contract."""

    def __init__(self, server: ModelServer, terms: Terms) -> None:
        self.server, self.terms = server, terms
        self.told: dict[Place, int] = defaultdict(int)
        self.live: dict[tuple[bytes, int], Connection | None] = {}
        self.pushed: dict[tuple[Connection, Args], int] = defaultdict(int)
        self.hits = 0

    def expect(self, reader: Reader, args: Args, *, in_multi: bool = False) -> Due:
        """A request is sent now: what has been told so far counts for it."""
        floors = {place: self.told[place] for place in places(reader.db, args)}
        due = Due(args, self.server.now, floors, in_multi)
        reader.due.append(due)
        return due

    def arrived(self, connection: Connection, marks: Iterable[tuple[str, Args, int]]) -> None:
        """What has come in whole on a tracked connection."""
        for kind, about, number in marks:
            if kind == "push":
                self.pushed[connection, about] = number

    def answer(self, reader: Reader, reply: bytes, *, now: bool, under_way: UnderWay) -> None:
        """The oldest request has its reply. `now`: it was decided on at this moment, and not
        earlier; `under_way` tells whether a key was then being written through the sidecar."""
        due = reader.due[reader.answered]
        reader.answered += 1
        if reply.startswith((b"-", b"+OK", b"+QUEUED", b"+C", b"*3\r\n$9\r\nsub")):
            return
        rest = reply
        parts = [due.args]
        if due.args[0] == b"EXEC":
            first = reader.answered - 2
            while reader.due[first].args[0] != b"MULTI":
                first -= 1
            parts = [d.args for d in reader.due[first + 1 : reader.answered - 1]]
            rest = after_line(rest)
        for args in parts:
            if rest.startswith(b"-"):
                rest = after_line(rest)
                continue
            if args[0] == b"MGET":
                rest = after_line(rest)
            for one in [(b"GET", key) for key in args[1:]] if args[0] == b"MGET" else [args]:
                rest = rest[self.explain(reader, due, one, rest, now, under_way) :]
        if rest:
            raise Violation(f"more than was asked for: {reply!r} for {due}")

    def explain(
        self, reader: Reader, due: Due, args: Args, reply: bytes, now: bool, under_way: UnderWay
    ) -> int:
        """Find the event that explains the beginning of a reply: how many bytes it explains."""
        trouble = "no such event"
        # Where several explain it, the first asks for the least of what follows.
        for event in self.server.events:
            if event.args != args:
                continue
            text = self.server.render(event, reader.proto)
            if not reply.startswith(text):
                continue
            found = self.fault(reader, due, event, now, under_way)
            if not found:
                self.hits += event.connection.tracking
                self.tell(reader, event)
                return len(text)
            trouble = f"{found}; {event}"
        raise Violation(f"{reader.user!r} got {reply!r} to {args!r} for {due}: {trouble}")

    def tell(self, reader: Reader, event: Event) -> None:
        """This client knows now of this event."""
        for place in event.places or list(self.server.versions):
            reader.told[place] = max(reader.told.get(place, 0), event.number)
            self.told[place] = max(self.told[place], event.number)

    def hear(self, reader: Reader, message: bytes) -> None:
        """A message has come to this client: it knows of what the message names."""
        number = int(message.rpartition(b":")[2])
        self.tell(reader, next(e for e in self.server.events if e.number == number))

    def fault(self, reader: Reader, due: Due, event: Event, now: bool, under_way: UnderWay) -> str:
        """What is wrong with this event as the answer, if anything is."""
        if (event.connection.user, event.connection.db) != (reader.user, reader.db):
            return "another user's, or another database's"
        if event.read:
            place = event.places[0]
            end = self.server.ends(event)
            floor = max(due.floors.get(place, 0), reader.told.get(place, 0))
            if end is not None and end.number <= floor:
                return f"older than what was told ({floor})"
        if not event.connection.tracking:
            return ""
        return self.forbidden(reader, due, event) or self.outdated(due, event, now, under_way)

    def forbidden(self, reader: Reader, due: Due, event: Event) -> str:
        """Why this request may not be a hit, if it may not."""
        key = event.places[0][1]
        if not self.terms.serves or self.terms.never(key):
            return "a hit where none may be"
        if due.in_multi or due.args[0] == b"EXEC" or reader.fresh or reader.pinned:
            return "a hit for one who asks the server"
        return ""

    def outdated(self, due: Due, event: Event, now: bool, under_way: UnderWay) -> str:
        """Why the hit may not be given any more, if it may not."""
        place, connection = event.places[0], event.connection
        key = place[1]
        at = self.server.now if now else due.sent_at
        if now:
            if self.live.get((connection.user, connection.db)) is not connection:
                return "read on a connection that is no more"
            if (
                self.pushed[connection, (key,)] > event.number
                or self.pushed[connection, ()] > event.number
            ):
                return "its invalidation had been received"
            if under_way(place):
                return "a command of our own was under way"
        for write in self.own_writes(event):
            if write.at <= at if now else write.at < at:
                return f"a command of our own had been executed: {write}"
        if at >= event.at + self.life(event):
            return "past its deadline"
        end = self.server.ends(event)
        bound = min(self.terms.staleness_of(key) or MAX_TTL, self.terms.staleness)
        if end is not None and at - end.at >= bound:
            return f"old by {at - end.at} us"
        return ""

    def own_writes(self, event: Event) -> Iterable[Event]:
        """Later events of the sidecar's own that have, or may have, changed the same key."""
        place = event.places[0]
        for write in reversed(self.server.events):
            if write.number <= event.number:
                return
            if write.read or not write.own or undeclared(write.args):
                continue  # what it does is to be seen once its reply has come
            if place in write.places or not write.places:
                yield write

    def life(self, event: Event) -> int:
        """How long what was read may be served."""
        key = event.places[0][1]
        life = min(self.terms.ttl_of(key) or MAX_TTL, self.terms.ttl_max)
        if not event.version:
            life = min(life, self.terms.ttl_missing)
        return life if event.expires is None else min(life, event.expires - event.at)


def undeclared(args: Args) -> bool:
    """Whether the sidecar cannot know what a command writes when it is dispatched: a script that
    declares no keys, or one so large that its key may not be here yet."""
    name = args[0].upper()
    return (name == b"EVAL" and args[2] == b"0") or sum(map(len, args)) > LARGE


def after_line(reply: bytes) -> bytes:
    """What follows the first line of a reply."""
    return reply[reply.index(b"\r\n") + 2 :]


def places(db: int, args: Args) -> list[Place]:
    """The keys that a command names."""
    name = args[0].upper()
    if name == b"MGET":
        return [(db, key) for key in args[1:]]
    found = written(db, args)
    if found or name in (b"EVAL", b"ACL", b"SWAPDB", b"FLUSHALL", b"FLUSHDB", b"SUBSCRIBE"):
        return found
    return [(db, args[1])] if len(args) > 1 else []
