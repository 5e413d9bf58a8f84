"""How many connections to the upstream there may be, and who lets go of one when links are short.

At most `upstream.max_links`, of all kinds. They are *short* when few are left of that number, or
when the server itself has just refused one (its `maxclients`): then links that nobody uses are not
kept for later. What is not used at all is closed as soon as somebody needs the room.

Counts, and asks those who have registered. Knows no link.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar.proxy.links.errors import Full

TOO_MANY = "too many upstream links (upstream.max_links)"
# From this share of the links that are allowed on they are short.
SHORT_SHARE = 0.9
# For so many seconds after the server has refused a connection they are short; so many are let go
# of at once then, since the server's other clients want some as well.
SHORT_FOR = 10.0
GIVEN_BACK = 16
# Nobody is asked again for so long when nobody had anything to give: asking looks at every link.
NOTHING_FOR = 0.05


class Room:
    """Room for links. `links` counts those there are, `most` may be."""

    def __init__(self, links: Callable[[], int], most: int) -> None:
        self._links = links
        self.most = most
        self._making = 0
        self._givers: list[Callable[[], bool]] = []
        self._short_until = 0.0
        self._nothing_until = 0.0

    def ask(self, giver: Callable[[], bool]) -> None:
        """When links are short, call this: it lets go of one link that nobody uses, and says
        whether there was one. Those that were registered first are asked first."""
        self._givers.append(giver)

    @property
    def used(self) -> int:
        """Connections there are, and those that are being made."""
        return self._links() + self._making

    @property
    def short(self) -> bool:
        """Whether nothing is to be kept that nobody uses."""
        return time.monotonic() < self._short_until or self.used >= SHORT_SHARE * self.most

    @contextmanager
    def one_more(self, *, urgent: bool) -> Iterator[None]:
        """Room for a connection while it is being made; there is always some for one that is
        `urgent`, since everybody waits for it. Raises Full."""
        if self.used >= self.most and not self._give_back() and not urgent:
            raise Full(TOO_MANY)
        self._making += 1
        try:
            yield
        finally:
            self._making -= 1

    def refused(self) -> None:
        """The server has refused a connection, since it has as many as it allows."""
        self._short_until = time.monotonic() + SHORT_FOR
        for _ in range(GIVEN_BACK):
            if not self._give_back():
                return

    def _give_back(self) -> bool:
        now = time.monotonic()
        if now < self._nothing_until:
            return False
        if any(giver() for giver in self._givers):
            return True
        self._nothing_until = now + NOTHING_FOR
        return False
