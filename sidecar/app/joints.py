"""Where the admin endpoint meets the parts: their errors become its `RefusedError`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.admin.answers import Reloaded
from sidecar.admin.sources import RefusedError
from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.settings.load import ConfigError
from sidecar.telemetry import facts, snapshots


class WatchedSentinels:
    """The Sentinels of a watcher, for the admin endpoint (`admin.parts.Sentinels`)."""

    def __init__(self, watcher: SentinelWatcher) -> None:
        self._watcher = watcher

    def counts(self) -> snapshots.SentinelCounts:
        return self._watcher.counts()

    def snapshot(self) -> facts.Sentinels:
        return self._watcher.snapshot()

    async def replicas(self) -> Sequence[facts.SentinelReplica]:
        try:
            return await self._watcher.replicas()
        except DiscoveryError as error:
            raise RefusedError(str(error)) from error

    async def failover(self) -> str:
        try:
            return await self._watcher.failover()
        except DiscoveryError as error:
            raise RefusedError(str(error)) from error


def reload_or_refuse(reload: Callable[[], Reloaded]) -> Callable[[], Reloaded]:
    """`reload`, whose errors (a bad file, settings that cannot be used) become a refusal."""

    def reload_all() -> Reloaded:
        try:
            return reload()
        except ConfigError as error:
            raise RefusedError(f"nothing was reloaded: {'; '.join(error.problems)}") from error
        except OSError as error:
            raise RefusedError(f"nothing was reloaded: {error}") from error

    return reload_all
