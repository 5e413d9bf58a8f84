"""The documentation site: it is whole, every link leads somewhere, and it needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="the extra docs is not installed (make test installs it)")

ROOT = Path(__file__).parents[1]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and the anchors of a tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") not in ("index", "search", "next", "prev"):
            self.loads.append(values["href"])
        if tag in LOADING and LOADING[tag] in values:
            self.loads.append(values[LOADING[tag]])


def build(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does, from `source` into a folder of the test's own."""
    argv = ["-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs" / "site")]
    return subprocess.run(
        [sys.executable, *argv, "-d", str(folder / "work"), str(source), str(folder / "site")],
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """All pages of the site, by their files."""
    folder = tmp_path_factory.mktemp("site").resolve()
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return {file: Page(file) for file in (folder / "site").rglob("*.html")}


def inner(page: Page) -> Iterator[str]:
    """The links of a page that stay inside the site."""
    for link in page.links:
        if not urlsplit(link).scheme:
            yield link


def test_every_link_leads_somewhere(site: dict[Path, Page]) -> None:
    """Files, and anchors in pages: as a browser resolves them."""
    broken = []
    for file, page in site.items():
        for link in inner(page):
            path, _, fragment = link.partition("#")
            target = (file.parent / unquote(path)).resolve() if path else file
            known = target.is_file() and (
                not fragment or target not in site or unquote(fragment) in site[target].anchors
            )
            if not known:
                broken.append((file.name, link))
    assert len(site) > 50
    assert not broken


def test_the_home_page_leads_to_every_page(site: dict[Path, Page]) -> None:
    """By as many steps as it takes."""
    home = next(file for file in site if file.name == "index.html")
    reached, waiting = {home}, [home]
    while waiting:
        file = waiting.pop()
        for link in inner(site[file]):
            target = (file.parent / unquote(link.partition("#")[0])).resolve()
            if target in site and target not in reached:
                reached.add(target)
                waiting.append(target)
    own = {file for file in site if file.name not in ("genindex.html", "search.html")}
    assert own <= reached


def test_it_loads_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    """No font, script, style or picture of another host: it can be read without a network."""
    loads = {each for page in site.values() for each in page.loads}
    assert any(urlsplit(each).path.endswith(".js") for each in loads)
    assert not [each for each in loads if urlsplit(each).netloc]
    folder = next(file for file in site if file.name == "index.html").parent
    for style in folder.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text())


def test_a_page_that_no_list_names_fails(tmp_path: Path) -> None:
    """The warnings that make a build fail are not turned off. Two pages are enough to see it."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "README.md").write_text("# Home\n")
    (tmp_path / "examples" / "unlisted.md").write_text("# Unlisted\n\n[nowhere](nowhere.md)\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert re.search(r"unlisted\.md: WARNING: document isn't included in any toctree", done.stderr)
    assert "cross-reference target not found: 'nowhere.md'" in done.stderr
