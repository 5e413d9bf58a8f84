"""What may happen to the bytes of a connection on their way, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

DIRECTIONS = ("to_server", "to_client")


@dataclass
class Faults:
    """What happens to the bytes of one direction, from now on."""

    delay: float = 0.0
    """Seconds from when a piece comes until it goes on."""
    slice: int = 0
    """Pass on in pieces of at most so many bytes, each sent by itself; 0: as they come."""
    rate: float = 0.0
    """Bytes per second; 0: no limit."""
    blackhole: bool = False
    """Read and drop."""
    stall: bool = False
    """Keep what has come and read no more, so that the sender's window closes."""
    stall_before: bytes = b""
    """Stall as soon as these bytes come, before them. Once."""
    end_before: bytes = b""
    """Close both ends whenever these bytes come, before them."""
    cut_after: int = -1
    """Reset both ends once so many more bytes have passed; negative: never. Once."""

    def clear(self) -> None:
        """None of them."""
        for each in fields(self):
            setattr(self, each.name, each.default)


NAMES = frozenset(each.name for each in fields(Faults))


class End(Protocol):
    """One end of a connection."""

    def flush(self, *, now: bool = False) -> None:
        """Pass on what may go on; `now`: all of it."""

    def cut(self) -> None:
        """RST, both ends."""


class Group:
    """The connections of one sort, and what happens to them. `do` runs something on their loop."""

    def __init__(self, do: Callable[[Callable[[], object]], object]) -> None:
        self._do = do
        self.to_server, self.to_client = Faults(), Faults()
        self.severed = False
        """The network is gone: nothing passes, nothing is refused or reset. Who connects meanwhile
        gets no answer, and is dropped when the network is back."""
        self.ends: set[End] = set()

    def __setattr__(self, name: str, value: object) -> None:
        """A fault set on the group is set for both directions."""
        if name in NAMES:
            setattr(self.to_server, name, value)
            setattr(self.to_client, name, value)
        else:
            super().__setattr__(name, value)

    def hold(self, *directions: str) -> None:
        """Stall these directions (both): what has not gone on when this returns is held."""
        for direction in directions or DIRECTIONS:
            getattr(self, direction).stall = True
        self._do(lambda: None)

    def open(self) -> None:
        """No faults; what is under way goes on at once."""
        self._do(self._open)

    def _open(self) -> None:
        self.severed = False
        self.to_server.clear()
        self.to_client.clear()
        for end in list(self.ends):
            end.flush(now=True)

    def cut(self) -> None:
        """RST to both ends of every connection."""
        self._do(self._cut)

    def _cut(self) -> None:
        for end in list(self.ends):
            end.cut()
