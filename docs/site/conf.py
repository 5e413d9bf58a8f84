"""How Sphinx makes the documentation site (`make docs`): from the project's own Markdown files.

The pages are written for readers of the repository, and stay where they are: the root of the
repository is the source folder, so that a link from one page to another, or to a file, is the same
link in both places. A link that leads nowhere fails the build (`make docs` turns warnings into
errors). The site loads nothing from other hosts.

A page that docs/README.md does not list is a warning, too.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sidecar import __version__  # noqa: E402

HOME = "README"
LIST = "docs/README"
"""The page that lists all others: its headings and links, in their order, are the site's menu."""

FOLDERS = {
    "docs/runbooks/README": "docs/runbooks/Sidecar*",
    "docs/decisions/README": "docs/decisions/0*",
}
"""Pages that all pages of a folder stand below."""

project = "redis-sidecar"
version = release = __version__
root_doc = HOME
extensions = ["myst_parser"]
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/**.md",
    "bench/README.md",
    "certs/README.md",
    "config/**/README.md",
    "examples/**.md",
    "release/README.md",
]
exclude_patterns = [".*", "build", "dist", "sidecar", "stubs", "tests"]

myst_heading_anchors = 4  # as the repository's own pages are linked to
html_theme = "furo"
html_title = project
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def navigation() -> dict[str, list[str]]:
    """What a newcomer reads from top to bottom: pages, by the heading that they stand below."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", (ROOT / f"{LIST}.md").read_text(), flags=re.MULTILINE)[1:]:
        caption, _, rows = part.partition("\n")
        links = re.findall(r"^\| \[.*?\]\((.+?)\.md\)", rows, re.MULTILINE)
        found[caption] = [os.path.normpath(f"docs/{link}") for link in links]
    found[next(iter(found))].append(LIST)
    return found


def add_navigation(app: Sphinx, page: str, text: list[str]) -> None:
    """Add the lists of pages to the home page, which leads to all others. The files do not have
    them: readers of the repository would see them as they are."""
    if page == HOME:
        lists = navigation()
    elif page in FOLDERS:
        lists = {"": [FOLDERS[page]]}
    else:
        return
    for caption, pages in lists.items():
        options = ":hidden:\n:glob:" + (f"\n:caption: {caption}" if caption else "")
        entries = "\n".join(f"/{each}" for each in pages)
        text[0] += f"\n\n```{{toctree}}\n{options}\n\n{entries}\n```\n"


def add_index(app: Sphinx, failed: Exception | None) -> None:
    """A site is entered by `index.html`."""
    if failed is None:
        shutil.copy(Path(app.outdir) / f"{HOME}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_index)
