"""A small model of a Redis server, for the near cache's tests: bytes in, bytes out, a clock to set.

It keeps of a key only its *version*: the number of the event that wrote it, or 0 while there is
none. What the server does is a list of numbered events, and a reply tells the number of its event:
a reply to a read shows when, on which connection and for whom the value was read. With `stable`, a
reply tells the version instead, so that two readings of the same value are equal.

Keys have no type: each command answers in its own form, whatever was written. Invalidations are
written into the connection that tracks, before anything that is answered later; a logical expiry is
noticed, and announced, only when somebody touches the key.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

from tests.native.model_connection import Connection, Event, Place
from tests.native.model_replies import ALWAYS, READS, Args, number
from tests.native.shell import bulk

FIRST = 10**9
"""Numbers of events have ten digits and are found by that in any reply."""


MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n"
"""What a message begins with; the number of the event it is about follows."""


class ModelServer:
    """The server: databases, connections, and all that it ever did."""

    def __init__(self, *, stable: bool = False) -> None:
        self.stable = stable
        self.now = 0
        self.events: list[Event] = []
        self.versions: dict[Place, tuple[int, int | None]] = {}
        self.changes: dict[Place, list[Event]] = defaultdict(list)
        self.tracked: dict[bytes, set[Connection]] = defaultdict(set)
        self.connections: set[Connection] = set()
        self.subscribed: set[Connection] = set()
        self.denied: set[bytes] = set()
        self.no_ttl: set[bytes] = set()
        self.pads: dict[bytes, int] = {}
        self.numbers = itertools.count(FIRST)
        self.outside = self.connect(b"admin", 0, 2, own=False)

    def connect(
        self, user: bytes, db: int, proto: int, *, tracking: bool = False, own: bool = True
    ) -> Connection:
        """A new connection."""
        connection = Connection(self, user, db, proto, tracking, own)
        self.connections.add(connection)
        return connection

    def drop(self, connection: Connection) -> None:
        """A connection is over: its other end has gone, and all it has sent is executed."""
        self.connections.discard(connection)
        self.subscribed.discard(connection)
        for tracking in self.tracked.values():
            tracking.discard(connection)

    # Execution

    def execute(self, connection: Connection, args: Args) -> bytes:
        """One request: its reply, or QUEUED."""
        name = args[0].upper()
        if name == b"MULTI":
            connection.queue = []
            return b"+OK\r\n"
        if name in (b"EXEC", b"DISCARD"):
            queue, connection.queue = connection.queue, None
            if queue is None:
                return b"-ERR %b without MULTI\r\n" % name
            if name == b"DISCARD":
                return b"+OK\r\n"
            return b"*%d\r\n" % len(queue) + b"".join(self.answer(connection, a) for a in queue)
        if connection.queue is not None:
            connection.queue.append(args)
            return b"+QUEUED\r\n"
        return self.answer(connection, args)

    def answer(self, connection: Connection, args: Args) -> bytes:
        """Execute a command that is not queued."""
        name = args[0].upper()
        if name in READS or name in (b"MGET", b"PTTL"):
            if connection.user in self.denied or (
                name == b"PTTL" and connection.user in self.no_ttl
            ):
                return b"-NOPERM no\r\n"
            if name == b"PTTL":
                return self.ttl(connection, args[1])
            if name != b"MGET":
                return self.read(connection, args)
            each = (self.read(connection, (b"GET", key)) for key in args[1:])
            return b"*%d\r\n" % (len(args) - 1) + b"".join(each)
        if name in (b"PING", b"WATCH", b"UNWATCH"):
            return b"+OK\r\n"
        if name == b"SUBSCRIBE":
            self.subscribed.add(connection)
            return b"*3\r\n$9\r\nsubscribe\r\n" + bulk(args[1]) + b":1\r\n"
        return number(self.write(connection, args).number)

    def touch(self, place: Place) -> None:
        """A key whose time is over is deleted when somebody comes upon it."""
        version, expires = self.versions.get(place, (0, None))
        if version and expires is not None and expires <= self.now:
            args = (b"EXPIRED", place[1])
            self.change(self.note(self.outside, args, (place,), read=False, own=False))

    def note(
        self, connection: Connection, args: Args, places: Sequence[Place], *, read: bool, own: bool
    ) -> Event:
        """A new event."""
        version, expires = self.versions.get(places[0], (0, None)) if read else (0, None)
        event = Event(
            next(self.numbers),
            self.now,
            connection,
            args,
            tuple(places),
            read,
            version,
            expires,
            own,
        )
        self.events.append(event)
        return event

    def track(self, connection: Connection, key: bytes) -> None:
        """Remember that the connection has read the key."""
        if connection.tracking and connection in self.connections:
            self.tracked[key].add(connection)

    def ttl(self, connection: Connection, key: bytes) -> bytes:
        """The reply to PTTL."""
        place = (connection.db, key)
        self.touch(place)
        self.track(connection, key)
        version, expires = self.versions.get(place, (0, None))
        if not version:
            return number(-2)
        return number(-1 if expires is None else (expires - self.now) // 1000)

    def read(self, connection: Connection, args: Args) -> bytes:
        """One key's value, in the form of the command."""
        place = (connection.db, args[1])
        self.touch(place)
        self.track(connection, args[1])
        event = self.note(connection, args, [place], read=True, own=connection.own)
        return self.render(event, connection.proto)

    def render(self, event: Event, proto: int) -> bytes:
        """The reply to a read or a write."""
        if not event.read:
            return number(event.number)
        form = READS[event.args[0].upper()]
        n = event.version if self.stable or not event.version else event.number
        if event.args[0].upper() in ALWAYS and not self.stable:
            n = event.number
        return form(n, proto, event.args, self.pads.get(event.args[1], 0))

    def write(self, connection: Connection, args: Args) -> Event:
        """A command that changes keys, or whatever it likes."""
        db, own = connection.db, connection.own
        event = self.note(connection, args, written(db, args), read=False, own=own)
        self.change(event)
        return event

    def change(self, event: Event) -> None:
        """Let an event have its effect, and tell those that track."""
        name = event.args[0].upper()
        if not event.places:
            self.change_any(name, event)
        for place in event.places:
            gone = name in (b"DEL", b"EXPIRED") or (name == b"RENAME" and place[1] == event.args[1])
            self.put(place, event, (0, None) if gone else (event.number, self.deadline(event)))
            self.invalidate(place[1], event.number)

    def put(self, place: Place, event: Event, version: tuple[int, int | None]) -> None:
        """A key's new state."""
        if version[0] or place in self.versions:
            self.versions[place] = version
        self.changes[place].append(event)

    def deadline(self, event: Event) -> int | None:
        """When what an event has written ends."""
        args = event.args
        if args[0].upper() == b"SET" and len(args) == 5:
            return self.now + int(args[4]) * 1000
        return self.now + int(args[2]) * 1000 if args[0].upper() == b"PEXPIRE" else None

    def change_any(self, name: bytes, event: Event) -> None:
        """What names no key: FLUSHALL and its like, a script that writes what it did not declare,
        and ACL, after which a user may read or not."""
        db = event.connection.db
        if name in (b"FLUSHALL", b"FLUSHDB"):
            for place in list(self.versions):
                if name == b"FLUSHALL" or place[0] == db:
                    self.put(place, event, (0, None))
            for connection in self.connections:
                if connection.tracking:
                    connection.say(b">2\r\n$10\r\ninvalidate\r\n_\r\n")
                    connection.mark("push", (), event.number)
            self.tracked.clear()
        elif name == b"SWAPDB":
            one, two = int(event.args[1]), int(event.args[2])
            keys = {key for place, key in self.versions if place in (one, two)}
            for key in keys:
                first = self.versions.get((one, key), (0, None))
                second = self.versions.get((two, key), (0, None))
                self.put((one, key), event, second)
                self.put((two, key), event, first)
        elif name == b"EVAL":
            self.put((db, event.args[1]), event, (event.number, None))
            self.invalidate(event.args[1], event.number)
        elif name == b"ACL":
            self.denied ^= {event.args[2]}

    def publish(self) -> None:
        """Tell all subscribers of the newest event."""
        for connection in self.subscribed:
            connection.say(MESSAGE + number(self.events[-1].number))

    def invalidate(self, key: bytes, number: int) -> None:
        """Tell the connections that have read the key that it has changed: once."""
        for connection in self.tracked.pop(key, ()):
            connection.say(b">2\r\n$10\r\ninvalidate\r\n*1\r\n" + bulk(key))
            connection.mark("push", (key,), number)

    def ends(self, event: Event) -> Event | None:
        """The first event that has changed what this one read or left."""
        later = (e for e in self.changes[event.places[0]] if e.number > event.number)
        return next(later, None)


def written(db: int, args: Args) -> list[Place]:
    """What a command writes; nothing named: anything."""
    name = args[0].upper()
    if name in (b"SET", b"DEL", b"PEXPIRE", b"APPEND", b"INCR", b"BLPOP"):
        return [(db, args[1])]
    if name == b"MSET":
        return [(db, key) for key in args[1::2]]
    if name == b"RENAME":
        return [(db, args[1]), (db, args[2])]
    if name == b"EVAL" and args[2] != b"0":
        return [(db, key) for key in args[3:]]
    return []
