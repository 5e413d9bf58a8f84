"""Errors of the parts become refusals of the admin endpoint."""

from __future__ import annotations

import ssl
from typing import TypeVar

import pytest

from sidecar.admin.answers import Paused, Reloaded, Resumed, Switched
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.sources import RefusedError
from sidecar.app.joints import Refusing, WatchedSentinels
from sidecar.discovery.sentinel import SentinelWatcher
from sidecar.proxy.moving import MoveError
from sidecar.settings.load import ConfigError
from sidecar.settings.sections.upstream import Sentinel
from sidecar.settings.urls import parse_upstream
from sidecar.telemetry.facts import ComparedServer, UnderWay
from tests.harness.process import free_port

T = TypeVar("T")

QUIET = Paused(paused=True, quiet=True, waited_s=0.0, held_clients=0, under_way=UnderWay())


async def test_sentinels_that_cannot_be_reached_refuse() -> None:
    endpoint = parse_upstream(f"redis+sentinel://127.0.0.1:{free_port()}/mymaster")
    watcher = SentinelWatcher(endpoint, Sentinel(), None, lambda event: None)
    sentinels = WatchedSentinels(watcher)
    assert sentinels.counts().connected == 0
    assert sentinels.snapshot().service == "mymaster"
    with pytest.raises(RefusedError, match="can be asked"):
        await sentinels.replicas()
    with pytest.raises(RefusedError, match="no Sentinel begins a failover"):
        await sentinels.failover()
    await watcher.close()


class Changing:
    """Stands for what changes the upstream: it fails, or is done."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def reload(self) -> Reloaded:
        return self._or(Reloaded(reloaded=["listen.tls"]))

    async def pause(self) -> Paused:
        return self._or(QUIET)

    async def resume(self) -> Resumed:
        return self._or(Resumed(paused=False, seconds=1.0))

    async def switch(self, to: SwitchTo) -> Switched:
        server = ComparedServer(address=to.url)
        return self._or(Switched(switched=not to.dry_run, before=server, after=server, warnings=[]))

    def _or(self, done: T) -> T:
        if self._error is not None:
            raise self._error
        return done


@pytest.mark.parametrize(
    "error", [OSError("no such file"), ssl.SSLError("no such file"), MoveError("no such file")]
)
async def test_what_fails_refuses(error: Exception) -> None:
    with pytest.raises(RefusedError, match=r"nothing was reloaded: .*no such file"):
        await Refusing(Changing(error)).reload()
    with pytest.raises(RefusedError, match=r"nothing has changed: .*no such file"):
        await Refusing(Changing(error)).switch(SwitchTo("redis://h"))
    done = Refusing(Changing())
    assert (await done.reload()).reloaded == ["listen.tls"]
    assert (await done.pause()).quiet
    assert (await done.resume()).seconds == 1.0
    assert not (await done.switch(SwitchTo("redis://h", dry_run=True))).switched


async def test_settings_that_cannot_be_used_refuse() -> None:
    changing = Changing(ConfigError(["cache.memory: found 1", "log.level: found 2"]))
    what = "nothing was reloaded: cache.memory: found 1; log.level: found 2"
    with pytest.raises(RefusedError, match=what):
        await Refusing(changing).reload()
    with pytest.raises(RefusedError, match=r"cache.memory: found 1; log.level"):
        await Refusing(changing).switch(SwitchTo("redis://h"))
