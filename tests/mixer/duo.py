"""Two sides in lock step: a server alone, and a server of the same binary behind a sidecar.

`Duo.step` sends the same requests on both sides and compares what every client receives, frame by
frame. Only one step is under way at a time, so replies do not depend on who is quicker:

1. the requests go to the direct server. Its replies are complete once the server has gone round
   its event loop twice (two PINGs on a connection of the harness's own, `_fence`) and nothing more
   arrives. What each client got by then is what is expected;
2. the same requests go to the sidecar. It is given time until every client has as many frames.

What comes too late or too much on the sidecar's side is found at the client's next step, or by
`finish`. Where a command blocks, the next step waits until the server behind the sidecar holds as
many blocked clients as the direct one; where a client leaves, until both know equally many
subscriptions.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.harness.refreplies import reply_end

Command: TypeAlias = "Sequence[bytes] | bytes"
"""The arguments of a request, or the bytes that are sent as they are."""

Mask: TypeAlias = Callable[[bytes], bytes]

CHUNK = 1 << 18
LARGE = 8192
"""What a step sends or gets above this may take the server several rounds."""
LONG = 2.0
"""Seconds for replies that must come: Redis 8 empties a database in a thread, and answers later."""
STARVED = 60.0
"""Seconds for what a server must answer at once, on a machine that does a lot beside."""
PATIENCE = 5.0
"""Seconds that the sidecar has to answer what the direct server has answered."""
_ID = re.compile(rb"\x00ID(\d+)\x00")
_INVALIDATED = re.compile(
    rb">2\r\n\$10\r\ninvalidate\r\n\*\d+\r\n|\*3\r\n\$7\r\nmessage\r\n\$20\r\n__redis__:invalidate\r\n"
)
_NONE = (b"_\r\n", b"*-1\r\n", b"$-1\r\n")
_BULK = re.compile(rb"\$\d+\r\n(.*?)\r\n(?=\$|\Z)", re.DOTALL)
_UNSUBSCRIBED = re.compile(rb"(?s).3\r\n(\$\d\d\r\n[ps]?unsubscribe\r\n.*):\d+\r\n\Z")
_NUMBER = re.compile(rb"(?m)(^:|\bredir=)(\d+)(?=\r$| )")


def pack(args: Sequence[bytes]) -> bytes:
    """One request as a client library would send it."""
    return b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in args])


def id_of(name: int) -> bytes:
    """A word of a command that stands for a client's id, which is another on each side."""
    return b"\x00ID%d\x00" % name


@dataclass(frozen=True)
class Difference:
    """What one client got in one step that is not the same on both sides."""

    client: int
    direct: list[bytes]
    sidecar: list[bytes]
    what: str = "replies"

    def __str__(self) -> str:
        counts = f"{len(self.direct)} and {len(self.sidecar)}"
        pairs = enumerate(zip(self.direct, self.sidecar, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), min(map(len, self._both)))
        first = max(0, same - 2)
        return (
            f"client {self.client}, {self.what} ({counts} frames, the first {same} alike)\n"
            f"  direct:  {_short(self.direct[first:])}\n  sidecar: {_short(self.sidecar[first:])}"
        )

    @property
    def _both(self) -> tuple[list[bytes], list[bytes]]:
        return self.direct, self.sidecar


def gathered(frames: list[bytes]) -> list[bytes]:
    """What a server may say in one push or in several, and in any order, in one form.

    Invalidations are gathered for as long as the server is busy with one read, and may come inside
    a reply that lacks an element (SUBSCRIBE in a transaction of RESP3); who is unsubscribed from
    all channels is told so in the order of a hash table; and the number in `tracking-redir-broken`
    is the one that the server knows.
    """
    keys: list[bytes] = []
    gone: list[bytes] = []
    rest: list[bytes] = []
    for frame in frames:
        if (
            frame[:1] in b">*"
            and (found := _INVALIDATED.match(frame))
            and not frame.endswith(_NONE)
        ):
            keys += _BULK.findall(frame[found.end() :])
        elif frame[:1] in b">*" and (found := _UNSUBSCRIBED.match(frame)):
            gone.append(b"+%b\r\n" % found[1])
        elif b"tracking-redir-broken" in frame:
            rest.append(b"+tracking-redir-broken\r\n")
        else:
            while frame[:1] == b"*" and (found := _INVALIDATED.search(frame)):
                end = reply_end(frame, found.start()) or len(frame)
                keys += _BULK.findall(frame[found.end() : end])
                frame = frame[: found.start()] + frame[end:]
            rest.append(frame)
    return rest + [b"+invalidated %b\r\n" % k for k in sorted(set(keys))] + sorted(gone)


