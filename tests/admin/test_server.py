"""The admin endpoint, over real HTTP."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession, web

from sidecar.admin.answers import Draining, Topology
from sidecar.admin.events import Events
from sidecar.admin.figures import Introduction
from sidecar.admin.guard import Handler
from sidecar.admin.recorder import Recorder
from sidecar.admin.routes import ROUTES
from sidecar.admin.server import AdminServer
from sidecar.admin.sources import Actions, RefusedError, Sources
from sidecar.settings.sections.operations import Admin, AdminTls
from sidecar.telemetry.facts import Server, Trace
from sidecar.telemetry.snapshots import DataPlane, Snapshot
from tests.harness.certificates import Certificates, make_certificates
from tests.harness.structs import filled

TOKEN = "a-token-of-twenty-ch"
JSON = {"Content-Type": "application/json"}

TRACE = {
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "parent_id": None,
    "name": "GET",
    "time": 1.0,
    "duration_ms": 0.2,
    "why": ["slow"],
    "error": None,
    "spans": [],
}
UP = {"links": {"up": True}, "clients": {"connected": 2}, "commands": {"bounds": [0.001]}}


def trace(**facts: object) -> Trace:
    return Trace(**(TRACE | facts))


class Parts:
    """What the admin server sees of a sidecar: functions over plain data."""

    def __init__(self) -> None:
        self.checks = {"serving": True, "upstream": True}
        self.plane: dict[str, Any] = dict(UP)
        self.done: list[str] = []
        self.allowed = True
        self.traced: list[Trace] = []

    def ready(self) -> Mapping[str, bool]:
        return self.checks

    def snapshot(self) -> Snapshot:
        return Snapshot(data_plane=filled(DataPlane, **self.plane))

    async def topology(self) -> Topology:
        return filled(Topology, master="127.0.0.1:1", phase="serving")

    async def server(self) -> Server:
        return Server(role="master")

    def recent(self, most: int, why: str = "") -> Sequence[Trace]:
        return [trace for trace in self.traced if not why or why in trace.why][:most]

    async def drain(self) -> Draining:
        if not self.allowed:
            raise RefusedError("not now")
        self.done.append("drain")
        return Draining(draining=True, timeout_s=10.0)

    def server_for(self, settings: Admin) -> AdminServer:
        sources = Sources(
            ready=self.ready,
            snapshot=self.snapshot,
            topology=self.topology,
            server=self.server,
            traces=self,
        )
        return AdminServer(settings, sources, Actions(drain=self.drain))


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def http(parts: Parts) -> AsyncIterator[ClientSession]:
    server = parts.server_for(Admin(listen="127.0.0.1:0"))
    await server.start()
    async with ClientSession(server.url) as session:
        yield session
    await server.stop()


@pytest.fixture
async def locked(parts: Parts) -> AsyncIterator[ClientSession]:
    """One that wants a token."""
    server = parts.server_for(Admin(listen="127.0.0.1:0", token=TOKEN))
    await server.start()
    async with ClientSession(server.url) as session:
        yield session
    await server.stop()


async def fetch(
    http: ClientSession, path: str, accept: str = "*/*", **headers: str
) -> tuple[int, str, str]:
    async with http.get(path, headers={"Accept": accept, **headers}) as answer:
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def post(http: ClientSession, path: str, **headers: str) -> int:
    async with http.post(path, data=b"{}", headers={**JSON, **headers}) as answer:
        return answer.status


# Probes and metrics


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
async def test_live_even_when_the_backend_is_not(
    http: ClientSession, parts: Parts, path: str
) -> None:
    parts.checks["upstream"] = False
    assert (await fetch(http, path))[:2] == (200, "ok\n")


async def test_ready_when_every_check_holds(http: ClientSession, parts: Parts) -> None:
    assert (await fetch(http, "/readyz"))[:2] == (200, "ok\n")
    verbose = "[+] serving\n[+] upstream\nok\n"
    assert (await fetch(http, "/readyz?verbose"))[:2] == (200, verbose)
    parts.checks["upstream"] = False
    assert (await fetch(http, "/readyz"))[:2] == (503, "not ready\n")
    verbose = "[+] serving\n[-] upstream\nnot ready\n"
    assert (await fetch(http, "/readyz?verbose"))[:2] == (503, verbose)


async def test_metrics_in_both_formats(http: ClientSession, parts: Parts) -> None:
    status, text, content_type = await fetch(http, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert "sidecar_client_connections 2.0\n" in text
    parts.plane["clients"] = {"connected": 5}
    _, text, content_type = await fetch(http, "/metrics", "application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert "sidecar_client_connections 5.0\n" in text
    assert text.endswith("# EOF\n")


# The API


async def test_health_in_one_word_and_its_reasons(http: ClientSession, parts: Parts) -> None:
    status, text, _ = await fetch(http, "/api/health/redis")
    assert (status, json.loads(text)["status"], json.loads(text)["reasons"]) == (200, "ok", [])
    parts.plane["held"] = {"clients": 3}
    status, text, _ = await fetch(http, "/api/health/redis")
    assert (status, json.loads(text)["status"]) == (200, "degraded")
    assert json.loads(text)["reasons"] == ["3 clients wait for a master"]
    parts.plane["links"] = {"up": False}
    status, text, _ = await fetch(http, "/api/health/redis")
    assert (status, json.loads(text)["status"]) == (503, "down")


async def test_traces_are_shown(http: ClientSession, parts: Parts) -> None:
    parts.traced = [trace(), trace(trace_id="0")]
    assert json.loads((await fetch(http, "/api/traces?count=1"))[1]) == {"traces": [TRACE]}
    parts.traced.insert(0, trace(why=["sampled"]))
    (why,) = TRACE["why"]
    assert json.loads((await fetch(http, f"/api/traces?count=1&why={why}"))[1]) == {
        "traces": [TRACE]
    }
    status, text, _ = await fetch(http, "/api/traces?why=because")
    assert (status, json.loads(text)) == (
        400,
        {"error": "why is one of sampled, slow, failed, internal"},
    )


@pytest.mark.parametrize("count", ["0", "-1", "x", "", "1001", "1&count=2", "9" * 30])
async def test_a_count_out_of_range(http: ClientSession, count: str) -> None:
    status, text, _ = await fetch(http, f"/api/hotkeys?count={count}")
    assert status == 400
    assert "write a number from 1 to 1000" in json.loads(text)["error"]


async def test_errors_are_json(http: ClientSession) -> None:
    assert (await fetch(http, "/nothing"))[:2] == (404, '{"error": "not found"}')
    async with http.post("/livez", data=b"{}", headers=JSON) as answer:
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]
    async with http.get("/api/drain") as answer:
        assert answer.status == 405


async def test_the_document_names_every_route(http: ClientSession) -> None:
    document = json.loads((await fetch(http, "/api/openapi.json"))[1])
    named = {(m.upper(), path) for path, each in document["paths"].items() for m in each}
    assert named == {(route.method, route.path) for route in ROUTES}


async def test_a_live_stream(http: ClientSession, parts: Parts) -> None:
    parts.traced = [trace()]
    async with http.get("/api/events") as answer:
        events: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while events.get("stats", {}).get("point") is None:
                name = (await answer.content.readline()).decode().removeprefix("event: ").strip()
                data = (await answer.content.readline()).decode().removeprefix("data: ")
                await answer.content.readline()
                events[name] = json.loads(data)
    assert next(iter(events)) == "hello"
    assert events["traces"] == [TRACE]
    assert events["health"]["status"] == "ok"
    assert events["stats"]["point"]["clients"] == 2


async def test_too_many_listeners(http: ClientSession) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with ClientSession(http._base_url, connector=connector) as many:
        answers = [await many.get("/api/events") for _ in range(33)]
        assert [answer.status for answer in answers] == [200] * 32 + [503]
        for answer in answers:
            answer.close()


async def test_a_listener_that_does_not_read_is_left_behind(monkeypatch: Any) -> None:
    """Its stream ends; others go on."""
    monkeypatch.setattr("sidecar.admin.events.BACKLOG", 3)
    monkeypatch.setattr("sidecar.admin.events.EVERY", 0.02)
    events = Events(
        Sources(), Recorder(), Introduction(instance="1", name="", version="0", started=0.0)
    )
    events.start()
    slow, quick = events.listen(), events.listen()
    assert (await anext(slow)).startswith(b"event: hello")
    told = 0
    async with asyncio.timeout(10):
        async for _ in quick:
            told += 1
            if told == 30:
                break
        left = [said async for said in slow]
    assert len(left) <= 4
    await quick.aclose()
    await events.stop()


async def test_streams_end_with_the_server(parts: Parts) -> None:
    server = parts.server_for(Admin(listen="127.0.0.1:0"))
    await server.start()
    async with ClientSession(server.url) as http, http.get("/api/events") as answer:
        await answer.content.readline()
        async with asyncio.timeout(0.9):
            await server.stop()
            assert (await answer.content.read()).endswith(b"event: bye\ndata: {}\n\n")


# Who may ask


async def test_actions(http: ClientSession, parts: Parts) -> None:
    assert await post(http, "/api/drain") == 200
    assert parts.done == ["drain"]
    parts.allowed = False
    assert await post(http, "/api/drain") == 409
    assert await post(http, "/api/failover") == 409
    async with http.post("/api/drain", data=b'{"now": 1}', headers=JSON) as answer:
        assert answer.status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_other_sites_change_nothing(
    http: ClientSession, parts: Parts, headers: dict[str, str], status: int
) -> None:
    assert await post(http, "/api/drain", **headers) == status
    assert parts.done == []


async def test_the_page_itself_may(http: ClientSession, parts: Parts) -> None:
    own = {"Origin": str(http._base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert await post(http, "/api/drain", **own) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:9", 200),
        ("[::1]:80", 200),
        ("10.0.0.7:6381", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:6381", 403),
        ("[", 403),
    ],
)
async def test_unknown_host_names(http: ClientSession, host: str, status: int) -> None:
    """A name that somebody else has resolve to this address is not answered."""
    assert (await fetch(http, "/api/stats", Host=host))[0] == status


async def test_a_token(locked: ClientSession, parts: Parts) -> None:
    good = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/livez", "/readyz", "/healthz", "/", "/web/app.js"):
        assert (await fetch(locked, path))[0] == 200
    for path in ("/metrics", "/api/stats", "/api/events", "/api/openapi.json", "/nothing"):
        assert (await fetch(locked, path))[0] == 401
    for wrong in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é"):
        assert (await fetch(locked, "/metrics", Authorization=wrong))[0] == 401
    assert (await fetch(locked, "/metrics", **good))[0] == 200
    assert await post(locked, "/api/drain") == 401
    assert parts.done == []
    assert await post(locked, "/api/drain", **good) == 200
    # A name is no danger then: another site does not have the token.
    assert (await fetch(locked, "/api/stats", Host="sidecar.example", **good))[0] == 200


async def test_what_is_around_sees_refusals(parts: Parts) -> None:
    seen: list[tuple[str, int]] = []

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        seen.append((request.path, response.status))
        return response

    settings = Admin(listen="127.0.0.1:0", token=TOKEN)
    server = AdminServer(settings, around=[note])
    await server.start()
    async with ClientSession(server.url) as http:
        assert await post(http, "/api/drain") == 401
        assert (await fetch(http, "/livez"))[0] == 200
    await server.stop()
    assert seen == [("/api/drain", 401), ("/livez", 200)]


async def test_what_protects_in_a_browser(http: ClientSession) -> None:
    async with http.get("/api/stats") as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with http.get("/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        page, etag = await answer.text(), answer.headers["ETag"]
    assert "<script>" not in page
    assert "style=" not in page
    async with http.get("/", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    assert (await fetch(http, "/web/../server.py"))[0] == 404
    assert (await fetch(http, "/web/%2e%2e/server.py"))[0] == 404


# The address


async def test_a_port_in_use_is_an_os_error(parts: Parts) -> None:
    first = parts.server_for(Admin(listen="127.0.0.1:0"))
    await first.start()
    taken = first.url.removeprefix("http://")
    with pytest.raises(OSError, match="in use"):
        await parts.server_for(Admin(listen=taken)).start()
    await first.stop()
    await first.stop()
    host, port = taken.split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


def test_bad_addresses(parts: Parts) -> None:
    with pytest.raises(ValueError, match="no port"):
        parts.server_for(Admin(listen="127.0.0.1"))
    for public in ("0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:0"):
        with pytest.raises(ValueError, match="token"):
            parts.server_for(Admin(listen=public))
        parts.server_for(Admin(listen=public, token=TOKEN))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


async def test_tls_and_another_certificate(parts: Parts, certificates: Certificates) -> None:
    """A reload changes what new connections see; files that are no good change nothing."""
    folder = certificates.ca.parent
    cert, key = folder / "used.crt", folder / "used.key"
    cert.write_bytes(certificates.server.cert.read_bytes())
    key.write_bytes(certificates.server.key.read_bytes())
    tls = AdminTls(cert_file=str(cert), key_file=str(key))
    settings = Admin(listen="localhost:0", tls=tls)
    server = parts.server_for(settings)
    await server.start()
    trusting = certificates.client_context()

    async def shown() -> str:
        async with ClientSession(server.url) as http, http.get("/livez", ssl=trusting) as answer:
            return await answer.text()

    assert server.url.startswith("https://")
    assert await shown() == "ok\n"
    cert.write_bytes(certificates.stranger.cert.read_bytes())
    with pytest.raises(ssl.SSLError):
        server.reload(settings)
    assert await shown() == "ok\n"
    key.write_bytes(certificates.stranger.key.read_bytes())
    server.reload(settings)
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await shown()
    await server.stop()
