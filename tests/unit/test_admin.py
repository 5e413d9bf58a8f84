"""The admin endpoint, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import ClientSession

from sidecar.admin.server import AdminServer


class Proxy:
    """What the admin server sees of a proxy: two functions over plain data."""

    def __init__(self) -> None:
        self.checks = {"serving": True, "upstream": True}
        self.counters: dict[str, object] = {"clients_active": 2}

    def ready(self) -> Mapping[str, bool]:
        return self.checks

    def snapshot(self) -> Mapping[str, object]:
        return self.counters


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


@pytest.fixture
async def http(proxy: Proxy) -> AsyncIterator[ClientSession]:
    server = AdminServer("127.0.0.1:0", proxy.snapshot, proxy.ready)
    await server.start()
    async with ClientSession(server.url) as session:
        yield session
    await server.stop()


async def fetch(http: ClientSession, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    async with http.get(path, headers={"Accept": accept}) as answer:
        return answer.status, await answer.text(), answer.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
async def test_live_even_when_the_backend_is_not(
    http: ClientSession, proxy: Proxy, path: str
) -> None:
    proxy.checks["upstream"] = False
    assert (await fetch(http, path))[:2] == (200, "ok\n")


async def test_ready_when_every_check_holds(http: ClientSession, proxy: Proxy) -> None:
    assert (await fetch(http, "/readyz"))[:2] == (200, "ok\n")
    verbose = "[+] serving\n[+] upstream\nok\n"
    assert (await fetch(http, "/readyz?verbose"))[:2] == (200, verbose)
    proxy.checks["upstream"] = False
    assert (await fetch(http, "/readyz"))[:2] == (503, "not ready\n")
    verbose = "[+] serving\n[-] upstream\nnot ready\n"
    assert (await fetch(http, "/readyz?verbose"))[:2] == (503, verbose)


async def test_metrics_in_both_formats(http: ClientSession, proxy: Proxy) -> None:
    status, text, content_type = await fetch(http, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert "sidecar_client_connections 2.0\n" in text
    proxy.counters["clients_active"] = 5
    _, text, content_type = await fetch(http, "/metrics", "application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert "sidecar_client_connections 5.0\n" in text
    assert text.endswith("# EOF\n")


async def test_the_index_names_the_paths(http: ClientSession) -> None:
    status, text, _ = await fetch(http, "/")
    assert status == 200
    for path in ("/livez", "/readyz", "/metrics"):
        assert path in text


async def test_only_reads_are_served(http: ClientSession) -> None:
    async with http.post("/livez") as answer:
        assert answer.status == 405
    assert (await fetch(http, "/nothing"))[0] == 404


async def test_a_port_in_use_is_an_os_error(proxy: Proxy) -> None:
    first = AdminServer("127.0.0.1:0", proxy.snapshot, proxy.ready)
    await first.start()
    taken = first.url.removeprefix("http://")
    with pytest.raises(OSError, match="in use"):
        await AdminServer(taken, proxy.snapshot, proxy.ready).start()
    await first.stop()
    await first.stop()
    host, port = taken.split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


def test_a_bad_address_is_a_value_error(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="no port"):
        AdminServer("127.0.0.1", proxy.snapshot, proxy.ready)
