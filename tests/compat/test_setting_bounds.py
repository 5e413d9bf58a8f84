"""What `sidecar check` accepts, `sidecar run` starts with: every setting at each of its bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from sidecar.proxy.links.errors import ProxyStartError
from sidecar.proxy.server import Proxy
from sidecar.settings.fields import Row
from sidecar.settings.load import ConfigError, load
from sidecar.settings.schema import Settings, describe
from tests.harness.certificates import Certificates, make_certificates
from tests.harness.process import free_port
from tests.harness.servers import Server

# What a setting needs beside it to have an effect; those of `listen.tls` need certificates as well.
BESIDE: Mapping[str, Mapping[str, str]] = {
    "warm": {"warm.scan": "x*"},
    "warm.interval": {"warm.fleet": "true"},
    "hotkeys.cool_share": {"hotkeys.hot_share": "1"},
    "hotkeys.hot_share": {"hotkeys.cool_share": "0.00001"},
    "upstream.backoff_min": {"upstream.backoff_max": "365d"},
    "upstream.backoff_max": {"upstream.backoff_min": "1ms"},
    "breaker.open_for": {"breaker.open_max": "365d"},
    "breaker.open_max": {"breaker.open_for": "10ms"},
    "tracing": {"tracing.endpoint": "http://127.0.0.1:1"},
    "failover.ack_timeout": {"failover.min_replicas_ack": "1"},
    "cache.max_value": {"cache.memory": "1TiB"},
}
# So short that the server on this machine may not have answered; that is told in one line.
MAY_END = {"upstream.start_timeout", "upstream.connect_timeout", "upstream.max_links"}


def text(row: Row, bound: float) -> str:
    return str(int(bound)) if row.type in ("integer", "size") else repr(float(bound))


BOUNDS = [
    (row, text(row, bound)) for row in describe() for bound in (row.ge, row.le) if bound is not None
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def needed(row: Row, certificates: Certificates) -> Mapping[str, str]:
    """What this setting needs beside it to have an effect."""
    if row.path.startswith("listen.tls."):
        return {
            "listen.urls": "redis://127.0.0.1:0,rediss://127.0.0.1:0",
            "listen.tls.cert_file": str(certificates.server.cert),
            "listen.tls.key_file": str(certificates.server.key),
        }
    section = row.path.partition(".")[0]
    return {**BESIDE.get(section, {}), **BESIDE.get(row.path, {})}


def accepted(row: Row, value: str, server: str, beside: Mapping[str, str]) -> Settings:
    """Settings with this value that `check` accepts: alone, or with what it needs beside it."""
    sentinel = f"redis+sentinel://127.0.0.1:{free_port()}/mymaster"
    why = []
    for upstream, others in (
        (server, {}),
        (server, beside),
        (sentinel, {"upstream.start": "wait"}),
        (f"redis+cluster://127.0.0.1:{free_port()}", {"upstream.start": "wait"}),
    ):
        named = {"listen.urls": "redis://127.0.0.1:0", "upstream.url": upstream, **others}
        try:
            return load(None, {**named, row.path: value}, {})
        except ConfigError as error:
            why += error.problems
    raise AssertionError(f"no combination of settings has this value: {why}")


async def starts(settings: Settings, row: Row) -> None:
    proxy = Proxy(settings, settings.upstream_endpoint)
    try:
        await proxy.start(time.monotonic() + settings.upstream.start_timeout)
        port = int(proxy.listening[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PING\r\n")
        answer = await asyncio.wait_for(reader.read(100), 20.0)
        assert answer[:1] in b"+-", answer
        if row.section in ("listen", "limits", "cache", "hotkeys", "tracing", "log"):
            assert answer == b"+PONG\r\n"
        writer.close()
    except ProxyStartError:
        assert row.path in MAY_END
    finally:
        await proxy.close()


@pytest.mark.parametrize(
    ("row", "value"), BOUNDS, ids=[f"{row.path}={value}" for row, value in BOUNDS]
)
async def test_what_check_accepts_starts(
    row: Row, value: str, plain_server: Server, certificates: Certificates
) -> None:
    settings = accepted(row, value, plain_server.url, needed(row, certificates))
    if settings.upstream.url == plain_server.url:
        await starts(settings, row)
    else:
        proxy = Proxy(settings, settings.upstream_endpoint)
        await proxy.start(time.monotonic() + 0.01)
        await proxy.close()
