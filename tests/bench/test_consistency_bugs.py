"""The deliberate bugs fit the source: each changes one place, which is there once."""

from __future__ import annotations

import pytest

from bench.consistency.bugs import BUGS, Bug
from tests.harness.programs import ROOT


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_its_place_is_there(bug: Bug) -> None:
    assert (ROOT / bug.file).read_text().count(bug.old) == 1
    assert bug.new != bug.old


def test_each_is_to_be_noticed_by_something() -> None:
    assert all(bug.load or bug.tests for bug in BUGS)
    assert len({bug.name for bug in BUGS}) == len(BUGS)
