"""The credential helpers of examples/credentials, run as the sidecar runs them.

Stand-ins for the clouds' endpoints check the form of what they are asked. What is signed for AWS is
checked twice: against vectors of the published test suite, and by a second way to the signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import pytest

from tests.harness.servers import Sidecar, valkey
from tests.harness.wire import Wire

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "credentials"
AWS = ("aws.py", "--user", "app", "--cache", "orders", "--region", "eu-west-1")
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a+secret/key"}


@dataclass
class Asked:
    """A request that the stand-in got."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Cloud:
    """A stand-in for a metadata server or a token service: `answers` by method and path."""

    port: int = 0
    answers: dict[str, str | dict[str, Any] | int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            split = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            query, form = dict(parse_qsl(split.query)), dict(parse_qsl(text))
            cloud.asked.append(Asked(self.command, split.path, query, headers, form))
            answer = cloud.answers.get(f"{self.command} {split.path}", 404)
            self.send_response(answer if isinstance(answer, int) else 200)
            if answer == 302:
                self.send_header("Location", f"{cloud.url}/elsewhere")
            self.end_headers()
            if not isinstance(answer, int):
                body = answer if isinstance(answer, str) else json.dumps(answer)
                self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cloud.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield cloud
    server.shutdown()
    server.server_close()
    thread.join()


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A helper, in an environment without anything of this machine's. A proxy is never used for
    what is local."""
    name, *rest = words
    proxy = {"http_proxy": "http://127.0.0.1:1"} if "AWS_ENDPOINT_URL_STS" not in env else {}
    plain = {"PATH": os.environ["PATH"], **proxy, **env}
    argv = [sys.executable, str(FOLDER / name), *rest]
    return subprocess.run(argv, env=plain, capture_output=True, text=True, timeout=30, check=False)


def given(*words: str, **env: str) -> dict[str, Any]:
    """What a helper prints."""
    done = run(*words, **env)
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, Any] = json.loads(done.stdout)
    assert set(said) == {"username", "password", "expires_in"}
    return said


def failed(*words: str, **env: str) -> str:
    """The one line of a helper that fails."""
    done = run(*words, **env)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def temporary(life: timedelta = timedelta(hours=1)) -> dict[str, str]:
    """Keys as AWS hands them out for a while."""
    until = (datetime.now(UTC) + life).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s3cr3t"}
    return {**keys, "Token": "to/ken+==", "Expiration": until}


# AWS


def signature_of(token: str, secret: str) -> str:
    """The signature that a token should have: from the token, as the service does it."""
    host, _, query = token.partition("/?")
    pairs = [pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature=")]
    values = {name: unquote(value) for name, _, value in (p.partition("=") for p in pairs)}
    _, day, region, service, end = values["X-Amz-Credential"].split("/")
    lines = ["GET", "/", "&".join(sorted(pairs)), f"host:{host}", "", "host"]
    request = "\n".join([*lines, hashlib.sha256().hexdigest()])
    digest = hashlib.sha256(request.encode()).hexdigest()
    scope = f"{day}/{region}/{service}/{end}"
    text = "\n".join([values["X-Amz-Algorithm"], values["X-Amz-Date"], scope, digest])

    def mac(key: bytes, said: str) -> bytes:
        return hmac.new(key, said.encode(), hashlib.sha256).digest()

    key = mac(mac(mac(mac(b"AWS4" + secret.encode(), day), region), service), end)
    return mac(key, text).hex()


def checked(said: dict[str, Any], secret: str) -> dict[str, str]:
    """The fields of a token whose form and signature are right."""
    token = said["password"]
    assert not token.startswith("http")
    fields = {name: value for name, (value,) in parse_qs(urlsplit(f"http://{token}").query).items()}
    assert fields["X-Amz-Signature"] == signature_of(token, secret)
    at = datetime.strptime(fields["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=60)
    assert (fields["X-Amz-Expires"], fields["X-Amz-SignedHeaders"]) == ("900", "host")
    return fields


def test_vectors_of_the_published_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get-vanilla-query-order-key-case` and `get-vanilla-with-session-token`, query form."""
    monkeypatch.syspath_prepend(str(FOLDER))
    aws: Any = importlib.import_module("aws")
    secret, at = (
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
    )
    known = {
        "": (
            {"Param2": "value2", "Param1": "value1"},
            "86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5",
        ),
        "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267": (
            {},
            "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c",
        ),
    }
    for session, (query, signature) in known.items():
        token = aws.presigned(
            aws.Keys("AKIDEXAMPLE", secret, session),
            "example.amazonaws.com",
            query,
            service="service",
            region="us-east-1",
            at=at,
            lifetime=3600,
        )
        assert token.endswith(f"&X-Amz-Signature={signature}")
        assert signature_of(token, secret) == signature


@pytest.mark.parametrize(
    ("words", "service", "kind"),
    [
        ((), "elasticache", None),
        (("--serverless",), "elasticache", "ServerlessCache"),
        (("--service", "memorydb"), "memorydb", None),
    ],
)
def test_aws_with_keys_of_the_environment(
    words: tuple[str, ...], service: str, kind: str | None
) -> None:
    said = given(*AWS, *words, **KEYS, AWS_SESSION_TOKEN="a/b+c=")
    fields = checked(said, KEYS["AWS_SECRET_ACCESS_KEY"])
    assert said["password"].startswith("orders/?Action=connect&")
    assert (said["username"], said["expires_in"], fields["User"]) == ("app", 900, "app")
    scope = f"AKIDEXAMPLE/{fields['X-Amz-Date'][:8]}/eu-west-1/{service}/aws4_request"
    assert fields["X-Amz-Credential"] == scope
    assert (fields["X-Amz-Security-Token"], fields.get("ResourceType")) == ("a/b+c=", kind)


def test_aws_with_metadata_of_the_instance(cloud: Cloud) -> None:
    """Version 2: first a session, then the role, then its keys. They end before the token."""
    path = "/latest/meta-data/iam/security-credentials/"
    cloud.answers = {
        "PUT /latest/api/token": "session",
        f"GET {path}": "my-role",
        f"GET {path}my-role": temporary(timedelta(seconds=300)),
    }
    said = given(*AWS, AWS_EC2_METADATA_SERVICE_ENDPOINT=cloud.url)
    assert checked(said, "s3cr3t")["X-Amz-Security-Token"] == "to/ken+=="
    assert 280 < said["expires_in"] <= 300
    put, *gets = cloud.asked
    assert put.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "60"
    assert {each.headers["x-aws-ec2-metadata-token"] for each in gets} == {"session"}


def test_aws_in_a_container(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("pod-token\n")
    cloud.answers = {"GET /v1/credentials": temporary()}
    env = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
    }
    assert checked(given(*AWS, **env), "s3cr3t")["X-Amz-Credential"].startswith("ASIAEXAMPLE/")
    assert cloud.asked[0].headers["authorization"] == "pod-token"


def test_aws_with_a_web_identity(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the.jwt")
    keys = temporary()
    body = "".join(
        f"<{name}>{keys[key]}</{name}>"
        for name, key in {**dict(zip(keys, keys, strict=True)), "SessionToken": "Token"}.items()
        if name != "Token"
    )
    space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
    cloud.answers = {"POST /": f"<R {space}><Credentials>{body}</Credentials></R>"}
    env = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
        "AWS_ENDPOINT_URL_STS": cloud.url,
    }
    assert checked(given(*AWS, **env), "s3cr3t")["X-Amz-Security-Token"] == "to/ken+=="
    assert cloud.asked[0].form == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::1:role/r",
        "RoleSessionName": "redis-sidecar",
        "WebIdentityToken": "the.jwt",
    }


