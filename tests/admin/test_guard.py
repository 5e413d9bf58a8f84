"""Who may do what at the admin port: tokens with roles, a file of tokens, client certificates."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession

from sidecar.admin.answers import Draining
from sidecar.admin.audited_calls import AuditedCalls
from sidecar.admin.server import AdminServer
from sidecar.admin.sources import Actions
from sidecar.admin.tokens import Tokens
from sidecar.settings.sections.operations import Admin, AdminTls
from sidecar.settings.tokens import Token, parse_tokens
from sidecar.telemetry.audit import Audit
from tests.harness.certificates import Certificates, make_certificates

OPERATE = "a-token-that-may-do-all"
READ = "a-token-that-may-read-x"
OTHER = "another-token-for-all-x"
JSON = {"Content-Type": "application/json"}


async def _drain() -> Draining:
    return Draining(draining=True, timeout_s=1.0)


def server_for(settings: Admin, audit: Audit | None = None) -> AdminServer:
    calls = AuditedCalls(audit) if audit is not None else None
    if calls is None:
        return AdminServer(settings, actions=Actions(drain=_drain))
    around = [calls.record]
    return AdminServer(settings, actions=Actions(drain=_drain), around=around, opened=calls.opened)


async def ask(
    server: AdminServer, method: str, path: str, token: str = "", tls: ssl.SSLContext | bool = True
) -> int:
    """The status of a request."""
    headers = {**JSON, **({"Authorization": f"Bearer {token}"} if token else {})}
    async with (
        ClientSession(server.url) as http,
        http.request(method, path, headers=headers, data=b"{}", ssl=tls) as answer,
    ):
        return answer.status


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminServer]:
    settings = Admin(listen="127.0.0.1:0", token=OPERATE, read_token=READ)
    server = server_for(settings)
    await server.start()
    yield server
    await server.stop()


async def test_roles(server: AdminServer) -> None:
    for token, reads, acts in ((OPERATE, 200, 200), (READ, 200, 403), (OTHER, 401, 401)):
        assert await ask(server, "GET", "/api/stats", token) == reads
        assert await ask(server, "GET", "/metrics", token) == reads
        assert await ask(server, "POST", "/api/drain", token) == acts
    assert await ask(server, "POST", "/api/drain") == 401
    assert await ask(server, "GET", "/livez") == 200
    assert server.counts().refused == {"token": 4, "role": 1, "host": 0, "site": 0}


async def test_a_file_that_changes(tmp_path: Path) -> None:
    """A new token works without a signal, and the old one no longer."""
    file = tmp_path / "tokens"
    file.write_text(f"# for people\n{OPERATE}\n\n{READ} read prometheus\n")
    server = server_for(Admin(listen="127.0.0.1:0", token_file=str(file)))
    await server.start()
    assert await ask(server, "POST", "/api/drain", OPERATE) == 200
    assert await ask(server, "POST", "/api/drain", READ) == 403
    new = tmp_path / "new"
    new.write_text(OTHER)
    new.rename(file)
    async with asyncio.timeout(10):
        while await ask(server, "GET", "/api/stats", OTHER) != 200:
            pass
    assert await ask(server, "GET", "/api/stats", OPERATE) == 401
    assert await ask(server, "GET", "/api/stats", READ) == 401
    await server.stop()


async def test_a_stream_ends_with_its_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{OPERATE}\n{READ} read\n")
    server = server_for(Admin(listen="127.0.0.1:0", token_file=str(file)))
    await server.start()
    async with (
        ClientSession(server.url) as http,
        http.get("/api/events", headers={"Authorization": f"Bearer {READ}"}) as gone,
        http.get("/api/events", headers={"Authorization": f"Bearer {OPERATE}"}) as stays,
        asyncio.timeout(10),
    ):
        file.write_text(OPERATE)
        assert (await gone.content.read()).startswith(b"event: hello\n"), "it has ended"
        while await stays.content.readline() != b"event: stats\n":
            pass
        assert server.counts().streams == 1
    await server.stop()


def test_a_file_that_is_no_good_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(OPERATE)
    tokens = Tokens(Admin(token_file=str(file)))
    known = tokens.find(OPERATE.encode())
    assert known == Token(OPERATE)
    for wrong in ("", "short\n", f"{OTHER} everything\n"):
        file.write_text(wrong)
        tokens.look()
        assert tokens.find(OPERATE.encode()) == known
        assert tokens.find(OTHER.encode()) is None
    file.unlink()
    tokens.look()
    assert tokens.find(OPERATE.encode()) == known
    file.write_text(OTHER)
    tokens.look()
    assert tokens.find(OPERATE.encode()) is None
    assert tokens.find(OTHER.encode()) == Token(OTHER)
    file.write_text("short")
    with pytest.raises(OSError, match="line 1"):
        Tokens(Admin(token_file=str(file)))


def test_a_file_of_tokens() -> None:
    text = f"{OPERATE}\n  {READ}  read  prometheus \r\n#{OTHER}\n{OTHER} operate deploy"
    assert parse_tokens(text) == (
        Token(OPERATE),
        Token(READ, "read", "prometheus"),
        Token(OTHER, "operate", "deploy"),
    )
    for wrong, why in (
        ("", "no token"),
        ("# nothing\n", "no token"),
        ("short", "line 1: a token has 16"),
        (f"{OPERATE}\n{READ} write", "line 2: the second word is no role"),
        (f"{READ} read one two", "line 1: after the role stands one name"),
    ):
        with pytest.raises(ValueError, match=why) as raised:
            parse_tokens(wrong)
        assert OPERATE not in str(raised.value)
        assert READ not in str(raised.value)
    assert OPERATE not in repr(Token(OPERATE))


# Client certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def with_tls(made: Certificates, **more: str) -> Admin:
    tls = AdminTls(
        cert_file=str(made.server.cert),
        key_file=str(made.server.key),
        ca_file=str(made.ca),
        **more,  # type: ignore[arg-type]
    )
    return Admin(listen="localhost:0", token=OPERATE, read_token=READ, tls=tls)


def contexts(made: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a client without a certificate, and of one with."""
    return made.client_context(), made.client_context(made.client)


