"""`make bench-idle`: what it prints, and that it is what docs/servers.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import idle

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"


def table(text: str) -> dict[str, tuple[int, float]]:
    """Connections and commands a second, by setup."""
    rows = re.findall(r"^\| (.*?) \| (\d+) \| ([\d.]+) \| .*\|$", text, re.MULTILINE)
    return {name: (int(links), float(rate)) for name, links, rate in rows}


@pytest.mark.slow
@pytest.mark.one_worker("a row of the table has two workers, the others have one")
def test_an_idle_sidecar_costs_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    """In a short run: no more than twice of what a minute's run said, and a command."""
    assert idle.main(["--seconds", "2"]) == 0
    told, measured = table(PAGE.read_text()), table(capsys.readouterr().out)
    assert measured.keys() == told.keys()
    for name, (links, rate) in measured.items():
        assert 0 < links <= told[name][0] + 4, name
        assert rate <= 2 * told[name][1] + 1, name