def test_aws_fails_with_one_line(cloud: Cloud) -> None:
    """None of them shows a secret."""
    instance = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url}
    assert "no region" in failed(*AWS[:-2], **KEYS)
    assert "answers with status 404" in failed(*AWS, **instance)
    far = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://192.0.2.1/"}
    assert "must be https" in failed(*AWS, **far)
    assert "no keys" in failed(*AWS, AWS_EC2_METADATA_DISABLED="true")
    cloud.answers = {"GET /keys": {"SecretAccessKey": "s3cr3t", "Expiration": "soon"}}
    near = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/keys"}
    assert "s3cr3t" not in failed(*AWS, **near)
    cloud.answers = {"GET /keys": temporary(timedelta(seconds=-5))}
    assert "expired already" in failed(*AWS, **near)


# Azure


def jwt(**claims: str) -> str:
    """A token with these claims; nobody here checks its signature."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts), "sig"])


TOKEN = jwt(oid="11-22", aud="https://redis.azure.com")


def test_azure_managed_identity_of_a_machine(cloud: Cloud) -> None:
    cloud.answers = {
        "GET /metadata/identity/oauth2/token": {"access_token": TOKEN, "expires_in": "3599"}
    }
    env = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": cloud.url}
    said = given("azure.py", **env)
    assert said == {"username": "11-22", "password": TOKEN, "expires_in": 3599}
    given("azure.py", **env, AZURE_CLIENT_ID="the-id")
    system, chosen = cloud.asked
    query = {"api-version": "2018-02-01", "resource": "https://redis.azure.com"}
    assert (system.query, system.headers["metadata"]) == (query, "true")
    assert chosen.query == {**query, "client_id": "the-id"}


def test_azure_managed_identity_of_an_app(cloud: Cloud) -> None:
    """It says when the token ends, not how long it lasts."""
    cloud.answers = {"GET /msi": {"access_token": TOKEN, "expires_on": str(time.time() + 600)}}
    said = given("azure.py", IDENTITY_ENDPOINT=f"{cloud.url}/msi", IDENTITY_HEADER="proof")
    assert 580 < said["expires_in"] <= 600
    assert cloud.asked[0].headers["x-identity-header"] == "proof"


def test_azure_workload_identity(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("federated.jwt\n")
    cloud.answers = {"POST /tenant/oauth2/v2.0/token": {"access_token": TOKEN, "expires_in": 86399}}
    env = {
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
        "AZURE_TENANT_ID": "tenant",
        "AZURE_AUTHORITY_HOST": f"{cloud.url}/",
        "no_proxy": "127.0.0.1",
    }
    said = given("azure.py", **env, AZURE_CLIENT_ID="app-id")
    assert (said["username"], said["expires_in"]) == ("11-22", 86399)
    assert cloud.asked[0].form == {
        "grant_type": "client_credentials",
        "client_id": "app-id",
        "scope": "https://redis.azure.com/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "federated.jwt",
    }
    assert "AZURE_CLIENT_ID is not" in failed("azure.py", **env)


@pytest.mark.parametrize("token", ["no-token", jwt(sub="x"), "a.b.c"])
def test_azure_without_a_user(cloud: Cloud, token: str) -> None:
    cloud.answers = {
        "GET /metadata/identity/oauth2/token": {"access_token": token, "expires_in": 1}
    }
    line = failed("azure.py", AZURE_POD_IDENTITY_AUTHORITY_HOST=cloud.url)
    assert "no object id" in line
    assert token not in line


# Google


def test_gcp(cloud: Cloud) -> None:
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    cloud.answers = {f"GET {path}": {"access_token": "ya29.x", "expires_in": 3599}}
    said = given("gcp.py", GCE_METADATA_HOST=f"127.0.0.1:{cloud.port}")
    assert said == {"username": "default", "password": "ya29.x", "expires_in": 3599}
    assert cloud.asked[0].headers["metadata-flavor"] == "Google"


def test_what_a_service_may_answer(cloud: Cloud) -> None:
    """Whatever it is: one line, without what was said; and no redirection is followed."""
    path = "GET /computeMetadata/v1/instance/service-accounts/default/token"
    for answer, why in (
        ("ya29.secret", "not a JSON object"),
        ('["ya29.secret"]', "not a JSON object"),
        ({"access_token": "ya29.secret"}, "no number expires_in"),
        ({"access_token": 7, "expires_in": 1}, "no access_token"),
        (302, "status 302"),
        (500, "status 500"),
    ):
        cloud.answers = {path: answer}
        line = failed("gcp.py", GCE_METADATA_HOST=f"127.0.0.1:{cloud.port}")
        assert why in line
        assert "ya29" not in line
    assert not any(each.path == "/elsewhere" for each in cloud.asked)


# With the sidecar


def test_the_sidecar_takes_them(cloud: Cloud) -> None:
    """The token of a stand-in opens a server."""
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    cloud.answers = {f"GET {path}": {"access_token": "ya29.x", "expires_in": 3599}}
    command = json.dumps([sys.executable, str(FOLDER / "gcp.py")])
    env = {"GCE_METADATA_HOST": f"127.0.0.1:{cloud.port}"}
    settings = {"upstream.credential_command": command}
    with (
        valkey({"requirepass": "ya29.x"}) as server,
        Sidecar(server.url, settings=settings, env=env) as sidecar,
        Wire(sidecar.port) as client,
    ):
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"
