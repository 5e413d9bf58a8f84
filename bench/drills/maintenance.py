"""Drill 13: the endpoint of a managed service announces that it goes away.

The endpoints are stand-ins in front of one real server (tests/harness/announcing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from bench.drills.drill import Drill
from bench.drills.named import HOSTS, NAME
from bench.drills.scene import Scene
from bench.drills.single import Single
from bench.drills.spec import Spec
from bench.drills.world import Options, wait_for
from tests.harness.announcing import Announcing
from tests.harness.fleet import Fleet
from tests.harness.names import Names
from tests.harness.process import free_port

GOES_AFTER = 2
"""Seconds from the announcement until the endpoint is gone."""


class Endpoints(Single):
    """Two endpoints of one server, and a name that leads to one of them."""

    ABOUT: ClassVar[str] = (
        "1 server behind two endpoints that announce their maintenance, and a name that leads to "
        "one of them"
    )
    DIRECT: ClassVar[str] = "at a name, `Redis(host=NAME)` with the retries that redis-py ships"

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self.port = free_port()
        self.names = Names()
        self.env = self.names.env
        self.ends: Sequence[Announcing] = [
            Announcing(self.server.address, self.port, host) for host in HOSTS[:2]
        ]
        self.point_to(self.ends[0])

    @property
    def url(self) -> str:
        """The name."""
        return f"redis://{NAME}:{self.port}"

    def point_to(self, end: Announcing) -> None:
        """From now on the name leads there."""
        self.names.put(NAME, end.host)

    def direct(self, spec: Spec) -> Spec:
        """Clients that connect to the name."""
        return replace(super().direct(spec), host=NAME, port=self.port)

    def close(self) -> None:
        """The endpoints go."""
        for end in self.ends:
            end.close()
        self.names.close()
        super().close()


def _heard(end: Announcing) -> bool:
    return end.hearing > 0


def _moving(scene: Scene[Endpoints]) -> None:
    """There, by the address that is announced, and back, by the name."""
    there, back = scene.world.ends
    for old, new, named in ((there, back, True), (back, there, False)):
        if scene.sidecar:
            wait_for(partial(_heard, old), "a sidecar that hears announcements", 10)
        new.listen()
        scene.world.point_to(new)
        where = f"{new.host}:{new.port}" if named else None
        scene.mark(f"MOVING to {where or 'where the name leads'}", fault=True)
        old.announce("MOVING", 1, GOES_AFTER, where)
        scene.pause(GOES_AFTER)
        scene.mark("the old endpoint is gone")
        old.cut()
        scene.pause(2.0)


DRILLS: tuple[Drill[Any], ...] = (
    Drill("13", "endpoint moves", "MOVING is announced, and 2 s later the endpoint ends all "
          "connections and takes no new ones: first to an address that is named, then back to "
          "where the name leads.", Endpoints, _moving),
)  # fmt: skip
