"""What texts advise to install: nothing by a name that somebody else could register in the package
index, which would then run as the reader's user."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL = re.compile(r"\b(?:pipx? install|pipx run|npm install|uv add)((?: +[^\s;)`,]+)*)")

# Packages of others, long known by these names.
KNOWN = {"bullmq", "celery", "cibuildwheel", "django", "fastapi", "ioredis", "playwright", "redis"}


def advised() -> list[tuple[str, str]]:
    """Each (file, package) that a text of the project says should be installed."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix not in (".py", ".md", ".yaml", ".toml", ".mjs", "") or not path.is_file():
            continue
        if path == Path(__file__) or name.startswith("tests/harness/npm"):
            continue
        for arguments in INSTALL.findall(path.read_text()):
            for word in arguments.split():
                if re.match(r"-|&&|\\|in$|the$|from$|took$|failed:", word):
                    break
                found.append((name, word.strip("'\"").replace("\\", "")))
                break
    return found


def test_only_what_is_known_or_here() -> None:
    """`.` is the checkout that the reader has; extras of it are named in pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    packages = advised()
    assert len(packages) > 5
    for file, package in packages:
        base, _, extra = package.partition("[")
        assert base in {".", "..", *KNOWN}, f"{file}: {package}"
        assert {*filter(None, extra.rstrip("]").split(","))} <= {*extras}, f"{file}: {package}"


def test_the_project_is_never_installed_by_its_name() -> None:
    assert not [each for each in advised() if "sidecar" in each[1]]