def _line_end(data: bytes, pos: int) -> int:
    """Where a reply of one line or a bulk ends; 0 for others, and when it is not known yet."""
    kind = data[pos]
    if kind not in b"+-:_$":
        return 0
    end = data.find(b"\r\n", pos)
    if end < 0:
        return 0
    if kind != ord("$"):
        return end + 2
    size = data[pos + 1 : end]
    if not size.isdigit():
        return 0
    return end + int(size) + 4


def _short(frames: list[bytes]) -> str:
    shown = [f if len(f) < 400 else f[:400] + b"... (%d)" % len(f) for f in frames]
    return repr(shown if len(shown) < 12 else [*shown[:12], b"..."])


class Peer:
    """One client connection of one side. Frames are collected as they arrive."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.frames: list[bytes] = []
        self.rest = b""
        self.ended = False
        self.paused = False
        self.owed = 0
        """Replies that came while it was paused, one for each command."""
        self.silent = False
        """It did not get the replies it waited for: CLIENT REPLY OFF, or it is blocked."""
        self.id = b"0"

    @property
    def replies(self) -> int:
        """How many have come, pushes aside."""
        return sum(frame[:1] != b">" for frame in self.frames)

    def receive(self) -> int:
        """Take what is there; returns the number of bytes."""
        taken = 0
        while not self.ended:
            try:
                data = self.sock.recv(CHUNK)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.ended = True
                break
            taken += len(data)
            self._split(data)
            if len(data) < CHUNK:
                break
        return taken

    def _split(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        pos, size = 0, len(data)
        while pos < size:
            end = _line_end(data, pos)
            if not end:
                end = reply_end(data, pos) or 0
            if not end or end > size:
                break
            self.frames.append(data[pos:end])
            pos = end
        self.rest = data[pos:]

    def send(self, data: bytes) -> None:
        """Send all of it, receiving meanwhile unless the client is a slow reader."""
        view = memoryview(data)
        limit = time.monotonic() + PATIENCE
        while view and not self.ended:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise AssertionError("requests are not taken") from None
                select.select([] if self.paused else [self.sock], [self.sock], [], 0.1)
                if not self.paused:
                    self.receive()
            except OSError:
                self.receive()
                self.ended = True

    def close(self, *, reset: bool = False) -> None:
        """Close the connection; with RST when asked to."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()
        self.ended = True


class Side:
    """The clients of one side, and a connection to its server that sees past the sidecar."""

    def __init__(self, port: int, server: int) -> None:
        self.port, self.server = port, server
        self.peers: dict[int, Peer] = {}
        self.ids: dict[bytes, bytes] = {}
        """What clients are called, by id; also those that have gone."""
        self.observer = Peer(server)
        self.poll = select.epoll()
        self.by_fd: dict[int, Peer] = {}

    def open(self, name: int, protocol: int, db: int) -> None:
        """A new client, greeted and in its database."""
        peer = Peer(self.port)
        requests = [[b"CLIENT", b"ID"]]
        if protocol == 3:
            requests.insert(0, [b"HELLO", b"3"])
        if db:
            requests.insert(0, [b"SELECT", b"%d" % db])
        peer.id = self._ask(peer, requests)[-1][1:-2]
        self.peers[name] = peer
        self.ids[peer.id] = b"<id of %d>" % name
        self.by_fd[peer.sock.fileno()] = peer
        self.poll.register(peer.sock.fileno(), select.EPOLLIN)

    @staticmethod
    def _ask(peer: Peer, requests: Sequence[Sequence[bytes]]) -> list[bytes]:
        peer.send(b"".join(map(pack, requests)))
        wait_for([peer], lambda: len(peer.frames) >= len(requests), STARVED)
        replies = peer.frames
        peer.frames = []
        state = "closed" if peer.ended else f"open, {peer.rest[:99]!r}"
        assert len(replies) == len(requests), f"{requests}: {replies} ({state})"
        return replies

    def ask(self, *args: bytes | str | int) -> bytes:
        """A request to the server itself."""
        words = [a if isinstance(a, bytes) else str(a).encode() for a in args]
        return self._ask(self.observer, [words])[0]

    def encode(self, commands: Sequence[Command]) -> bytes:
        """The bytes of these commands, with this side's client ids."""
        return b"".join(
            [self._ids(c) if isinstance(c, bytes) else pack(list(map(self._ids, c)))
             for c in commands]
        )  # fmt: skip

    def _ids(self, word: bytes) -> bytes:
        if b"\x00ID" not in word:
            return word
        return _ID.sub(lambda m: self._id(int(m[1])), word)

    def _id(self, name: int) -> bytes:
        peer = self.peers.get(name)
        return peer.id if peer else b"999999"

    def receive(self, timeout: float = 0) -> int:
        """Take what is there for all clients that read."""
        taken = 0
        for fd, _ in self.poll.poll(timeout):
            peer = self.by_fd[fd]
            if not peer.paused:
                taken += peer.receive()
            if peer.ended or peer.paused:
                self.poll.unregister(fd)
        return taken

    def resume(self, name: int) -> None:
        """A slow reader reads again."""
        peer = self.peers[name]
        if peer.paused:
            peer.paused = False
            if not peer.ended:
                with contextlib.suppress(FileExistsError):
                    self.poll.register(peer.sock.fileno(), select.EPOLLIN)

    def drop(self, name: int, *, reset: bool = False) -> None:
        """Close a client."""
        peer = self.peers.pop(name)
        fd = peer.sock.fileno()
        with contextlib.suppress(OSError, ValueError):
            self.poll.unregister(fd)
        self.by_fd.pop(fd, None)
        peer.close(reset=reset)

    def counts(self) -> bytes:
        """What tells that a blocking command or a departure has reached the server."""
        info = self.ask("INFO", "clients")
        blocked = re.search(rb"blocked_clients:(\d+)", info)
        channels = self.ask("PUBSUB", "CHANNELS")
        names = re.findall(rb"\$\d+\r\n([^\r]*)\r\n", channels)
        subscribed = self.ask("PUBSUB", "NUMSUB", *sorted(names)) if names else b""
        assert blocked
        return b"%b|%b|%b" % (blocked[1], subscribed, self.ask("PUBSUB", "NUMPAT"))

    def close(self) -> None:
        """End every connection."""
        for name in list(self.peers):
            self.drop(name)
        self.observer.close()
        self.poll.close()


