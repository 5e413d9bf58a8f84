"""What a drill takes place in: servers, and the way to them. A new one for each run.

* `cluster.Cluster`: a master, two replicas and three Sentinels;
* `named.Named`: a master and a replica behind one name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

from bench.drills.spec import CLIENT_TIMEOUT, Spec
from bench.drills.switches import Address
from tests.harness.errors import GONE
from tests.harness.fleet import Fleet
from tests.harness.process import wait_until
from tests.harness.resp import Refused
from tests.harness.sentinels import Flavour, SentinelProcess
from tests.harness.servers import Server, Settings

T = TypeVar("T")


@dataclass
class Options:
    """How to drill."""

    server: str = "valkey"
    switch_on: str = "announcement"
    min_replicas_ack: int = 0
    down_after: int = 1000
    """ms."""
    client_timeout: float = CLIENT_TIMEOUT
    direct_retries: int = 0
    repeat: int = 1
    short: bool = False
    """A smoke run: less of everything."""
    sidecar_settings: dict[str, str] = field(default_factory=dict)

    @property
    def promotion(self) -> bool:
        """Whether the sidecar follows promotions instead of announcements."""
        return self.switch_on == "promotion"

    @property
    def flavour(self) -> Flavour:
        """The program of the servers."""
        return "valkey" if self.server == "valkey" else "redis7"


class World(Protocol):
    """What the runner has to know of it."""

    ABOUT: ClassVar[str]
    """What it is, for the report."""
    DIRECT: ClassVar[str]
    """How the direct lane's clients find the master."""

    def __init__(self, fleet: Fleet, options: Options) -> None:
        """Set it up; what the fleet is given ends with that."""

    @property
    def url(self) -> str:
        """The sidecar's upstream."""

    @property
    def settings(self) -> Settings:
        """Further settings of the sidecar."""

    @property
    def env(self) -> dict[str, str]:
        """For the environment of the sidecar and the clients."""

    @property
    def nodes(self) -> Sequence[Server]:
        """The servers that are asked for their roles all the time."""

    @property
    def sentinels(self) -> Sequence[SentinelProcess]:
        """The Sentinels, if it has any."""

    def direct(self, spec: Spec) -> Spec:
        """The clients of the direct lane, by what those of both lanes do."""

    def holder(self) -> Address:
        """The server that has, in the end, what was not lost."""

    def close(self) -> None:
        """End all of it."""


def wait_for(check: Callable[[], T | None], what: str, deadline: float) -> T:
    """Poll until `check` returns something true, and return that; whoever is asked may be away."""
    found = wait_until(check, what, deadline, ignore=(*GONE, Refused), every=0.02)
    assert found is not None
    return found
