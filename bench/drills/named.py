"""A managed service: a master and a replica on addresses of their own, one port, and a name.

Nobody fails over by himself: a drill does what the service would do. The name is a stand-in for one
in a name server (tests/harness/names.py), without any time to live.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from bench.drills.spec import Spec
from bench.drills.switches import Address
from bench.drills.world import Options, wait_for
from tests.harness.fleet import Fleet
from tests.harness.names import Names
from tests.harness.process import free_port
from tests.harness.programs import server_binary
from tests.harness.servers import Server, Settings
from tests.harness.wire import Wire

NAME = "db.test"
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


class Named:
    """`master` and `replica` as they are at the moment."""

    ABOUT: ClassVar[str] = (
        "1 master and 1 replica on addresses of their own, behind one name without a time to live, "
        "and no Sentinels: the drill promotes, and changes the name"
    )
    DIRECT: ClassVar[str] = (
        "at a name, `Redis(host=NAME)` with the retries that redis-py ships (an error counts when "
        "they are used up)"
    )

    def __init__(self, fleet: Fleet, options: Options) -> None:
        self._fleet, self._options = fleet, options
        self.names = Names()
        self.port = free_port()
        self.nodes: list[Server] = []
        try:
            self.master, self.replica = self.add(), self.add()
            self._replicate()
        except BaseException:
            self.close()
            raise
        self.point_to(self.master)

    def add(self) -> Server:
        """A further server, at the next address."""
        number = len(self.nodes)
        settings: dict[str, str | int | float] = {
            "repl-backlog-size": "64mb",
            "repl-ping-replica-period": 1,
            "replica-announce-ip": HOSTS[number],
        }
        binary, name = server_binary(self._options.flavour), f"node{number}"
        server = Server(binary, name, settings=settings, port=self.port, host=HOSTS[number])
        self.nodes.append(self._fleet.add(server))
        return server

    def _replicate(self) -> None:
        order(self.replica, "REPLICAOF", self.master.host, self.port)
        wait_for(self.in_step, "a replica in step", 20)

    def in_step(self) -> bool:
        """Whether the replica follows the master."""
        role = order(self.replica, "ROLE")
        return bool(role[0] == "slave" and role[1] == self.master.host and role[3] == "connected")

    def promoted(self) -> None:
        """From now on the replica is the master, and the other way round."""
        self.master, self.replica = self.replica, self.master

    def point_to(self, *servers: Server) -> None:
        """From now on the name has these addresses."""
        self.names.put(NAME, *(server.host for server in servers))

    # -- see World ---------------------------------------------------------------------------------

    @property
    def sentinels(self) -> tuple[()]:
        """None."""
        return ()

    @property
    def url(self) -> str:
        """The name."""
        return f"redis://{NAME}:{self.port}"

    @property
    def settings(self) -> Settings:
        """As they ship."""
        return {}

    @property
    def env(self) -> dict[str, str]:
        """Whoever has it knows the name."""
        return self.names.env

    def direct(self, spec: Spec) -> Spec:
        """Clients that connect to the name."""
        return replace(spec.with_retries(None), host=NAME, port=self.port)

    def holder(self) -> Address:
        """The master."""
        return self.master.address

    def close(self) -> None:
        """Forget the name; the servers end with the fleet."""
        self.names.close()


def order(server: Server, *words: str | int) -> Any:
    """One command to a server, on a connection of its own: the reply's value; errors are raised."""
    with Wire(server.address) as wire:
        return wire.call(*words)
