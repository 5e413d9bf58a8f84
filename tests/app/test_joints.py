"""Errors of the parts become refusals of the admin endpoint."""

from __future__ import annotations

import ssl

import pytest

from sidecar.admin.answers import Reloaded
from sidecar.admin.sources import RefusedError
from sidecar.app.joints import WatchedSentinels, reload_or_refuse
from sidecar.discovery.sentinel import SentinelWatcher
from sidecar.settings.load import ConfigError
from sidecar.settings.sections.upstream import Sentinel
from sidecar.settings.urls import parse_upstream
from tests.harness.process import free_port


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


@pytest.mark.parametrize("error", [OSError("no such file"), ssl.SSLError("no such file")])
def test_a_bad_certificate_refuses(error: OSError) -> None:
    def fails() -> Reloaded:
        raise error

    with pytest.raises(RefusedError, match=r"nothing was reloaded: .*no such file"):
        reload_or_refuse(fails)()
    done = Reloaded(reloaded=["listen.tls"])
    assert reload_or_refuse(lambda: done)() == done


def test_settings_that_cannot_be_used_refuse() -> None:
    def fails() -> Reloaded:
        raise ConfigError(["cache.memory: found 1", "log.level: found 2"])

    what = "nothing was reloaded: cache.memory: found 1; log.level: found 2"
    with pytest.raises(RefusedError, match=what):
        reload_or_refuse(fails)()
