"""Fixtures every test may use, and what a run says about itself.

Servers are shared by all tests of one xdist worker (session scope, started when first asked for)
and emptied before each test. A failed test shows what each child process logged during it. Tests
marked `redis` do not run where Debian's redis-server is absent; one line at the end names them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.farm import Farm
from tests.harness.pair import Pair
from tests.harness.process import RUNNING
from tests.harness.servers import HAVE_REDIS7, Server
from tests.harness.wire import Wire

ABSENT = "Debian's redis-server is absent"
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
    """Skip what needs a server that is not installed."""
    if HAVE_REDIS7:
        return
    for item in items:
        if item.get_closest_marker("redis"):
            item.add_marker(pytest.mark.skip(reason=ABSENT))


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
    """Name the tests that did not run for want of a server."""
    skipped = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if ABSENT in str(report.longrepr)
    ]
    if skipped:
        names = ", ".join(sorted(skipped))
        terminalreporter.write_line(f"NOT RUN ({len(skipped)}), {ABSENT}: {names}", yellow=True)
