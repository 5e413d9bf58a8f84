"""The clients of a core with a near cache, and what they have under way (see cached_shell.py)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.native.model_connection import Place
from tests.native.model_replies import Args
from tests.native.oracle import Reader, places, undeclared

WRITES = (b"SET", b"DEL", b"MSET", b"PEXPIRE", b"APPEND", b"RENAME", b"EVAL", b"FLUSHALL",
          b"FLUSHDB", b"SWAPDB", b"ACL", b"BLPOP")  # fmt: skip


@dataclass(eq=False)
class Identity:
    """A (user, database, protocol): its shared link, and the space that it has in common with the
    other protocol."""

    user: bytes
    db: int
    proto: int
    space: int = 0
    link: int = 0
    up: bool = True


@dataclass(eq=False, repr=False)
class Client(Reader):
    """A client of the sidecar. As of the beginning of the present event: `idle` says that nothing
    was due to it, `writes` what it had under way that may write."""

    session: int = 0
    identity: Identity | None = None
    got: bytearray = field(default_factory=bytearray)
    gone: bool = False
    idle: bool = True
    writes: list[Args] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"client {self.session} of {self.user.decode()}/{self.db} in RESP{self.proto}"

    def begin(self, outstanding: int) -> None:
        """An event begins, with so many replies due."""
        self.idle = outstanding == 0
        begun = [] if self.pinned else self.due[self.answered : self.answered + outstanding]
        self.writes = [due.args for due in begun if due.args[0] in WRITES]


def being_written(clients: Iterable[Client], reader: Client, place: Place) -> bool:
    """Whether a command that was under way before this event, of another client, may write a
    key."""
    for client in clients:
        for args in client.writes if client is not reader else ():
            named = places(client.db, args)
            if (place in named or not named) and not undeclared(args):
                return True
    return False
