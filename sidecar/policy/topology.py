"""What Sentinels say about a service, as events. Pure: messages in, events out.

A Sentinel publishes what it does on a channel of that name (`+switch-master`, `+sdown`, …), the
payload naming the instance concerned. One service (`mymaster`) is ours; what is said about
others is nobody's business here. Formats: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/

    +switch-master        <service> <old ip> <old port> <new ip> <new port>
    all others            <type> <name> <ip> <port> [@ <service> <master ip> <master port>] …

What is published when: seconds measured on Valkey 9.1 and Redis 7.0, three Sentinels, after
SENTINEL FAILOVER (planned; Valkey's COORDINATED alike) and after kill -9 of the master with
down-after-milliseconds 1000 (crash). The leader is the Sentinel that makes the failover.

    +sdown, of the master            each            -           1.0-1.5
    +odown, of the master            some            -           1.1-1.6, some only at 2.5
    +try-failover                    leader          0.00        with its +odown
    -sdown, of the master            leader, Valkey  0.00-0.09   -
    +elected-leader, …-select-slave  leader          0.02-0.09   1.2-1.6
    …-send-slaveof-noone             leader          0.08-0.18   1.3-1.6
    …-wait-promotion                 leader          0.14-0.25   1.4-1.7
    (ROLE of the replica: master)                    0.01 later at most
    +promoted-slave                  leader          0.4-1.05    2.2-2.6
    +switch-master                   all others      0.5-1.1     2.3-2.7
    -odown, of the old master        leader          -           3.3-3.7
    +switch-master                   leader          1.6-2.1     3.3-3.7
    +convert-to-slave                some            10.6        when it is back
    (ROLE of the old master: slave)                  10.6; COORDINATED 0.24
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Address = tuple[str, int]

# What the leader of a failover says before it promotes a replica: the first opens the failover,
# the others are for who has missed it.
_BEGUN = frozenset(
    {
        "+try-failover",
        "+elected-leader",
        "+failover-state-select-slave",
        "+selected-slave",
        "+failover-state-send-slaveof-noone",
    }
)


@dataclass(frozen=True)
class MasterNamed:
    """A Sentinel says who the master is: by `+switch-master`, or when asked.

    `epoch` is the configuration epoch where it is known (answers to SENTINEL MASTER), else None.
    `switched` tells a `+switch-master` from an answer.
    """

    address: Address
    switched: bool
    epoch: int | None = None


@dataclass(frozen=True)
class FailoverBegun:
    """A Sentinel has begun to replace the master, planned or not: its writes may be lost.

    Told several times, once for each step up to the promotion.
    """


@dataclass(frozen=True)
class PromotionAwaited:
    """This replica has been told to become the master and has not said yet that it is."""

    replica: Address


@dataclass(frozen=True)
class PromotionSeen:
    """The leading Sentinel has seen that this replica is the master.

    After a coordinated failover (Valkey 9) it has the ordinary connections of the old and the new
    master closed, within milliseconds of this message.
    """

    replica: Address


@dataclass(frozen=True)
class FailoverAborted:
    """The failover was given up; the master stays."""


@dataclass(frozen=True)
class MasterDown:
    """The master is unreachable for one Sentinel ("subjectively") or for a quorum."""

    kind: Literal["subjective", "objective"]


@dataclass(frozen=True)
class MasterUp:
    """The master is reachable again for this Sentinel, or has been restarted (`+reboot`).

    It says nothing about a failover, which goes on: Valkey's leader tells this right after the
    beginning of a planned one, and every leader right before `+switch-master` after a crash.
    """

    rebooted: bool


@dataclass(frozen=True)
class ReplicasChanged:
    """A replica has come, gone or changed: worth asking again."""


@dataclass(frozen=True)
class SentinelFound:
    """Another Sentinel of the service."""

    address: Address


Event = (
    MasterNamed
    | FailoverBegun
    | PromotionAwaited
    | PromotionSeen
    | FailoverAborted
    | MasterDown
    | MasterUp
    | ReplicasChanged
    | SentinelFound
)

_OF_MASTER: Mapping[str, Event] = MappingProxyType(
    {
        "+sdown": MasterDown("subjective"),
        "+odown": MasterDown("objective"),
        "-sdown": MasterUp(rebooted=False),
        "-odown": MasterUp(rebooted=False),
        "+reboot": MasterUp(rebooted=True),
    }
)


def event_of(channel: str, payload: str, service: str) -> Event | None:
    """The event a Sentinel's message stands for, or None when it is nothing to us.

    `channel` is the channel it was published on, `payload` its text. Messages about other
    services, channels without a meaning here and malformed payloads give None.
    """
    parts = payload.split(" ")
    if channel == "+switch-master":
        if len(parts) != 5 or parts[0] != service or (address := address_of(parts[3:])) is None:
            return None
        return MasterNamed(address, switched=True)
    if len(parts) < 4 or (address := address_of(parts[2:4])) is None:
        return None
    kind, owner = parts[0], parts[1]
    if kind != "master":
        owner = parts[5] if len(parts) > 5 and parts[4] == "@" else ""
    if owner != service:
        return None
    if channel in _BEGUN:
        return FailoverBegun()
    if channel.startswith("-failover-abort-"):
        return FailoverAborted()
    if kind == "master":
        return _OF_MASTER.get(channel)
    if kind == "slave":
        if channel == "+failover-state-wait-promotion":
            return PromotionAwaited(address)
        if channel == "+promoted-slave":
            return PromotionSeen(address)
        return ReplicasChanged()
    return SentinelFound(address) if (kind, channel) == ("sentinel", "+sentinel") else None


def address_of(parts: object) -> Address | None:
    """A list of a host and a port as an address, or None when it is not one."""
    if not (isinstance(parts, list) and len(parts) == 2):
        return None
    host, port = map(str, parts)
    if not host or not (port.isascii() and port.isdigit() and len(port) < 6):
        return None
    return (host, int(port)) if 0 < int(port) < 65536 else None
