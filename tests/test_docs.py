"""The written pages against the files and tables that they talk about.

`settings/test_load.py` checks docs/configuration.md and config/full.toml against the settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from sidecar.telemetry import metrics_docs
from sidecar.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[1]
MADE = {"build", "dist", "node_modules", "results"}

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every Markdown file of the project."""
    return [
        page
        for page in sorted(ROOT.rglob("*.md"))
        if not any(part in MADE or part.startswith(".") for part in page.relative_to(ROOT).parts)
    ]


def prose(page: Path) -> str:
    """A page without its code."""
    return _CODE.sub(" ", page.read_text())


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(text.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Relative links name files that exist, and headings that exist in them."""
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / unquote(path) if path else page
        missing = fragment and target.suffix == ".md" and fragment not in anchors(target)
        if not target.exists() or missing:
            broken.append(link)
    assert not broken


def test_pages_are_listed() -> None:
    """The index of the documentation leads to every page, that of the decisions to each record."""
    for folder in (ROOT / "docs", ROOT / "docs/decisions"):
        linked = set(_LINK.findall(prose(folder / "README.md")))
        assert {page.name for page in folder.glob("*.md")} - {"README.md"} <= linked


@pytest.mark.parametrize("page", ["compatibility", "security"])
def test_pages_name_tests_that_exist(page: str) -> None:
    """A difference is only on purpose if a test holds it; so is a threat only met."""
    named = set(re.findall(r"`(tests/[\w/.]+)`", (ROOT / f"docs/{page}.md").read_text()))
    assert named
    missing = {name for name in named if name.endswith(".py") and not (ROOT / name).is_file()}
    assert not missing


def test_the_page_of_metrics_is_up_to_date() -> None:
    """`make docs-pages` writes it from the table."""
    assert (ROOT / "docs/metrics.md").read_text() == metrics_docs.page()


def test_metrics_named_to_operators_exist() -> None:
    names = {metric.name for metric in METRICS}
    text = (ROOT / "docs/operations.md").read_text()
    named = set(re.findall(r"`(sidecar_[a-z_]+)[{`]", text))
    assert "sidecar_upstream_up" in named
    assert named <= names


def test_every_reason_of_a_closed_client_is_documented() -> None:
    """The values of the label `reason`."""
    text = (ROOT / "docs/operations.md").read_text()
    sources = [*(ROOT / "sidecar/proxy").rglob("*.pyx"), *(ROOT / "sidecar/proxy").rglob("*.py")]
    reasons = {
        reason for file in sources for reason in re.findall(r'\.close\("(\w+)"\)', file.read_text())
    }
    assert "limit" in reasons
    assert not [reason for reason in reasons if f"`{reason}`" not in text]


def sources() -> set[str]:
    """The program's source files, as paths below `sidecar/`: packages and `.pxd` headers aside."""
    root = ROOT / "sidecar"
    files = {*root.rglob("*.py"), *root.rglob("*.pyx")}
    files |= {file for file in root.rglob("*.pxd") if not file.with_suffix(".pyx").exists()}
    return {str(file.relative_to(root)) for file in files if file.name != "__init__.py"}


def test_the_architecture_names_each_file_once() -> None:
    """A commit that adds, moves or removes a file says so on that page."""
    text = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|pyx|pxd))`", text)
    assert {"gone": sorted(set(named) - sources()), "missing": sorted(sources() - set(named))} == {
        "gone": [],
        "missing": [],
    }
    assert sorted(named) == sorted(set(named)), "a file is named twice"
