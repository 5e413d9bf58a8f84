"""What the wheel installs: the program, and nothing that a user would not run; the same bytes for
the same sources."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from release import wheel

ROOT = wheel.ROOT
GENERATORS = {"sidecar/settings/docs.py", "sidecar/telemetry/metrics_docs.py"}
WEB = {".js", ".css", ".html", ".svg"}
# Without CMake: which modules that installs, its own file says (see below).
QUICK = {"wheel_cmake": "false"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel, but the compiled modules."""
    made = wheel.build(ROOT, tmp_path_factory.mktemp("wheel"), **QUICK)
    return set(zipfile.ZipFile(made).namelist())


def test_the_wheel_has_the_program_and_nothing_else(installed: set[str]) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "sidecar").rglob("*.py")}
    files = {name for name in installed if ".dist-info/" not in name}
    data = {name for name in files if not name.endswith(".py")}
    assert files - data == sources - GENERATORS
    assert data - {"sidecar/policy/commands.json"} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "sidecar/admin/web").iterdir()
    }
    assert {PurePosixPath(name).suffix for name in data} == WEB | {".json"}


def test_the_release_lets_that_through_and_nothing_else(installed: set[str]) -> None:
    assert wheel.strays(installed) == []
    compiled = "sidecar/core/memory.cpython-311-x86_64-linux-gnu.so"
    assert wheel.strays([compiled]) == []
    wrong = [
        "sidecar/core/memory.pyx",
        "sidecar/core/memory.pxd",
        "sidecar/core/memory.c",
        "sidecar/core/fuzz_world.cpython-311-x86_64-linux-gnu.so",
        "sidecar/core/test_memory.py",
        "tests/harness/servers.py",
        "bench/__init__.py",
        "sidecar/notes.txt",
        "sidecar/core/__pycache__/memory.cpython-311.pyc",
        "build/lib/sidecar/__init__.py",
    ]
    assert wheel.strays(wrong) == wrong


def test_no_extra_of_a_developer_is_needed() -> None:
    """What users install has no packages that only tests need."""
    metadata = (ROOT / "pyproject.toml").read_text()
    needed = re.search(r"\ndependencies = \[(.*?)\]", metadata, re.DOTALL)
    assert needed is not None
    for name in ("pytest", "hypothesis", "trustme", "numpy", "playwright", "cyclonedx", "kubernet"):
        assert name not in needed[1]


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


def elsewhere(to: Path) -> Path:
    """The sources in another folder, checked out at another time, with another umask."""
    wheel.copy(ROOT, to)
    for path in to.rglob("*.py"):
        path.chmod(0o664)
    return to


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_wheels_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they are built, and whenever: without what is compiled."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    here = wheel.build(ROOT, tmp_path / "one", **QUICK)
    there = wheel.build(elsewhere(tmp_path / "far/away"), tmp_path / "two", **QUICK)
    assert (here.name, digest(here)) == (there.name, digest(there))
    times = {each.date_time for each in zipfile.ZipFile(here).infolist()}
    assert times == {(2023, 11, 14, 22, 13, 20)}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert digest(wheel.build(ROOT, tmp_path / "three", **QUICK)) != digest(here)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_compilations_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled modules as well: no path and no time of the build is in them. Without a
    compiler cache, which would give the second build what the first has made."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    # Both from one copy: the first takes minutes, in which somebody may change a file.
    sources = elsewhere(tmp_path / "far/away")
    one = wheel.build(sources, tmp_path / "one")
    two = wheel.build(sources, tmp_path / "two")
    names = zipfile.ZipFile(one).namelist()
    assert sum(name.endswith(".so") for name in names) > 40
    assert wheel.strays(names) == []
    assert digest(one) == digest(two)
