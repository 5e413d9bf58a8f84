"""A core with one shared link. A test file, or class, names the core's options as CORE."""

from __future__ import annotations

import pytest

from tests.native.loopback import Loopback
from tests.native.shell import table


@pytest.fixture
def core(request: pytest.FixtureRequest) -> Loopback:
    options = getattr(request.cls, "CORE", getattr(request.module, "CORE", {}))
    return Loopback(table(), **options)


@pytest.fixture
def link(core: Loopback) -> int:
    return core.add_link()
