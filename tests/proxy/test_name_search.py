"""The search behind a name, beside a real server."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.policy.following_words import Answered, Pace, Resolved
from sidecar.policy.topology import Address
from sidecar.proxy import name_search
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.name_search import NameSearch
from sidecar.proxy.targets import Targets
from sidecar.proxy.tasks import Tasks
from sidecar.settings.load import load
from sidecar.settings.urls import parse_upstream
from sidecar.telemetry.handshakes import Handshakes
from tests.harness.servers import valkey


class AskOnce:
    """Wants the first addresses to be asked until one has answered."""

    def __init__(self) -> None:
        self.search: NameSearch | None = None
        self.open: tuple[Address, ...] = ()
        self.pace: Pace = "fast"
        self.answered: asyncio.Future[asyncio.Task[None] | None] = asyncio.Future()
        """Has the task that asks."""

    def to_ask(self) -> tuple[Address, ...]:
        return self.open

    def on_event(self, event: Resolved | Answered) -> None:
        if isinstance(event, Answered):
            self.open = ()
            if not self.answered.done():
                self.answered.set_result(asyncio.current_task())
            assert self.search is not None
            self.search.wake()
        elif not self.answered.done():
            self.open = event.addresses


def test_an_address_that_is_not_to_be_asked_any_more_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the answer itself ends the asking, and the next question is due by then."""
    monkeypatch.setattr(name_search, "FAST", 0.0)

    async def scene(url: str) -> None:
        settings, endpoint = load(None, {"upstream.url": url}, {}), parse_upstream(url)
        certificates = Certificates(settings, upstream=False)
        targets = Targets(settings.upstream, endpoint, certificates, Handshakes("upstream"))
        tasks, wanted = Tasks(), AskOnce()
        search = wanted.search = NameSearch(
            endpoint,
            targets.of_number,
            Login(2, None, b"", 0),
            b"test",
            tasks,
            wanted,
            wanted.on_event,
        )
        tasks.spawn(search.run())
        try:
            asking = await asyncio.wait_for(wanted.answered, 10)
            assert asking is not None
            await asyncio.wait([asking], timeout=10)
            assert asking.done()
            assert not search.server_ids
        finally:
            await tasks.close()

    with valkey() as server:
        asyncio.run(scene(f"redis://127.0.0.1:{server.port}"))
