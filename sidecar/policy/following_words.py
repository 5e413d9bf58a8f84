"""What the machine that follows a name is told, and what it orders (see following.py)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sidecar.policy.failover_words import HoldWrites, LinkUp, ReleaseWrites, SwitchTo
from sidecar.policy.topology import Address

Pace = Literal["fast", "slow"]


class Role(Enum):
    """What an address says when asked for its role. UNTOLD: it answers, and refuses to tell."""

    MASTER = "master"
    UNTOLD = "untold"
    REPLICA = "replica"
    LOADING = "loading"
    NONE = "no answer"


class Phase(Enum):
    """See the head of following.py."""

    SEARCHING = "searching"
    SERVING = "serving"
    LOST = "lost"
    AS_IT_IS = "as it is"


# What the machine is told, beside LinkUp


@dataclass(frozen=True)
class Resolved:
    """These are the name's addresses now."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class Answered:
    """This address was asked for its role."""

    address: Address
    role: Role


@dataclass(frozen=True)
class LinkDown:
    """A link was lost. `not_master`: its server answered READONLY, LOADING or MASTERDOWN. `own_up`:
    whether the sidecar's own link is up all the same."""

    not_master: bool
    own_up: bool


@dataclass(frozen=True)
class Silence:
    """Whether the server has been silent for long although it was asked for a sign of life."""

    silent: bool


@dataclass(frozen=True)
class MadeReplica:
    """A client has sent REPLICAOF: the server may become a replica on purpose."""


@dataclass(frozen=True)
class Tick:
    """Time passes. `oldest` is the age in seconds of the oldest request without a reply."""

    oldest: float


@dataclass(frozen=True)
class Moving:
    """The server that the links lead to announces that it goes away in `within` seconds. Its place
    is taken by one of these addresses; with none, by whatever the name leads to by then."""

    addresses: tuple[Address, ...]
    within: float


Observed = Resolved | Answered | LinkUp | LinkDown | Silence | MadeReplica | Tick | Moving


# What it orders, beside HoldWrites, ReleaseWrites and SwitchTo


@dataclass(frozen=True)
class Follow:
    """Whether links are to demand that their server is the master."""

    masters: bool


@dataclass(frozen=True)
class Retry:
    """The server is there again: connect now, whatever pause is under way."""


@dataclass(frozen=True)
class Wait:
    """How long requests wait from now on, in seconds."""

    seconds: float


Command = HoldWrites | ReleaseWrites | SwitchTo | Follow | Retry | Wait
