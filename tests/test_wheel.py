"""What the wheel installs: the program, and nothing that a user would not run."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Without CMake: which modules that installs, its own file says (see below).
BUILD = """
from scikit_build_core.build import build_wheel
build_wheel({!r}, {{"wheel.cmake": "false"}})
"""
GENERATORS = {"sidecar/settings/docs.py", "sidecar/telemetry/metrics_docs.py"}
WEB = {".js", ".css", ".html", ".svg"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel, but those about itself and the compiled modules."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD.format(str(folder))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = folder.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
    return {name for name in names if ".dist-info/" not in name}


def test_the_wheel_has_the_program_and_nothing_else(installed: set[str]) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "sidecar").rglob("*.py")}
    data = {name for name in installed if not name.endswith(".py")}
    assert installed - data == sources - GENERATORS
    assert data - {"sidecar/policy/commands.json"} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "sidecar/admin/web").iterdir()
    }
    assert {PurePosixPath(name).suffix for name in data} == WEB | {".json"}


def test_nothing_that_is_installed_needs_what_is_not() -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in GENERATORS]
    for path in (ROOT / "sidecar").rglob("*.py"):
        if str(path.relative_to(ROOT)) not in GENERATORS:
            text = path.read_text()
            for package, name in (module.rsplit(".", 1) for module in modules):
                assert f"{package}.{name}" not in text
                assert not re.search(rf"from {re.escape(package)} import .*\b{name}\b", text), path


def test_compiled_modules_are_those_of_the_package() -> None:
    """CMake installs a module for each .pyx of the package, and none of the harness."""
    text = (ROOT / "CMakeLists.txt").read_text()
    harness, package = re.findall(r"file\(GLOB\w* SOURCES [^)]*\)", text)
    assert "tests/native/*.pyx" in harness
    assert "sidecar/*.pyx" in package
    assert text.count("install(") == 1
    branches = r"if\(SIDECAR_TEST_HARNESS\)\s+set_target_prop[^\n]*\s+else\(\)\s+install"
    assert re.search(branches, text)
