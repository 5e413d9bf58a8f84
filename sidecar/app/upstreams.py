"""What belongs to an upstream outside of the data plane: its source of credentials, its Sentinels.

One upstream is in use; another may be made ready beside it, and then takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.admin.parts import Sentinels
from sidecar.app.joints import WatchedSentinels
from sidecar.app.startup import StartError, find_master, watcher_of
from sidecar.credentials import (
    CredentialError,
    Credentials,
    CredentialSettings,
    fixed,
    source_of,
)
from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.policy.topology import Address, Event
from sidecar.proxy.destination import Destination
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint


class Way:
    """One upstream: `endpoint`, by these settings. `told` gets what Sentinels say, once it is in
    use."""

    def __init__(
        self, settings: Settings, endpoint: Endpoint, told: Callable[[Event], None]
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._told = told
        self._in_use = False
        self._credentials: list[Credentials] = []
        self._watching: list[asyncio.Task[None]] = []
        self.watcher: SentinelWatcher | None = None

    async def open(self) -> Credentials | None:
        """Read the credentials and make the watcher. Raises StartError."""
        settings, endpoint = self._settings, self._endpoint
        credentials = await self._credentials_of("upstream", settings.upstream, endpoint)
        if endpoint.kind == "sentinel":
            of_sentinels = await self._credentials_of("sentinel", settings.sentinel)
            self.watcher = watcher_of(settings, endpoint, self._heard, of_sentinels)
        return credentials

    async def _credentials_of(
        self, section: str, settings: CredentialSettings, upstream: Endpoint | None = None
    ) -> Credentials | None:
        user, password = (upstream.username, upstream.password) if upstream else ("", "")
        source = source_of(section, settings, fixed(settings, user, password))
        if source is None:
            return None
        try:
            credentials = await Credentials.begin(section, source)
        except CredentialError as error:
            raise StartError(str(error)) from error
        self._credentials.append(credentials)
        self._watching.append(asyncio.create_task(credentials.watch()))
        return credentials

    def _heard(self, event: Event) -> None:
        if self._in_use:
            self._told(event)

    async def find_master(self, deadline: float) -> Address | None:
        """Who the Sentinels say is the master; see startup.find_master."""
        if self.watcher is None:
            return None
        return await find_master(self.watcher, self._settings.upstream, deadline)

    async def destination(self) -> Destination:
        """Make it ready for a switch. Raises StartError, DiscoveryError."""
        credentials = await self.open()
        master = None
        if self.watcher is not None:
            try:
                async with asyncio.timeout(self._settings.upstream.connect_timeout):
                    master = await self.watcher.find_master()
            except TimeoutError:
                raise DiscoveryError("no Sentinel has answered in time") from None
        return Destination(self._settings, self._endpoint, credentials, self.watcher, master)

    def use(self) -> None:
        """It is in use from now on."""
        self._in_use = True
        if self.watcher is not None:
            self.watcher.start()

    @property
    def sentinels(self) -> Sentinels | None:
        """Its Sentinels, for the admin endpoint."""
        return WatchedSentinels(self.watcher) if self.watcher is not None else None

    async def close(self) -> None:
        """It is not in use any more."""
        self._in_use = False
        for task in self._watching:
            task.cancel()
        if self.watcher is not None:
            await self.watcher.close()
