"""The sidecar with a cluster of its own: as one server, and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.harness.process import ping
from tests.harness.servers import Settings, Sidecar
from tests.harness.wire import Wire


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("embedded+cluster://?shards=2&replicas=1", {}),
        ("embedded+cluster://?shards=2", {"workers": 2}),
    ],
)
def test_it_serves_and_ends(url: str, settings: Settings) -> None:
    with Sidecar(url, settings=settings) as sidecar:
        with Wire(sidecar.port) as wire:
            names = [f"key{count}" for count in range(20)]
            assert wire.pipeline([("SET", name, name) for name in names]) == [b"+OK\r\n"] * 20
            assert wire.call("MGET", *names) == names
            assert wire.call("DBSIZE") == 20
        log = sidecar.log()
        assert sidecar.stop() == 0
    ports = [int(part.partition('"')[0]) for part in log.split('"127.0.0.1:')[1:]]
    assert len(set(ports)) >= 2
    assert [ping(port) for port in ports] == [b""] * len(ports)
