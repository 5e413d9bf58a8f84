"""A sidecar with everything turned on, its upstream, and the doors that lead into it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping

from bench.soak.client import Door
from bench.soak.upstreams import (
    UPSTREAMS,
    Fault,
    Upstream,
    forget_scripts,
    freeze,
    kill_links,
)
from tests.harness import collector
from tests.harness.certificates import Authority, Pem
from tests.harness.closing import Closing
from tests.harness.failover import news
from tests.harness.fleet import Fleet
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Settings, Sidecar
from tests.harness.wire import Wire

PAUSE = 0.5, 2.5
"""Seconds between two faults."""
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc gives large blocks back at once: what is resident is in use, not kept for the next time."""
RESTRICTED = """
[policies.soak]
deny = ["DEBUG"]
deny_keys = ["forbidden:*"]
[identities.default]
policy = "soak"
[identities.default.limits]
connections = 1000
commands = {commands}
over = "delay"
in_flight = "64MB"
request = "32MB"
reply = "64MB"
pipeline = 1000
blocked = 500
subscribed = 500
"""
"""Everybody is held to a policy and to every limit, and none is reached but by who trespasses."""
TAKEN_OVER = 15.0
"""Seconds within which new settings and certificates are in use."""


class Soaked(Sidecar):
    """A sidecar some of whose settings stand in a file, which a reload reads again."""

    def __init__(self, fleet: Fleet, upstream: str, settings: Settings, also: list[str]) -> None:
        self.file = fleet.folder / "sidecar.toml"
        self.identities = fleet.folder / "identities.toml"
        self.turn = 0
        self.write()
        admin = f"127.0.0.1:{free_port()}"
        settings = {**settings, "identities.file": str(self.identities)}
        super().__init__(upstream, settings=settings, also=also, admin=admin, env=GIVEN_BACK)

    def argv(self) -> list[str]:
        """With the file."""
        return [*super().argv(), "--config", str(self.file)]

    def write(self) -> None:
        """The files, with other values each time."""
        self.turn += 1
        self.identities.write_text(RESTRICTED.format(commands=50_000 + self.turn))
        kept = f'"keep: max_ttl={20 + self.turn % 10}s"'
        text = (
            f"[tracing]\nsample = {0.001 * (1 + self.turn % 3)}\n"
            f'[cache]\nrules = [{kept}, "script:", "large: never"]\n'
            f"[limits]\nrequest_buffer = {(256 + self.turn % 2) * 1024}\n"
        )
        self.file.write_text(text)

    def reload(self) -> None:
        """SIGHUP, with other settings; waited for."""
        before = len(self.log())
        self.write()
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: news(self, "settings reloaded", before), "a reload", TAKEN_OVER)


class Stage(Closing):
    """All processes of a soak, and what can go wrong with them."""

    def __init__(self, kind: str, server: str, more: Mapping[str, str], seed: int) -> None:
        self.chance = random.Random(seed)
        self.fleet = Fleet()
        self.counts: Counter[str] = Counter()
        self.marks: list[tuple[float, float, str]] = []
        """From when to when (monotonic), and which fault."""
        self.problems: list[str] = []
        self._upstream: Upstream | None = None
        try:
            self._upstream = self.upstream = UPSTREAMS[kind](server, self.fleet)
            self._authority = Authority(self.fleet.folder, "ca")
            self._shown = self._authority.issue("listen")
            tls, unix = free_port(), f"{self.fleet.folder}/unix"
            also = [f"rediss://127.0.0.1:{tls}", f"unix://{unix}"]
            settings = {**self._settings(self._shown), **more}
            self.sidecar = self.fleet.add(Soaked(self.fleet, self.upstream.url, settings, also))
        except BaseException:
            self.close()
            raise
        context = self._authority.client_context()
        ways: dict[str, tuple[int | str, ssl.SSLContext | None]] = {
            "plain": (self.sidecar.port, None),
            "TLS": (tls, context),
            "unix": (unix, None),
        }
        self.doors = [
            Door(f"{name}, RESP{protocol}", where, context, protocol)
            for name, (where, context) in ways.items()
            for protocol in (2, 3)
        ]
        self.tls_port = tls

    def _settings(self, shown: Pem) -> Settings:
        """Everything on; what is kept is small, so that it is full before the measurement."""
        folder = self.fleet.folder
        settings: dict[str, str | int | float] = {
            "listen.tls.cert_file": str(shown.cert),
            "listen.tls.key_file": str(shown.key),
            "cache.mode": "rules",
            "cache.memory": "4MiB",
            "cache.check": 0.01,
            "hotkeys.hot_share": 0.01,
            "hotkeys.cool_share": 0.005,
            "hotkeys.metrics": 10,
            "warm.snapshot": str(folder / "warm"),
            "warm.interval": "5s",
            "warm.fleet": "true",
            "warm.hold": "1s",
            "tracing.max_per_second": 5,
            "tracing.recent": 20,
            "tracing.context": "true",
            "audit.file": str(folder / "audit"),
            "upstream.pool_idle_timeout": "2s",
            "limits.client_output_pause": "1MiB",
            "limits.link_output_pause": "1MiB",
            "failover.hold": "25s",
            "log.level": "info",
        }
        if collector.agent() is not None:
            settings["tracing.endpoint"] = self.fleet.add(collector.Collector()).url
        return settings

    @property
    def faults(self) -> dict[str, Fault]:
        """Everything that can go wrong, by name."""
        upstream = self.upstream
        return {
            "CLIENT KILL, all but tracked": lambda: kill_links(upstream, tracked=False),
            "CLIENT KILL, tracked": lambda: kill_links(upstream, tracked=True),
            "server frozen": lambda: freeze(upstream, self.chance),
            "scripts forgotten": lambda: forget_scripts(upstream),
            "settings reloaded": self.sidecar.reload,
            "certificate swapped": self._swap,
            **upstream.faults,
        }

    def _swap(self) -> None:
        """Another certificate, in the files of the one before; new connections are shown it."""
        before = self._seen()
        made = self._authority.issue("next")
        made.key.replace(self._shown.key)
        made.cert.replace(self._shown.cert)
        wait_until(lambda: self._seen() != before, "another certificate", TAKEN_OVER)

    def _seen(self) -> bytes:
        with Wire(self.tls_port, tls=self._authority.client_context(), deadline=TAKEN_OVER) as wire:
            return wire.certificate

    async def storm(self, seconds: float, check: Callable[[], None]) -> None:
        """One fault after the other for so long, each before any comes again. `check` is called in
        between."""
        until = time.monotonic() + seconds
        bag: list[str] = []
        while time.monotonic() < until:
            if not bag:
                bag = list(self.faults)
                self.chance.shuffle(bag)
            await self.strike(bag.pop())
            check()
            rest = min(self.chance.uniform(*PAUSE), max(until - time.monotonic(), 0))
            await asyncio.sleep(rest)

    async def strike(self, name: str) -> None:
        """One fault."""
        begin = time.monotonic()
        try:
            await asyncio.to_thread(self.faults[name])
        except (AssertionError, OSError) as error:
            self.problems.append(f"{name}: {error}")
        self.counts[name] += 1
        self.marks.append((begin, time.monotonic(), name))

    def close(self) -> None:
        """End all of it."""
        self.fleet.close()
        if self._upstream is not None:
            self._upstream.close()
