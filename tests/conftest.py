"""Fixtures every test may use, and what a run says about itself.

Servers are shared by all tests of one xdist worker (session scope, started when first asked for)
and emptied before each test. A failed test shows what each child process logged during it. Tests
marked `redis` do not run where Debian's redis-server is absent; one line at the end names them.

With SIDECAR_WORKERS above 1, every sidecar that does not say otherwise has so many workers
(`make test-workers`). What asks for that which only a single process has is marked `one_worker`
with the reason: it does not run then, and is named at the end as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.harness.farm import Farm
from tests.harness.pair import Pair
from tests.harness.process import RUNNING
from tests.harness.servers import HAVE_REDIS7, WORKERS, Server
from tests.harness.wire import Wire

ABSENT = "Debian's redis-server is absent"
ONE_WORKER = "only a sidecar of one worker has it"
LOG_TAIL = 8000

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]


@pytest.fixture(scope="session")
def farm() -> Iterator[Farm]:
    """The worker's servers."""
    farm = Farm()
    yield farm
    farm.close()


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, farm: Farm) -> Pair:
    """A direct server and one behind a sidecar, both empty; once for each kind of server."""
    pair = farm.pair(request.param)
    pair.reset()
    return pair


@pytest.fixture(params=KINDS)
def auth_pair(request: pytest.FixtureRequest, farm: Farm) -> Pair:
    """As `pair`, with servers that want a password."""
    pair = farm.pair(request.param, "secret")
    pair.reset()
    return pair


@pytest.fixture
def valkey_pair(farm: Farm) -> Pair:
    """The same with Valkey alone, for tests whose subject is the sidecar and not the server."""
    pair = farm.pair("valkey")
    pair.reset()
    return pair


@pytest.fixture
def plain_server(farm: Farm) -> Server:
    """A Valkey without a sidecar, empty."""
    server = farm.server("valkey")
    with Wire(server.port) as wire:
        assert wire.cmd("FLUSHALL") == b"+OK\r\n"
    return server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a server that is not installed, or a sidecar of a single process."""
    for item in items:
        if not HAVE_REDIS7 and item.get_closest_marker("redis"):
            item.add_marker(pytest.mark.skip(reason=ABSENT))
        alone = item.get_closest_marker("one_worker")
        if alone is not None and WORKERS > 1:
            item.add_marker(pytest.mark.skip(reason=f"{ONE_WORKER}: {alone.args[0]}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember where each child's log ends."""
    for process in RUNNING:
        process.mark()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """Add to a failure what each child logged during the test."""
    report = yield
    if report.failed:
        for process in RUNNING:
            news = process.news().strip()
            if news:
                report.sections.append((f"log of {process.name}:{process.port}", news[-LOG_TAIL:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that did not run, and for want of what."""
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        why = re.search(f"{ABSENT}|{ONE_WORKER}: [^']*", str(report.longrepr))
        if why is not None:
            skipped.setdefault(why[0], []).append(report.nodeid)
    for why, names in sorted(skipped.items()):
        line = f"NOT RUN ({len(names)}), {why}: {', '.join(sorted(names))}"
        terminalreporter.write_line(line, yellow=True)
