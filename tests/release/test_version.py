"""The version stands in one place; where it has to be written again, it is the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import sidecar

ROOT = Path(__file__).resolve().parents[2]


def test_the_project_reads_it_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["scikit-build"]["metadata"]["version"]["input"] == "sidecar/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", sidecar.__version__)


def test_manifests_name_the_image_of_this_version() -> None:
    """Wherever the image is named with a version."""
    folders = [ROOT / "config", ROOT / "examples", ROOT / "docs"]
    files = [ROOT / "README.md", *(file for folder in folders for file in folder.rglob("*"))]
    named = [
        (file, tag)
        for file in files
        if file.suffix in (".yaml", ".yml", ".md", ".tpl")
        for tag in re.findall(r"(?<!&)redis-sidecar:([\w.{}$-]+)", file.read_text())
    ]
    assert {tag for _, tag in named} == {sidecar.__version__}


def test_the_chart_is_for_this_version() -> None:
    chart = yaml.safe_load((ROOT / "config/helm/redis-sidecar/Chart.yaml").read_text())
    assert chart["appVersion"] == sidecar.__version__
