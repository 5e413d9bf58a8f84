"""Sentinels out of reach, with a password, with TLS: who gets in, and what the others are told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.settings.sections.upstream import Sentinel
from sidecar.settings.urls import parse_upstream
from tests.conftest import KINDS
from tests.harness.certificates import Certificates, make_certificates
from tests.harness.process import free_port
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server
from tests.harness.watching import HOST, failure, find, watching


async def test_nobody_there(plain_server: Server) -> None:
    """Refused, silent, or not a Sentinel: each is named with its reason, and none costs much."""
    refusing = free_port()
    with socket.create_server((HOST, 0)) as silent:
        quiet = silent.getsockname()[1]
        members = f"{HOST}:{refusing},{HOST}:{quiet},{HOST}:{plain_server.port}"
        begun = time.monotonic()
        text = await failure(f"redis+sentinel://{members}/mymaster", connect_timeout=0.2)
        assert time.monotonic() - begun < 2
    assert text.startswith("no Sentinel of 'mymaster' can be asked: ")
    assert f"{HOST}:{refusing} connection refused" in text
    assert f"{HOST}:{quiet} no answer within 0.2 s" in text
    assert f"{HOST}:{plain_server.port} is a server, not a Sentinel" in text


@pytest.fixture(scope="module", params=KINDS)
def locked(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One Sentinel with a password, and a master with another."""
    with Cluster(
        0, 1, flavour=request.param, password="data-secret", sentinel_password="watch-secret"
    ) as cluster:
        yield cluster


async def test_a_password(locked: Cluster) -> None:
    """The one of sentinel.password; that of the URL is the data nodes' and is not tried."""
    text = await failure(locked.url)
    assert text.startswith("no Sentinel of 'mymaster' lets us in: ")
    assert "wants a password (NOAUTH); set sentinel.username and sentinel.password" in text
    text = await failure(locked.url, password="data-secret")
    assert f"{HOST}:{locked.sentinels[0].port} WRONGPASS" in text
    assert "data-secret" not in text
    master = (HOST, locked.master.port)
    assert await find(locked.url, password="watch-secret") == master
    assert await find(locked.url, username="default", password="watch-secret") == master
    async with watching(locked.url, password="watch-secret") as watch:
        await watch.until(lambda: watch.connected(1), "connection")
    async with watching(locked.url, password="wrong") as watch:
        await watch.until(lambda: "WRONGPASS" in watch.sentinels()[0].error, "the refusal")


async def test_a_user(locked: Cluster) -> None:
    """One who may ask but not subscribe is served by polls; one who may do nothing is told so."""
    only = locked.sentinels[0]
    rules = (">pw", "-@all", "+auth", "+hello", "+ping", "+sentinel|master")
    name = "+sentinel|get-master-addr-by-name"
    assert locked.ask(only, "ACL", "SETUSER", "asker", "on", *rules, name) == "OK"
    assert locked.ask(only, "ACL", "SETUSER", "nobody", "on", ">pw", "-@all", "+hello") == "OK"
    async with watching(locked.url, username="asker", password="pw", poll_interval=0.05) as watch:
        assert await watch.watcher.find_master() == (HOST, locked.master.port)
        await watch.until(lambda: len(watch.named(switched=False)) >= 3, "polls")
        assert watch.sentinels()[0].error == ""
    assert "NOPERM" in await failure(locked.url, username="nobody", password="pw")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One CA for the file."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.redis
async def test_tls(certificates: Certificates) -> None:
    """Found, learnt and followed over TLS; who cannot prove to be a Sentinel is not asked."""
    with Cluster(1, 2, flavour="redis7", tls=certificates) as secure:
        trusting = certificates.client_context()
        async with watching(secure.url_of(secure.sentinels[0]), context=trusting) as watch:
            master = (HOST, secure.master.listening)
            assert await watch.watcher.find_master() == master
            # The other is learnt by its number, which the certificate names as well.
            await watch.until(lambda: watch.connected(2), "both Sentinels")
            await asyncio.to_thread(secure.failover)
            await watch.until(lambda: watch.named(switched=True), "the switch")
            new = (HOST, secure.replicas[0].listening)
            assert watch.named(switched=True)[0].address == new
        assert "closed the connection" in await failure(secure.url)
        distrusting = make_certificates(certificates.ca.parent / "other").client_context()
        text = await failure(secure.url, context=distrusting)
        assert "TLS: the certificate is not accepted: " in text
        port = secure.sentinels[0].port
        endpoint = parse_upstream(secure.url_of(secure.sentinels[0]))
        renewed = SentinelWatcher(endpoint, Sentinel(), distrusting, print)
        with pytest.raises(DiscoveryError, match="the certificate is not accepted: "):
            await renewed.find_master()
        assert renewed.counts().tls_failures == {"unknown_ca": 1}
        renewed.use_context(trusting)
        assert await renewed.find_master() == new
        assert renewed.counts().tls_failures == {"unknown_ca": 1}
        endpoint = parse_upstream(f"rediss+sentinel://localhost:{port}/mymaster")
        named = SentinelWatcher(endpoint, Sentinel(), trusting, print, server_name="elsewhere")
        with pytest.raises(DiscoveryError, match="the certificate is not accepted: "):
            await named.find_master()
        assert named.counts().tls_failures == {"wrong_name": 1}
