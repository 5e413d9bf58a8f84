"""The network between the nodes of a drill, as a process of its own that can take it away.

All processes of a drill live on the loopback interface, where nothing can be unplugged without
privileges. So each node announces a port of a fault proxy instead of its own, and the proxy knows
by the source address who connects: a Sentinel (127.0.0.11 and up), a node (127.0.0.21 and up), or
a client (anybody else).

A cut does what a partition does to TCP (`Group.severed`): nothing is refused, reset or ended, and
what is under way is held. A connection made during a cut is accepted (the kernel does that) and
stays silent; it is dropped at the healing, as if its first packet had never arrived. A real network
would rather not accept it: whoever connects has to have a deadline for the first answer either
way.

Control: one line on a unix socket, `cut NODE GROUP,GROUP` or `heal`, answered with `ok`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Sequence

import uvloop

from tests.harness.faults import FaultProxy
from tests.harness.fleet import Fleet
from tests.harness.process import wait_until

GROUPS = ("clients", "sentinels", "nodes")


class FaultNet:
    """The running process, as its cluster sees it."""

    def __init__(self, fleet: Fleet, ports: Sequence[tuple[int, int]]) -> None:
        """Start it; `ports` are (announced, real) for each node."""
        self._path = str(fleet.folder / "faultnet.sock")
        argv = [sys.executable, "-m", "bench.drills.faultnet", self._path, json.dumps(ports)]
        fleet.start("faultnet", argv)
        wait_until(self._answers, "the fault proxy", 10)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.heal()
            return True
        return False

    def _tell(self, line: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(self._path)
            sock.sendall(line.encode() + b"\n")
            if sock.recv(16) != b"ok\n":
                raise ConnectionError("the fault proxy did not understand")

    def cut(self, node: int, groups: Sequence[str]) -> None:
        """Take the way between a node and these groups."""
        self._tell(f"cut {node} {','.join(groups)}")

    def heal(self) -> None:
        """All ways are open again."""
        self._tell("heal")


def group_of(address: str) -> str:
    """Who connects from this address."""
    last = int(address.rpartition(".")[2])
    if 11 <= last <= 20:
        return "sentinels"
    return "nodes" if 21 <= last <= 30 else "clients"


def obey(proxies: Sequence[FaultProxy], words: Sequence[str]) -> bytes:
    """One order: the answer."""
    match words:
        case ["cut", node, groups]:
            for group in groups.split(","):
                proxies[int(node)].group(group).severed = True
        case ["heal"]:
            for proxy in proxies:
                proxy.heal()
        case _:
            return b"?\n"
    return b"ok\n"


def serve(path: str, ports: Sequence[tuple[int, int]]) -> None:
    """Listen for every node, then for orders, until killed."""
    proxies = [
        FaultProxy(
            target,
            port,
            classify=lambda address, sent: group_of(address),
            loop=uvloop.new_event_loop(),
        )
        for port, target in ports
    ]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            orders, _ = listener.accept()
            with orders, orders.makefile("r") as lines:
                orders.sendall(obey(proxies, lines.readline().split()))


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
