"""What the supervisor and a worker say to each other on their channel: one struct for each content.

| Call | From | Content | Answer |
|---|---|---|---|
| `start` | supervisor | `Start` | once clients are served, the addresses |
| `state` | supervisor | for what reasons commands are to be held | `State` |
| `hot keys`, `traces`, `audit` | supervisor | `Ask` | the newest of them |
| `topology`, `server` | supervisor | | as the admin API shows them |
| `flush` | supervisor | | how many values the near cache has dropped |
| `failover` | supervisor | | the Sentinel that was asked |
| `change` | supervisor | the share of other `Settings` | |
| `hold`, `release` | supervisor | why | as the admin API answers a pause |
| `look` | supervisor | `Settings` with another upstream | as the admin API answers a dry run |
| `drain` | supervisor | whether the other workers go on | |
| `crowd`, `kill`, `keep` | supervisor | for a worker that asks `crowds`, … | |
| `crowds` | worker | | a `Crowd` of each other worker |
| `kill others` | worker | ids of clients | those that were there |
| `keep other` | worker | the id of a client | that of its link on the server |
| `prepared` | worker | its `State` | once every worker can serve: `Prepared` |
| `last` | worker | the last `State` | |
| `told to end` | worker | | |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar.proxy.session.others import Connections
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint
from sidecar.telemetry.snapshots import Frozen, Snapshot

# Seconds that an answer may take: what the worker knows at once, and what it asks its server.
SOON = 1.0
ASKED = 10.0


class Start(Frozen, frozen=True):
    """Begin to serve. `settings` are this worker's share of the sidecar's. `sockets` are the
    numbers of listening descriptors that it has inherited; `upstream` is the embedded server.
    `held`: hold all commands for these reasons, from the first on. `snapshots` are the files in
    which the other workers keep their warm sets."""

    number: int
    settings: Settings
    ids: int
    sockets: Sequence[int]
    upstream: Endpoint | None
    held: Sequence[str]
    snapshots: Sequence[str] = ()


class Prepared(Frozen, frozen=True):
    """What has changed since a worker was told to start: for what reasons it holds all commands,
    and its share of the settings, None if that is the same."""

    held: Sequence[str]
    settings: Settings | None


class State(Frozen, frozen=True):
    """How a worker is, and its connections, by their server."""

    snapshot: Snapshot
    ready: Mapping[str, bool]
    connections: Mapping[str, Connections] = {}


class Ask(Frozen, frozen=True):
    """How many of something; `why` selects a kind of traces."""

    most: int
    why: str = ""
