"""A cluster with Sentinels for each file that asks for one. A file names its options as CLUSTER."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.failover import repaired
from tests.harness.sentinels import Cluster


@pytest.fixture(scope="module")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One cluster for the file."""
    with Cluster(**getattr(request.module, "CLUSTER", {})) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """All of it running and in agreement, and empty."""
    return repaired(shared_cluster)
