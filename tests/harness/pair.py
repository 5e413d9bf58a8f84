"""Run one script twice, against a server and through a sidecar, and compare every byte.

A script is a function of a `Session`. It opens clients, sends, reads; all that is read is recorded
with what was sent before it. `Pair.same(script)` runs it on both sides (two servers of the same
binary, both empty) and compares the records. What may differ by nature (ids, addresses, clocks) is
masked by the script, step by step, never by default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from .process import wait_until
from .resp import Arg, elements
from .servers import Server, Sidecar
from .wire import Wire, pack

Mask: TypeAlias = Callable[[bytes], bytes]
Entry: TypeAlias = tuple[str, str, bytes]


def words(line: str | bytes) -> list[bytes]:
    """Split a test's one-line command at spaces."""
    return (line.encode() if isinstance(line, str) else line).split(b" ")


def pipeline(lines: Iterable[str | bytes]) -> bytes:
    """One-line commands as one piece of bytes."""
    return b"".join(pack(*words(line)) for line in lines)


def masked(pattern: bytes, put: bytes = b"<masked>") -> Mask:
    """A mask that replaces what `pattern` finds."""
    return lambda reply: re.sub(pattern, put, reply)


class Client:
    """A recording connection."""

    def __init__(self, session: Session, name: str, wire: Wire) -> None:
        self.name = name
        self.wire = wire
        self._log = session.log

    def _got(self, reply: bytes, mask: Mask | None = None) -> bytes:
        self._log.append((self.name, "got", mask(reply) if mask else reply))
        return reply

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._log.append((self.name, "sent", data if len(data) < 300 else data[:300] + b"..."))
        self.wire.send(data)

    def send_command(self, *args: Arg) -> None:
        """Send one request."""
        self.send(pack(*args))

    def read(
        self, count: int = 1, *, mask: Mask | None = None, deadline: float | None = None
    ) -> list[bytes]:
        """Read and record replies."""
        return [self._got(self.wire.read_reply(deadline), mask) for _ in range(count)]

    def cmd(self, *args: Arg, mask: Mask | None = None, deadline: float | None = None) -> bytes:
        """Send one request and record its one reply."""
        self.send(pack(*args))
        return self.read(mask=mask, deadline=deadline)[0]

    def run(self, *lines: str | bytes) -> list[bytes]:
        """Several one-line commands, each with one reply."""
        return [self.cmd(*words(line)) for line in lines]

    def drain(self, deadline: float | None = None) -> list[bytes]:
        """All replies outstanding (see `Wire.drain`)."""
        return [self._got(reply) for reply in self.wire.drain(deadline)]

    def read_until_reply(self, last: bytes, deadline: float | None = None) -> None:
        """Read up to the reply that is `last`; only that one is recorded."""
        while self.wire.read_reply(deadline) != last:
            pass
        self._got(last)

    def to_end(self, deadline: float | None = None) -> bytes:
        """Everything until the peer closes."""
        rest = self.wire.read_to_end(deadline)
        self._log.append((self.name, "end after", rest))
        return rest

    def unrecorded(self, *args: Arg) -> bytes:
        """A request whose reply is different by nature."""
        return self.wire.cmd(*args)


class Session:
    """The clients and the record of one run of a script."""

    def __init__(self, port: int, server: Server, deadline: float, password: str) -> None:
        self.port = port
        self.server = server
        self.password = password
        self.log: list[Entry] = []
        self.clients: list[Client] = []
        self._deadline = deadline
        self._observer: Wire | None = None

    def open(self, protocol: int = 2) -> Client:
        """A new client, called a, b, c...; the reply to its HELLO is tested elsewhere."""
        name = chr(ord("a") + len(self.clients))
        client = Client(self, name, Wire(self.port, deadline=self._deadline))
        self.clients.append(client)
        if self.password:
            client.unrecorded("AUTH", self.password)
        if protocol == 3:
            client.unrecorded("HELLO", 3)
        return client

    def observe(self, *args: Arg) -> bytes:
        """Ask the server itself, past the sidecar and the record."""
        if self._observer is None:
            self._observer = Wire(self.server.port)
            if self.password:
                self._observer.cmd("AUTH", self.password)
        return self._observer.cmd(*args)

    def wait_blocked(self, count: int) -> None:
        """Wait until the server holds exactly `count` blocked clients."""
        wanted = b"\r\nblocked_clients:%d\r\n" % count
        wait_until(lambda: wanted in self.observe("INFO", "clients"), f"{count} blocked clients")

    def close(self) -> None:
        """Close every connection."""
        for client in self.clients:
            client.wire.close()
        if self._observer is not None:
            self._observer.close()


