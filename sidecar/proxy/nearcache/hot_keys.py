"""The shell of the hot-key detector: ticks, tenants, log events, and what is shown.

The core counts (core/hotkeys/sketch.pyx). A tenant, one (user, database), is a number in the core.
Keys that become hot are logged and passed to `heated`, which is the near cache if there is one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import structlog

from sidecar.core.hotkeys.detector import HotKeys
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identity
from sidecar.settings.sections.cache import HotKeys as Settings
from sidecar.telemetry import facts, snapshots

log = structlog.get_logger()

# Longer keys are counted and shown by their beginning, but not passed to the near cache.
KEY_MAX = 512
MOST_TENANTS = 65535
# The share of reads that makes a key worth caching.
READS_AT_LEAST = 0.5
# Commands per second from which a hot key is worth a log line, and seconds between two looks.
WORTH_NAMING = 100.0
LOOK_EVERY = 1.0

Tenant = tuple[bytes | None, int]


class HotKeyDetector:
    """Watches the keys of all clients. `heated` is called with a key and True when it becomes hot
    and is worth caching, with False otherwise; `cached` says whether a key is cached."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        heated: Callable[[bytes, bool], None],
        cached: Callable[[bytes], bool],
    ) -> None:
        self.settings = settings
        self._heated = heated
        self._cached = cached
        self.detector = HotKeys(
            random.getrandbits(64),
            width=settings.width,
            top=settings.top,
            window=settings.window,
            samples_per_second=settings.samples_per_second,
            hot_share=settings.hot_share,
            cool_share=settings.cool_share,
            key_max=KEY_MAX,
        )
        self.hot: set[bytes] = set()
        self.events = 0
        self._numbers: dict[Tenant, int] = {}
        self._tenants: list[Tenant] = []
        self._named: dict[tuple[int, bytes], float] = {}  # since when
        self._looked = 0.0
        plane.use_hot_keys(self.detector)

    def use(self, settings: Settings) -> None:
        """Count by these settings from now on; the sizes stay."""
        self.settings = settings
        self.detector.use(
            window=settings.window,
            samples_per_second=settings.samples_per_second,
            hot_share=settings.hot_share,
            cool_share=settings.cool_share,
        )

    def join(self, client: Client, identity: Identity) -> None:
        """A client joined this identity."""
        tenant = (identity.login.user, identity.login.db)
        number = self._numbers.get(tenant)
        if number is None:
            number = min(len(self._tenants), MOST_TENANTS)
            self._numbers[tenant] = number
            self._tenants.append(tenant)
        client.use_tenant(number)

    def tick(self, now: float) -> None:
        """Take the events of the core: keys that became hot or cooled."""
        self.detector.tick(now)
        if self.settings.log and now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._name()
        events = self.detector.take_events()
        if not events:
            return
        for kind, tenant, key, _ in events:
            self.events += 1
            if kind != "hot":
                self._no_longer(tenant, key)
            if len(key) >= KEY_MAX:
                continue
            if kind == "hot":
                self.hot.add(key)
            else:
                self.hot.discard(key)
            self._heated(key, kind == "hot" and self._mostly_read(tenant, key))

    def _mostly_read(self, tenant: int, key: bytes) -> bool:
        for place, name, _, rate, reads, _, _ in self.detector.top(self.settings.top):
            if place == tenant and name == key:
                return reads >= READS_AT_LEAST * rate
        return True

    def _name(self) -> None:
        """Log keys that now get much of a traffic that is worth talking of."""
        for tenant, key, share, rate, _, _, hot in self.detector.top(self.settings.top):
            if share < self.settings.log:
                return  # the hottest come first
            if hot and rate >= WORTH_NAMING and (tenant, key) not in self._named:
                self._named[tenant, key] = self._looked
                log.info(
                    "hot key found",
                    key=shown(key),
                    db=self._db(tenant),
                    share=round(share, 4),
                    rate=round(rate, 1),
                )

    def _no_longer(self, tenant: int, key: bytes) -> None:
        since = self._named.pop((tenant, key), None)
        if since is not None:
            seconds = round(self._looked - since, 1)
            log.info("hot key cooled", key=shown(key), db=self._db(tenant), seconds=seconds)

    def _db(self, tenant: int) -> int:
        return self._tenants[tenant][1] if tenant < len(self._tenants) else 0

    def _user(self, tenant: int) -> str:
        user = self._tenants[tenant][0] if tenant < len(self._tenants) else None
        return (user or b"default").decode("utf-8", "replace")

    def top(self, most: int) -> Sequence[facts.HotKey]:
        """The hottest keys first. Rates per second; binary keys as redis-cli prints them."""
        return [
            facts.HotKey(
                key=shown(key),
                db=self._db(tenant),
                user=self._user(tenant),
                share=round(share, 6),
                rate=round(rate, 1),
                reads=round(reads, 1),
                writes=round(writes, 1),
                hot=hot,
                cached=self._cached(key),
            )
            for tenant, key, share, rate, reads, writes, hot in self.detector.top(most)
        ]

    def top_share(self) -> float:
        """The hottest key's share of the traffic; 0 without traffic."""
        rows = self.detector.top(1)
        return float(rows[0][2]) if rows else 0.0

    def snapshot(self) -> snapshots.HotKeyCounts:
        """Counters and gauges."""
        counts, most = self.detector.stats(), self.settings.metrics
        named = [
            ((self._user(tenant), str(self._db(tenant)), shown(key)), share, rate)
            for tenant, key, share, rate, *_ in (self.detector.top(most) if most else ())
        ]
        return snapshots.HotKeyCounts(
            hot=counts["hot"],
            samples=counts["sampled"],
            top_share=self.top_share(),
            shares={labels: share for labels, share, _ in named} if most else None,
            rates={labels: rate for labels, _, rate in named} if most else None,
        )


_ESCAPES = {
    ord("\\"): r"\\",
    ord('"'): r"\"",
    ord("\n"): r"\n",
    ord("\r"): r"\r",
    ord("\t"): r"\t",
    ord("\a"): r"\a",
    ord("\b"): r"\b",
}


def shown(key: bytes) -> str:
    """A key as redis-cli prints it, without the quotes."""
    return "".join(
        _ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in key
    )
