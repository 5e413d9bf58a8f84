"""The tree of all settings, and the table made from it.

Each setting is declared once, in `sections/`: type, default, unit, range, help, and whether it
reloads. `load.py` reads values for them, and `config/full.toml`, `docs/configuration.md` and the
tests are made from the same declarations. Declarations only: nothing here reads a file or holds
state.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from sidecar.settings.fields import Row, Section, restart, rows, setting
from sidecar.settings.sections.cache import Cache, HotKeys, Warm
from sidecar.settings.sections.clients import Drain, Limits, Listen
from sidecar.settings.sections.cluster import Cluster
from sidecar.settings.sections.identities import Identities
from sidecar.settings.sections.operations import Admin, Audit, Embedded, Log, Reload, Tracing
from sidecar.settings.sections.upstream import Breaker, Failover, Sentinel, Upstream
from sidecar.settings.urls import Endpoint, parse_listen, parse_upstream


class Settings(Section, frozen=True):
    """All settings of one sidecar."""

    workers: Annotated[
        int,
        setting(
            "Processes that share the listeners, so that more than one processor is used; what "
            "they may take (memory, clients, links) is divided among them. 1: a single process.",
            ge=1,
            le=64,
            reload=restart("processes and their shares are made at the start"),
        ),
    ] = 1
    listen: Listen = msgspec.field(default_factory=Listen)
    upstream: Upstream = msgspec.field(default_factory=Upstream)
    sentinel: Sentinel = msgspec.field(default_factory=Sentinel)
    cluster: Cluster = msgspec.field(default_factory=Cluster)
    failover: Failover = msgspec.field(default_factory=Failover)
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    hotkeys: HotKeys = msgspec.field(default_factory=HotKeys)
    cache: Cache = msgspec.field(default_factory=Cache)
    warm: Warm = msgspec.field(default_factory=Warm)
    tracing: Tracing = msgspec.field(default_factory=Tracing)
    embedded: Embedded = msgspec.field(default_factory=Embedded)
    admin: Admin = msgspec.field(default_factory=Admin)
    identities: Identities = msgspec.field(default_factory=Identities)
    limits: Limits = msgspec.field(default_factory=Limits)
    drain: Drain = msgspec.field(default_factory=Drain)
    log: Log = msgspec.field(default_factory=Log)
    audit: Audit = msgspec.field(default_factory=Audit)
    reload: Reload = msgspec.field(default_factory=Reload)

    @property
    def listeners(self) -> tuple[Endpoint, ...]:
        """`listen.urls`, parsed."""
        return tuple(parse_listen(url) for url in self.listen.urls)

    @property
    def upstream_endpoint(self) -> Endpoint:
        """`upstream.url`, parsed."""
        return parse_upstream(self.upstream.url)

    @property
    def follows_name(self) -> bool:
        """Whether the upstream is one address whose master is followed."""
        return self.upstream.follow == "auto" and self.upstream_endpoint.kind in ("tcp", "unix")


def describe() -> Iterator[Row]:
    """A row for every setting: path, type, default, unit, help, reloadable."""
    return rows(Settings)