Script: TypeAlias = Callable[[Session], object]


class Pair:
    """A server alone, and a server of the same binary behind a sidecar."""

    def __init__(
        self, kind: str, direct: Server, behind: Server, sidecar: Sidecar, password: str = ""
    ) -> None:
        self.kind, self.direct, self.behind, self.sidecar = kind, direct, behind, sidecar
        self.password = password

    def reset(self) -> None:
        """Make both servers empty. The sidecar's is emptied through the sidecar."""
        assert self.sidecar.running, "the sidecar ended in an earlier test"
        for port in (self.direct.port, self.sidecar.port):
            with Wire(port) as wire:
                if self.password:
                    assert wire.cmd("AUTH", self.password) == b"+OK\r\n"
                for line in ("FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"):
                    reply = wire.cmd(*words(line))
                    assert reply == b"+OK\r\n", reply

    def same(self, script: Script, *, deadline: float = 5.0) -> list[Entry]:
        """Run `script` on both sides; fail at the first difference. Returns the direct record."""
        left = self.play(script, self.direct.port, self.direct, deadline)
        right = self.play(script, self.sidecar.port, self.behind, deadline)
        return compare(left, right)

    def same_server(self, script: Script, *, deadline: float = 5.0) -> list[Entry]:
        """As `same`, both times on the server behind the sidecar: for scripts that only read."""
        left = self.play(script, self.behind.port, self.behind, deadline)
        right = self.play(script, self.sidecar.port, self.behind, deadline)
        return compare(left, right)

    def play(self, script: Script, port: int, server: Server, deadline: float = 5.0) -> list[Entry]:
        """Run a script on one side and return its record."""
        session = Session(port, server, deadline, self.password)
        try:
            script(session)
        except AssertionError as error:
            side = "through the sidecar" if port == self.sidecar.port else "direct"
            error.add_note(f"{self.kind}, {side}; the record so far:\n{render(session.log)}")
            raise
        finally:
            session.close()
        return session.log


def render(entries: list[Entry], last: int = 12) -> str:
    """The last entries of a record, readable."""
    lines = (f"  {name} {what}: {_window(data, 0)}" for name, what, data in entries[-last:])
    return "\n".join(lines)


def _window(data: bytes, around: int, width: int = 300) -> str:
    """Some of `data`, near offset `around`."""
    start = max(0, around - width // 3)
    if start == 0 and len(data) <= width:
        return repr(data)
    return f"[{start}:]{data[start : start + width]!r} of {len(data)}"


def _same_bytes(one: bytes, other: bytes) -> int:
    """The offset of the first byte that differs."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def compare(left: list[Entry], right: list[Entry]) -> list[Entry]:
    """Fail at the first difference of two records; return the first."""
    assert any(what != "sent" for _, what, _ in left), "the script recorded no reply"
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            at = _same_bytes(one[2], other[2])
            raise AssertionError(
                f"after\n{render(left[max(0, index - 5) : index])}\n"
                f"direct:  {one[0]} {one[1]}: {_window(one[2], at)}\n"
                f"sidecar: {other[0]} {other[1]}: {_window(other[2], at)}"
            )
    assert len(left) == len(right), "one record is longer"
    return left


def got(record: list[Entry], name: str = "a") -> list[bytes]:
    """What one client of a record received, reply by reply."""
    return [data for who, what, data in record if who == name and what == "got"]


def unordered(reply: bytes) -> bytes:
    """A mask: the elements of the outermost aggregate in sorted order."""
    if reply[:1] not in b"*~%":
        return reply
    head, found = elements(reply)
    return head + b"".join(sorted(found))
