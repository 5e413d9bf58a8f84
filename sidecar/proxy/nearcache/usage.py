"""Tells the server which cached keys are in use, so that it does not evict them.

Needed where the server evicts by use (`maxmemory-policy` with lru or lfu): it does not see reads
that the near cache answers. Once in ROUND, the keys that were served are named in TOUCH
(core/cache/touch.pyx). If they are more than MOST a tick, it takes longer. Nothing is sent to a
server that evicts by something else, or not at all.

The server's `keyspace_hits` still lack these reads (docs/compatibility.md).
"""

from __future__ import annotations

from sidecar.proxy.io.tracked_link import tell_use, touch, used
from sidecar.proxy.nearcache.keeper import NearCacheKeeper

# Seconds. The server's clock for LRU has a resolution of one.
ROUND = 1.0
# Keys named at one tick: 10,000 a second, about a hundredth of what a server does.
MOST = 500
# How often one key is named in a round: LRU needs to know that it was used, LFU how often.
REPEATS = {"lru": 1, "lfu": 20}


def repeats(policy: str) -> int:
    """How often a key is named at most, by `maxmemory-policy`; 0: the server need not know."""
    return REPEATS.get(policy.rpartition("-")[2], 0)


class UsageReporter:
    """Reports the use of cached keys to the server."""

    def __init__(self, near: NearCacheKeeper) -> None:
        self._near = near
        self._repeats = 0
        self._left = 0  # keys of this round that are not named yet
        self._next_round = 0.0

    def policy(self, name: str) -> None:
        """The server's `maxmemory-policy`; "" if it has no limit of memory."""
        self._repeats = repeats(name)
        tell_use(self._near.cache, self._repeats > 0)

    def tick(self, now: float) -> None:
        """Name the next keys of this round, or begin a round."""
        if self._left == 0 and now >= self._next_round:
            self._left, self._next_round = used(self._near.cache), now + ROUND
        if self._left and self._repeats:
            self._left -= touch(self._near.cache, self._left, MOST, self._repeats)
            self._near.send_queued()
