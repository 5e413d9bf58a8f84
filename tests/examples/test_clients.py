"""The examples of clients, each run as its head says, through a real sidecar.

Packages that the project does not need otherwise are installed once, into `build/`; when that fails
the test is skipped and says why.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import npm, pypi
from tests.harness.pair import Pair
from tests.harness.process import Process, free_port, wait_until
from tests.harness.servers import Sidecar
from tests.harness.wire import call

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PACKAGES = ("celery==5.7.0", "django==5.2.19", "fastapi==0.165.0", "uvicorn==0.54.0")


@pytest.fixture(scope="session")
def packages() -> dict[str, str]:
    """An environment in which Celery, Django and FastAPI are found."""
    folder, problem = pypi.install("example-packages", PACKAGES)
    if problem:
        pytest.skip(f"Celery, Django and FastAPI NOT tested: {problem}")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder in which the scripts find their packages."""
    folder, problem = npm.install(Path(__file__).parent / "node", "example-node")
    if problem:
        pytest.skip(f"the examples for Node NOT tested: {problem}")
    return folder


@pytest.fixture
def sidecar(valkey_pair: Pair) -> Sidecar:
    """A sidecar before an empty Valkey."""
    return valkey_pair.sidecar


@pytest.fixture
def left(sidecar: Sidecar) -> Iterator[list[str]]:
    """Names of keys that an example may leave behind; other keys fail the test."""
    allowed: list[str] = []
    yield allowed
    assert not [key for key in keys(sidecar) if not any(re.match(each, key) for each in allowed)]


def keys(sidecar: Sidecar) -> list[str]:
    """The names of all keys."""
    found = call(sidecar.port, "KEYS", "*")
    assert isinstance(found, list)
    return [str(key) for key in found]


def lines(argv: list[str], env: dict[str, str] | None = None) -> list[str]:
    """What a program prints; it must end well, without a word on standard error."""
    done = subprocess.run(
        argv,
        cwd=EXAMPLES,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def node(script: str, folder: Path, url: str) -> list[str]:
    """Run a script of Node: it looks for packages beside itself."""
    copy = folder / f"{free_port()}-{script}"
    shutil.copy(EXAMPLES / script, copy)
    try:
        return lines(["node", str(copy), url])
    finally:
        copy.unlink()


@pytest.mark.usefixtures("left")
def test_redis_py(sidecar: Sidecar) -> None:
    assert lines([sys.executable, "redis_py.py", sidecar.url]) == [
        "GET greeting: hello",
        "pipeline: [1, 2, 3, ['0', '1', '2']]",
        "transaction: [True, 'hello, world']",
        "message: it works",
    ]


@pytest.mark.usefixtures("left")
def test_node_redis(sidecar: Sidecar, node_modules: Path) -> None:
    assert node("node-redis.mjs", node_modules, sidecar.url) == [
        "GET greeting: hello",
        "transaction: [ 1, 'hello' ]",
        "message: it works",
    ]


@pytest.mark.usefixtures("left")
def test_ioredis(sidecar: Sidecar, node_modules: Path) -> None:
    assert node("ioredis.mjs", node_modules, sidecar.url) == [
        "GET greeting: hello",
        "pipeline: [ 3, [ '0', '1', '2' ] ]",
        "transaction: [ 1, 'hello' ]",
        "message: it works",
    ]


@pytest.mark.usefixtures("left")
def test_bullmq(sidecar: Sidecar, node_modules: Path) -> None:
    """A job is tried again, another one is delayed; BullMQ's scripts and blocking commands work."""
    assert node("bullmq.mjs", node_modules, sidecar.url) == [
        "results: [ 2, 4, 6, 20 ]",
        "completed: 4 failed: 0",
    ]


@pytest.mark.usefixtures("left")
def test_django(sidecar: Sidecar, packages: dict[str, str]) -> None:
    assert lines([sys.executable, "django_cache.py", sidecar.url], packages) == [
        "get: {'en': 'hello'}",
        "get_many: {'one': 1, 'two': 2}",
        "add: False incr: 2 touch: True",
        "computed once: 42",
        "session: 17",
    ]


def test_celery(sidecar: Sidecar, packages: dict[str, str], left: list[str]) -> None:
    """A worker takes tasks and gives results; Celery leaves results until they expire."""
    left += [r"_kombu\.binding", "celery-task-meta-", "celery-taskset-meta-", "unacked_mutex"]
    env = {**packages, "REDIS_URL": sidecar.url}
    argv = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--loglevel", "info"]
    with Process("celery") as worker:
        worker.spawn([*argv, "--pool", "solo", "--without-mingle"], env, cwd=EXAMPLES)
        worker.wait_ready(lambda: "ready." in worker.log(), 60)
        assert lines([sys.executable, "celery_tasks.py"], env) == ["one task: 5", "a chord: 90"]
        assert worker.stop() == 0
    assert [key for key in keys(sidecar) if key.startswith("celery-task-meta-")]


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("script", ["aiohttp_sessions.py", "fastapi_sessions.py"])
def test_sessions(sidecar: Sidecar, script: str, request: pytest.FixtureRequest) -> None:
    """Two visits with the cookie of the first, and one without a cookie."""
    port = free_port()
    env = request.getfixturevalue("packages") if script.startswith("fastapi") else {}
    with Process("application", port) as application:
        application.spawn([sys.executable, script, sidecar.url, str(port)], env, cwd=EXAMPLES)
        wait_until(lambda: ask(port, "DELETE", "")[0] == 204, "listens", 20, (OSError,))
        _, visits, cookie = ask(port, "GET", "")
        assert (visits, cookie.partition("=")[0]) == (1, "session")
        assert ask(port, "GET", cookie)[:2] == (200, 2)
        assert ask(port, "GET", "")[:2] == (200, 1)
        sessions = keys(sidecar)
        assert len(sessions) == 2
        for key in sessions:
            assert 0 < call(sidecar.port, "TTL", key) <= 1800
            assert ask(port, "DELETE", key.replace(":", "=", 1))[0] == 204
        # uvicorn ends in order, and then by the signal.
        assert application.stop() in (0, -signal.SIGTERM)


def ask(port: int, method: str, cookie: str) -> tuple[int, int, str]:
    """Status, number of visits, and the cookie that the application answers with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, "/", headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        body = answer.read()
        cookie = answer.getheader("Set-Cookie", "").partition(";")[0]
        return answer.status, json.loads(body)["visits"] if body else 0, cookie
    finally:
        connection.close()
