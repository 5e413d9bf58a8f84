"""An upstream to go to: what the composition root hands over, at the start and for a switch."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.credentials import Credentials, fixed
from sidecar.policy.topology import Address
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.master import Sentinels
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint


@dataclass(frozen=True)
class Destination:
    """Where the upstream is, and how to enter it. A Sentinel upstream has `sentinels`, and the
    `master` that they name, if they know one. `credentials` have a source."""

    settings: Settings
    endpoint: Endpoint
    credentials: Credentials | None = None
    sentinels: Sentinels | None = None
    master: Address | None = None

    @property
    def follows_sentinels(self) -> bool:
        """Whether Sentinels tell who the master is."""
        return self.endpoint.kind == "sentinel"

    @property
    def is_cluster(self) -> bool:
        """Whether there are several shards."""
        return self.endpoint.kind == "cluster"

    @property
    def follows_name(self) -> bool:
        """Whether the servers behind one address do."""
        return self.settings.follows_name

    @property
    def login(self) -> Login:
        """The sidecar's own login: from its source, else from the settings, else from the URL."""
        given = fixed(self.settings.upstream, self.endpoint.username, self.endpoint.password)
        if self.credentials is not None:
            given = self.credentials.now
        user = given.user if given.user or given.password else None
        return Login(2, user, given.password, self.endpoint.db, source=self.credentials)