@pytest.mark.parametrize(("role", "acts"), [("operate", 200), ("read", 403), ("none", 401)])
async def test_a_certificate_stands_for_a_token(
    made: Certificates, tmp_path: Path, role: str, acts: int
) -> None:
    anybody, known = contexts(made)
    audit = Audit(str(tmp_path / "audit"))
    settings = with_tls(made, client_auth="optional", client_role=role)
    server = server_for(settings, audit)
    await server.start()
    assert await ask(server, "GET", "/livez", tls=anybody) == 200
    assert await ask(server, "GET", "/api/stats", tls=anybody) == 401
    assert await ask(server, "POST", "/api/drain", tls=known) == acts
    assert await ask(server, "POST", "/api/drain", OPERATE, tls=anybody) == 200
    assert await ask(server, "POST", "/api/drain", READ, tls=known) == 403, "the token decides"
    assert await ask(server, "POST", "/api/drain", OTHER, tls=known) == 401
    await server.stop()
    users = [(record.result, record.user) for record in audit.recent(10)][::-1]
    audit.close()
    name = "" if role == "none" else "client"
    assert users == [
        ("401", ""),
        (str(acts), name),
        ("200", "operate"),
        ("403", "read"),
        ("401", ""),
    ]


async def test_certificates_that_are_required(made: Certificates) -> None:
    """The strangers' own certificate is none; a reload may ask for less."""
    anybody, known = contexts(made)
    stranger = made.client_context(made.stranger)
    server = server_for(with_tls(made, client_auth="required"))
    await server.start()
    assert await ask(server, "GET", "/api/stats", tls=known) == 200
    for refused in (anybody, stranger):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await ask(server, "GET", "/livez", tls=refused)
    server.reload(with_tls(made, client_auth="none"))
    assert await ask(server, "GET", "/livez", tls=anybody) == 200
    assert await ask(server, "GET", "/api/stats", tls=known) == 401
    await server.stop()


# The audit stream


async def test_what_is_audited(tmp_path: Path) -> None:
    """Every refusal, also of what is routine, and every live stream, when it begins."""
    file = tmp_path / "audit"
    audit = Audit(str(file))
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{OPERATE} operate deploy\n{READ} read\n")
    server = server_for(Admin(listen="127.0.0.1:0", token_file=str(tokens)), audit)
    await server.start()
    assert await ask(server, "GET", "/livez") == 200
    assert await ask(server, "GET", "/metrics", READ) == 200
    assert await ask(server, "GET", "/metrics") == 401
    assert await ask(server, "GET", "/api/events", OTHER) == 401
    headers = {"Authorization": f"Bearer {READ}"}
    async with ClientSession(server.url) as http, http.get("/api/events", headers=headers) as open_:
        assert open_.status == 200
        await open_.content.readline()
        newest = audit.recent(1)[0]
        assert (newest.detail, newest.result) == ("/api/events", "200"), "while it is open"
    assert await ask(server, "POST", "/api/drain", OPERATE) == 200
    await server.stop()
    audit.close()
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(each["detail"], each["result"], each.get("user", "")) for each in told] == [
        ("/metrics", "401", ""),
        ("/api/events", "401", ""),
        ("/api/events", "200", "read"),
        ("/api/drain", "200", "deploy"),
    ]
