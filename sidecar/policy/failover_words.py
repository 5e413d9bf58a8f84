"""The words of the failover machine (failover.py): what it is told, and what it orders.

What Sentinels say is in topology.py. Values only: nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.policy.topology import Address, Event

# What links and probes show.


@dataclass(frozen=True)
class LinkUp:
    """The default identity's link is up, on the present master, which has said that it is one."""


@dataclass(frozen=True)
class LinkDown:
    """It is not, or the server said that it did not execute a command (READONLY, LOADING)."""


@dataclass(frozen=True)
class Verified:
    """This node says that it is the master."""

    address: Address


@dataclass(frozen=True)
class NotMaster:
    """This node says that it is not the master, and perhaps whom it follows."""

    address: Address
    follows: Address | None


@dataclass(frozen=True)
class Tick:
    """Time passes."""


Observed = Event | LinkUp | LinkDown | Verified | NotMaster | Tick


# What is to be done.


@dataclass(frozen=True)
class Verify:
    """Ask this node for its role until it is the master, in place of any other being asked."""

    address: Address
    eager: bool = False


@dataclass(frozen=True)
class WatchRole:
    """Until writes are released: ask the master for its role, and say so when it is none."""

    address: Address


@dataclass(frozen=True)
class StopVerifying:
    """The candidate is none any more."""


@dataclass(frozen=True)
class HoldWrites:
    """Keep back what may change data."""


@dataclass(frozen=True)
class ReleaseWrites:
    """Let writes go on."""


@dataclass(frozen=True)
class SwitchTo:
    """This is the master now: close every link to the old one, connect to it."""

    address: Address


@dataclass(frozen=True)
class AskSentinels:
    """Ask all Sentinels for the master now."""


Command = Verify | WatchRole | StopVerifying | HoldWrites | ReleaseWrites | SwitchTo | AskSentinels
