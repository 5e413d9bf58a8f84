"""Runs random programs on pairs of servers, and makes what differs small.

A run is a list of episodes; each begins with empty servers and new clients, so an episode that
differs is its own reproducer. `shrink` plays parts of it again and keeps what still differs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.harness.servers import Server, Sidecar

from .duo import PATIENCE, Difference, Duo, Outcome
from .forms import commands_of
from .known import KNOWN, Known
from .program import Generator, Step
from .table import BINARIES, CACHES, LIBRARY, Setup
from .vocabulary import KEYS

OBSERVED_DBS = (0, 9)
USER = b"ACL SETUSER bob reset on >secret ~* &* +@all".split()
LINES = 25
REPLAYS = 250
"""A difference is made small with at most so many replays."""


@dataclass
class Episode:
    """How one program went."""

    setup: Setup
    steps: list[Step]
    commands: int = 0
    at: int = -1
    differences: list[Difference] = field(default_factory=list)
    replies: dict[int, list[bytes]] = field(default_factory=dict)
    """What the direct server told the client of each step."""


class Arena:
    """A pair of servers and a sidecar, on which programs are run."""

    def __init__(self, setup: Setup, patience: float = PATIENCE) -> None:
        self.setup, self.patience = setup, patience
        # Where the server allows it, both sides keep the same order of sets and hashes.
        seed: dict[str, str | int] = {"hash-seed": "mixer"} if setup.kind == "valkey" else {}
        binary: Callable[..., Server] = BINARIES[setup.kind]
        self.servers = [binary(seed), binary(seed)]
        settings = {**CACHES[setup.cache], "upstream.pooling": setup.pooling}
        self.sidecar = Sidecar(self.servers[1].url, settings=settings)
        self.duo = self._join()
        self.known_commands = set(commands_of(self.duo.direct.ask("COMMAND")))
        self.prepare()

    def _join(self) -> Duo:
        direct, behind = self.servers
        return Duo(direct.port, self.sidecar.port, behind.port, self.patience)

    def prepare(self) -> None:
        """What programs find on both servers beside keys."""
        for side in self.duo.sides:
            side.ask("FUNCTION", "LOAD", "REPLACE", LIBRARY)

    def clean(self) -> None:
        """No clients, no keys, no scripts."""
        for name in list(self.duo.direct.peers):
            self.duo.drop(name, agree=False)
        # Through the sidecar, so that its cache is empty as well.
        self.duo.open(-1)
        outcome = self.duo.step(-1, [[b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], USER], expect=3)
        assert not outcome.differences, outcome.differences
        self.duo.drop(-1)

    def play(self, steps: Sequence[Step], until: float = float("inf")) -> Episode:
        """Run a program; it ends with the first difference."""
        assert self.sidecar.running, self.sidecar.log()[-3000:]
        episode = Episode(self.setup, list(steps))
        self.clean()
        blocked: set[int] = set()
        for at, step in enumerate(steps):
            if time.monotonic() > until:
                break
            outcome = self._step(step, blocked)
            found = outcome.differences
            episode.replies[at] = outcome.frames.get(step.client, [])
            episode.commands += step.count
            if not found and at % 50 == 49:
                found = self._state()
            if found:
                episode.at, episode.differences = at, found
                return episode
        episode.differences = self._state()
        episode.at = len(steps) - 1
        return episode

    def _step(self, step: Step, blocked: set[int]) -> Outcome:
        duo, name = self.duo, step.client
        peer = duo.direct.peers.get(name)
        if peer is None or peer.ended:
            if peer is not None:
                duo.drop(name)
            blocked.discard(name)
            if step.what not in ("send", "pause"):
                return Outcome()
            duo.open(name, step.protocol, step.db)
            peer = duo.direct.peers[name]
        if step.what in ("drop", "reset"):
            blocked.discard(name)
            duo.drop(name, reset=step.what == "reset")
            return Outcome()
        if name in blocked:
            return Outcome()
        if step.what == "pass":
            self._pass()
            return Outcome()
        if step.what == "pause":
            duo.pause(name)
            return Outcome()
        if step.what == "resume":
            return duo.resume(name) if peer.paused else Outcome()
        outcome = duo.step(
            name,
            step.commands,
            blocks=step.blocks,
            mask=step.mask,
            late=step.late,
            expect=step.expected,
        )
        for other in list(blocked):
            # A push tells nothing of what it waits for.
            told = other in outcome.frames and not self._is_blocked(other)
            if told or duo.direct.peers[other].ended:
                blocked.discard(other)
        if step.blocks and not outcome.differences and self._is_blocked(name):
            blocked.add(name)
        return outcome

    def _pass(self) -> None:
        """So much time that what has a life of 2 ms is gone from both servers."""
        limit = time.monotonic() + 0.006
        while (left := limit - time.monotonic()) > 0:
            self.duo.direct.receive(left)

    def _is_blocked(self, name: int) -> bool:
        peer = self.duo.direct.peers[name]
        line = self.duo.direct.ask("CLIENT", "LIST", "ID", peer.id)
        flags = line.partition(b" flags=")[2].partition(b" ")[0]
        return b"b" in flags

    def _state(self) -> list[Difference]:
        """The keys of both servers."""
        self._pass()
        for side in self.duo.sides:
            for db in OBSERVED_DBS:
                # What is past its time goes when it is looked at.
                side.ask("SELECT", db)
                side.ask("EXISTS", *KEYS)
            side.ask("SELECT", 0)
        left, right = self.duo.digests()
        if left == right:
            return []
        return [Difference(-1, [left], [right], f"keys: {self._differing()}")]

    def _differing(self) -> str:
        found = []
        for db in OBSERVED_DBS:
            for side in self.duo.sides:
                side.ask("SELECT", db)
            for key in KEYS:
                one, other = (s.ask("DEBUG", "DIGEST-VALUE", key) for s in self.duo.sides)
                if one != other:
                    types = [s.ask("TYPE", key) for s in self.duo.sides]
                    values = [s.ask("GET", key)[:60] for s in self.duo.sides]
                    found.append(f"{key!r} in db {db}: {types} {values}")
        for side in self.duo.sides:
            side.ask("SELECT", 0)
        return "; ".join(found)

    def renew(self) -> None:
        """New connections, after a difference."""
        self.duo.close()
        self.duo = self._join()

    def close(self) -> None:
        """End everything."""
        self.duo.close()
        for process in (self.sidecar, *self.servers):
            process.close()


@contextmanager
def arena(setup: Setup) -> Iterator[Arena]:
    """An arena that ends."""
    made = Arena(setup)
    try:
        yield made
    except AssertionError as error:
        for process in (made.sidecar, *made.servers):
            state = "runs" if process.running else "has ended"
            error.add_note(f"{process.name} {state}; it said: {process.log()[-2000:]}")
        raise
    finally:
        made.close()


def program(arena: Arena, seed: int, number: int, steps: int = 300) -> list[Step]:
    """The program of one episode."""
    rng = random.Random(f"{arena.setup}-{seed}-{number}")
    avoid = [known.avoid for known in KNOWN if known.avoid is not None]
    pinned = arena.setup.pooling == "session"
    generator = Generator(rng, arena.known_commands, avoid, pinned=pinned)
    return generator.program(steps, rng.choice((2, 4, 8)))


def shrink(arena: Arena, episode: Episode, limit: float = 120) -> Episode:
    """The smallest part of a program that still differs (in whatever way)."""
    best = episode
    replays = 0
    end = time.monotonic() + limit

    def differs(steps: Sequence[Step]) -> bool:
        nonlocal best, replays
        replays += 1
        arena.renew()
        again = arena.play(steps)
        if again.differences and _signature(again) == _signature(episode):
            again.steps = again.steps[: again.at + 1]
            best = again
            return True
        return False

    def may() -> bool:
        return replays < REPLAYS and time.monotonic() < end

    first = episode.steps[: episode.at + 1]
    # What depends on who is quicker shows again only now and then.
    if not any(differs(first) for _ in range(3)):
        return episode
    for client in sorted({s.client for s in best.steps}):
        if may():
            differs([s for s in best.steps if s.client != client])
    size = len(best.steps) // 2
    while size and may():
        at = 0
        while at < len(best.steps) and may():
            if not differs([*best.steps[:at], *best.steps[at + size :]]):
                at += size
        size //= 2
    _fewer_commands(lambda: best, differs, may)
    return best


def _signature(episode: Episode) -> list[tuple[object, ...]]:
    """What kind of difference it is: a smaller program must show the same."""
    first = episode.differences[0]
    pairs = zip(first.direct, first.sidecar, strict=False)
    bad = next(((a, b) for a, b in pairs if a != b), (b"", b""))
    kinds = (f[:25] if f[:1] == b"-" else f[:1] for f in bad)
    return [(first.what.partition(":")[0], *kinds)]


def _fewer_commands(
    best: Callable[[], Episode], differs: Callable[[Sequence[Step]], bool], may: Callable[[], bool]
) -> None:
    """Leave out commands of pipelines."""
    at = 0
    while at < len(best().steps):
        words = [w for c in best().steps[at].commands for w in c]
        # CLIENT REPLY OFF and ON belong together: without ON nobody knows when the rest is done.
        size = 0 if b"REPLY" in words else len(best().steps[at].commands) // 2
        while size and may():
            place = 0
            while at < len(best().steps) and place < len(best().steps[at].commands) and may():
                step = best().steps[at]
                fewer = (*step.commands[:place], *step.commands[place + size :])
                made = Step(**{**step.__dict__, "commands": fewer})
                if not fewer or not differs([*best().steps[:at], made, *best().steps[at + 1 :]]):
                    place += size
            size //= 2
        at += 1


def report(episode: Episode) -> str:
    """A reproducer, readable."""
    steps = episode.steps[: episode.at + 1]
    lines = [f"{episode.setup}:"]
    first = max(0, len(steps) - LINES)
    if first:
        lines.append(f"  (not made smaller; the last of {len(steps)} steps, with replies)")
    for at, step in enumerate(steps[first:], first):
        lines.append(f"  {step}")
        if first:
            lines.append(f"    {b' '.join(episode.replies.get(at, []))[:300]!r}")
    return "\n".join([*lines, *map(str, episode.differences)])


__all__ = ["Arena", "Known", "arena", "program", "report", "shrink"]
