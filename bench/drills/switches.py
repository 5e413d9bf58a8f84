"""Who was announced as the master and what the nodes said of themselves, put together. Pure.

Sentinels announce a master by `+switch-master`. Behind a name nobody announces anything: there it
is the moment from which on both are right, the name and the role of the server that it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.harness.sentinels import SERVICE

Address = tuple[str, int]

SWITCH = "+switch-master"

SHOWN = (
    "+sdown",
    "+odown",
    "+try-failover",
    "+failover-state-send-slaveof-noone",
    "+promoted-slave",
    SWITCH,
    "+convert-to-slave",
    "-failover-abort-no-good-slave",
    "-failover-abort-not-elected",
    "-failover-abort-slave-timeout",
)
"""Channels worth a mark in the pictures."""


SAME_WITHIN = 3.0
"""Seconds within which all Sentinels have said what one of them has. The one that leads a failover
announces the new master last, about 1 s after the others."""


class Mark(NamedTuple):
    """Something the drill did."""

    time: float
    text: str
    fault: bool
    """Whether it is the fault (a planned switch is one, too), or one of its consequences."""


class Said(NamedTuple):
    """A message of a Sentinel."""

    time: float
    sentinel: int
    channel: str
    payload: str


class Announced(NamedTuple):
    """From now on everybody can know who the master is."""

    time: float
    address: Address


class Role(NamedTuple):
    """A node's answer to ROLE has become another: `master`, `slave`, or `silent` if none comes."""

    time: float
    address: Address
    role: str


class Switch(NamedTuple):
    """One change of the master. Times in seconds; None: did not happen."""

    fault: float
    announced: float | None
    """When everybody could know it."""
    promoted: float | None
    """When the new master first said that it is one."""
    address: Address | None
    """The new master."""


def announcements(said: Iterable[Said]) -> list[Announced]:
    """The masters that the Sentinels announced: each at the earliest of them."""
    heard = (s for s in shown(said) if s.channel == SWITCH)
    words = [(s.time, s.payload.split()) for s in heard]
    return [Announced(time, (w[3], int(w[4]))) for time, w in words if w[0] == SERVICE]


def switches(
    marks: Iterable[Mark], announced: Iterable[Announced], roles: Iterable[Role]
) -> list[Switch]:
    """One for each fault, looked for until the next fault."""
    faults = [mark.time for mark in marks if mark.fault]
    announced, changes = sorted(announced), sorted(roles)
    ends = [*faults[1:], float("inf")]
    return [
        _switch(fault, end, announced, changes) for fault, end in zip(faults, ends, strict=True)
    ]


def _switch(
    fault: float, end: float, announced: Sequence[Announced], roles: Sequence[Role]
) -> Switch:
    first = next((a for a in announced if fault <= a.time < end), None)
    if first is None:
        return Switch(fault, None, None, None)
    times = (r.time for r in roles if r.address == first.address and r.role == "master")
    promoted = next((time for time in times if fault <= time < end), None)
    return Switch(fault, first.time, promoted, first.address)


def shown(said: Iterable[Said]) -> list[Said]:
    """The messages worth a mark: of the same said by several Sentinels the earliest."""
    latest: dict[tuple[str, str], float] = {}
    found = []
    for message in sorted(said):
        key = (message.channel, " ".join(message.payload.split()[:4]))
        if message.channel not in SHOWN:
            continue
        if message.time - latest.get(key, float("-inf")) > SAME_WITHIN:
            found.append(message)
        latest[key] = message.time
    return found
