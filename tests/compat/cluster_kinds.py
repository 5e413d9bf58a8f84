"""The servers that tests of clusters are run on."""

from __future__ import annotations

import pytest

KINDS = [
    "valkey",
    pytest.param("redis7", marks=[pytest.mark.redis, pytest.mark.slow]),
    pytest.param("redis8", marks=[pytest.mark.slow]),
]
