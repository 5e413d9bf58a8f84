"""Where the admin endpoint meets the parts: their errors become its `RefusedError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sidecar.admin.answers import Paused, Reloaded, Resumed, Switched
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.sources import RefusedError
from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.proxy.moving import MoveError
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


class Changing(Protocol):
    """What is needed of app/changing.py."""

    async def reload(self) -> Reloaded: ...
    async def pause(self) -> Paused: ...
    async def resume(self) -> Resumed: ...
    async def switch(self, to: SwitchTo) -> Switched: ...


class Refusing:
    """What takes settings over, pauses and switches, for the admin endpoint
    (`admin.parts.Upstreams`): errors become refusals."""

    def __init__(self, changing: Changing) -> None:
        self._changing = changing

    async def reload(self) -> Reloaded:
        try:
            return await self._changing.reload()
        except ConfigError as error:
            raise RefusedError(f"nothing was reloaded: {'; '.join(error.problems)}") from error
        except (OSError, MoveError) as error:
            raise RefusedError(f"nothing was reloaded: {error}") from error

    async def pause(self) -> Paused:
        return await self._changing.pause()

    async def resume(self) -> Resumed:
        return await self._changing.resume()

    async def switch(self, to: SwitchTo) -> Switched:
        try:
            return await self._changing.switch(to)
        except ConfigError as error:
            raise RefusedError("; ".join(error.problems)) from error
        except (OSError, MoveError) as error:
            raise RefusedError(f"nothing has changed: {error}") from error