def wait_for(peers: Sequence[Peer], done: Callable[[], bool], deadline: float) -> bool:
    """Receive on these connections until `done`, or in vain."""
    limit = time.monotonic() + deadline
    while not done():
        left = limit - time.monotonic()
        live = [p.sock for p in peers if not p.ended]
        if left <= 0 or not live:
            return False
        select.select(live, [], [], left)
        for peer in peers:
            peer.receive()
    return True


@dataclass
class Outcome:
    """What a step brought: each client's frames on the direct side, and the differences."""

    frames: dict[int, list[bytes]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)


class Duo:
    """Both sides of one pair. `masks` are applied to every frame before comparing."""

    def __init__(self, direct: int, sidecar: int, behind: int, patience: float = PATIENCE) -> None:
        self.direct = Side(direct, direct)
        self.sidecar = Side(sidecar, behind)
        self.sides = (self.direct, self.sidecar)
        self.patience = patience

    def open(self, name: int, protocol: int = 2, db: int = 0) -> None:
        """A client on both sides."""
        for side in self.sides:
            side.open(name, protocol, db)

    def drop(self, name: int, *, reset: bool = False, agree: bool = True) -> None:
        """Close a client on both sides, and let both servers know."""
        for side in self.sides:
            side.drop(name, reset=reset)
        if agree:
            self.agree()

    def agree(self) -> bool:
        """Wait until both servers have equally many blocked clients and subscriptions."""
        self._fence()
        limit = time.monotonic() + self.patience
        while (wanted := self.direct.counts()) != self.sidecar.counts():
            if time.monotonic() > limit:
                return False
            self.direct.receive()
            self.sidecar.receive(0.001)
            assert wanted
        return True

    def same_keys(self) -> bool:
        """Wait until both servers have the same keys: nobody is told when the commands of a client
        without replies have been executed."""
        limit = time.monotonic() + self.patience
        while (digests := self.digests())[0] != digests[1]:
            if time.monotonic() > limit:
                return False
        return True

    def _fence(self) -> None:
        for _ in range(2):
            self.direct.ask("PING")

    def step(
        self, name: int, commands: Sequence[Command], *, blocks: bool = False,
        mask: Mask | None = None, late: float = 0.0, expect: int = 0,
        masked: int = 1 << 30,
    ) -> Outcome:  # fmt: skip
        """One client sends, everybody receives.

        `blocks`: the client may be left waiting in the server. `late`: seconds within which a
        reply is due that the server gives by its clock. `expect`: so many replies come, all to
        this client, which saves the fence. Only the first `masked` frames are masked.
        """
        direct = self.direct.peers[name]
        if direct.ended:
            return Outcome()
        data = self.direct.encode(commands)
        direct.send(data)
        if direct.paused:
            direct.owed += len(commands)
        elif not expect or direct.silent or not self._wait_frames(direct, expect, LONG):
            self._settle(len(data))
            direct.silent = direct.replies < expect if expect else direct.silent
        if late and not direct.silent:
            # All of them: what another client does next must find nobody blocked, on either side.
            self._wait_frames(direct, len(commands), late)
        peer = self.sidecar.peers[name]
        peer.send(self.sidecar.encode(commands))
        outcome = self._compare(mask, masked)
        if blocks and not outcome.differences and not self.agree():
            counts = [[side.counts()] for side in self.sides]
            outcome.differences.append(Difference(name, counts[0], counts[1], "blocked clients"))
        return outcome

    def _settle(self, sent: int) -> None:
        """Receive all that the direct server says about the step."""
        self._fence()
        taken = self.direct.receive()
        quiet = 0
        while quiet < 3 and (sent > LARGE or taken > LARGE or self._partial()):
            self._fence()
            more = self.direct.receive()
            taken += more
            quiet = 0 if more else quiet + 1

    def _partial(self) -> bool:
        return any(p.rest and not p.ended for p in self.direct.peers.values() if not p.paused)

    def _wait_frames(self, peer: Peer, count: int, limit: float) -> bool:
        """Receive until a direct client has so many frames, without pushes, or in vain."""
        end = time.monotonic() + limit
        while peer.replies < count:
            left = end - time.monotonic()
            if peer.ended or left <= 0:
                return False
            self.direct.receive(left)
        return True

    def _compare(self, mask: Mask | None = None, masked: int = 1 << 30) -> Outcome:
        """Give the sidecar time to say as much; tell what is not the same."""
        outcome = Outcome()
        limit = time.monotonic() + self.patience
        while self._behind() and (left := limit - time.monotonic()) > 0:
            self.sidecar.receive(left)
        self.sidecar.receive()
        for name, peer in self.direct.peers.items():
            other = self.sidecar.peers[name]
            if peer.paused:
                continue
            if len(other.frames) > len(peer.frames) or other.ended > peer.ended:
                self._fence()
                wait_for([peer], lambda p=peer, o=other: _level(p, o), 0.5)  # type: ignore[misc]
            left_frames, right = peer.frames, other.frames
            peer.frames, other.frames = [], []
            if left_frames:
                outcome.frames[name] = left_frames
            found = self._differ(name, left_frames, right, mask, masked)
            if found is None and peer.ended != other.ended:
                ends = [[b"closed" if p.ended else b"open"] for p in (peer, other)]
                found = Difference(name, ends[0], ends[1], what="end of the connection")
            if found is not None:
                outcome.differences.append(found)
        return outcome

    def _differ(
        self,
        name: int,
        left: list[bytes],
        right: list[bytes],
        mask: Mask | None,
        masked: int,
    ) -> Difference | None:
        if left == right:
            return None

        left, right = gathered(left), gathered(right)

        def seen(frames: list[bytes]) -> list[bytes]:
            return frames if mask is None else [*map(mask, frames[:masked]), *frames[masked:]]

        one, other = seen(left), seen(right)
        if one != other and len(left) == len(right):
            pairs = [self._named(a, b) for a, b in zip(left, right, strict=True)]
            one, other = (seen(list(side)) for side in zip(*pairs, strict=True))
        return None if one == other else Difference(name, one, other)

    def _named(self, left: bytes, right: bytes) -> tuple[bytes, bytes]:
        """Two frames with the name of a client in the place of two numbers that are not the same,
        where both are its ids."""
        if left == right:
            return left, right
        numbers = [_NUMBER.findall(frame) for frame in (left, right)]
        if len(numbers[0]) != len(numbers[1]):
            return left, right
        ids = self.direct.ids, self.sidecar.ids
        same = [
            a[1] != b[1] and a[1] in ids[0] and ids[0][a[1]] == ids[1].get(b[1])
            for a, b in zip(*numbers, strict=True)
        ]

        def put(frame: bytes, known: dict[bytes, bytes]) -> bytes:
            turn = iter(same)
            return _NUMBER.sub(lambda m: b"+" + known[m[2]] if next(turn) else m[0], frame)

        return put(left, ids[0]), put(right, ids[1])

    def _behind(self) -> bool:
        others = self.sidecar.peers
        return any(
            (len(others[name].frames) < len(peer.frames) or others[name].ended < peer.ended)
            and not (others[name].ended or peer.paused)
            for name, peer in self.direct.peers.items()
        )

    def pause(self, name: int) -> None:
        """The client does not read from now on."""
        for side in self.sides:
            side.peers[name].paused = True

    def resume(self, name: int) -> Outcome:
        """The client reads all that has been waiting."""
        for side in self.sides:
            side.resume(name)
        direct = self.direct.peers[name]
        self._wait_frames(direct, direct.owed, self.patience)
        direct.owed = 0
        return self._compare()

    def digests(self) -> tuple[bytes, bytes]:
        """A digest of all keys on each side."""
        left, right = (side.ask("DEBUG", "DIGEST") for side in self.sides)
        return left, right

    def close(self) -> None:
        """End every connection."""
        for side in self.sides:
            side.close()


def _level(peer: Peer, other: Peer) -> bool:
    return len(peer.frames) >= len(other.frames) and peer.ended >= other.ended
