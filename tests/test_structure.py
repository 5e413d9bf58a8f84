"""The layers, where import-linter can't look: `import` and `cimport` in the Cython files.

The order of the layers is read from import-linter's contract in pyproject.toml, so it stands in
one place. Also here: no circle of imports stands between any two modules; every extension module
has a stub, and the stubs tell the truth; and the unit tests mirror the tree.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sidecar"
FILES = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
# (prefix, rows): the layers of the whole, and those inside of one package. Parentheses mean
# "may be missing", which says of extension modules only that import-linter can't see them.
LAYERED = [
    (prefix, [row.replace("(", "").replace(")", "") for row in contract["layers"]])
    for contract in CONTRACTS
    if contract["type"] == "layers"
    for prefix in [f"{container}." for container in contract.get("containers", [])] or [""]
]
PURE = next(c for c in CONTRACTS if c["type"] == "forbidden")
# What the same things are called on the C side.
IMPURE_C = ("posix", "libc.time", "libc.stdio", "cpython.time", "cpython.datetime")
# snprintf only: writing text into memory.
ALLOWED_C = {("libc.stdio", "snprintf")}

MIRRORED = [path for path in (ROOT / "tests").iterdir() if (PACKAGE / path.name).is_dir()]
# Tests of a unit that is cut by subject, not yet named after it.
CUT_BY_SUBJECT = {
    "core/cache/test_cache_machine.py",
    "core/protocol/test_key_rules.py",
    "core/session/test_hold.py",
}

STATEMENT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<source>[\w.]+)[ \t]+c?import[ \t]*(?P<names>\([^)]*\)|[^\n#]+)"
    r"|c?import[ \t]+(?P<plain>[^\n#]+))",
    re.MULTILINE,
)


def imports(text: str) -> list[tuple[str, str]]:
    """Every (module, name) that a Cython source imports or cimports; name "" for a whole module."""
    found = []
    for match in STATEMENT.finditer(re.sub(r'"""[\s\S]*?"""', "", text)):
        if match["plain"]:
            found += [(part.split(" as ")[0].strip(), "") for part in match["plain"].split(",")]
        else:
            names = re.sub(r"[()\\\s]+", " ", match["names"]).split(",")
            found += [(match["source"], n.split(" as ")[0].strip()) for n in names if n.strip()]
    return found


def layer(module: str, prefix: str, rows: list[str]) -> tuple[int, str] | None:
    """How far up a module lies, and which of the row's parts it belongs to."""
    for height, row in enumerate(reversed(rows)):
        for part in (prefix + name for name in row.split(" | ")):
            if module == part or module.startswith(part + "."):
                return height, part
    return None


def upward(module: str, text: str) -> list[str]:
    """What a module imports from above itself, or from beside itself."""
    bad = []
    for prefix, rows in LAYERED:
        own = layer(module, prefix, rows)
        if own is None:
            assert not module.startswith(prefix), f"{module} belongs to no layer"
            continue
        for source, name in imports(text):
            whole = f"{source}.{name}" if source == "sidecar" else source
            other = layer(whole, prefix, rows)
            if other is not None and other[1] != own[1] and other[0] >= own[0]:
                bad.append(f"{module} imports {source}")
    return bad


def modules() -> dict[str, list[Path]]:
    """Every module of the package and its sources: one .py, or a .pyx with its header, a .pxd."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *FILES]):
        name = module_of(path).removesuffix(".__init__")
        found.setdefault(name, []).append(path)
    return found


def imported(path: Path) -> list[tuple[str, str]]:
    """Every (module, name) that a source imports, wherever: in a function, or to check types."""
    if path.suffix != ".py":
        return imports(path.read_text())
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", each.name) for each in node.names]
        elif isinstance(node, ast.Import):
            found += [(each.name, "") for each in node.names]
    return found


def dependencies(sources: Mapping[str, Sequence[Path]]) -> dict[str, set[str]]:
    """What each module imports of the others."""
    graph: dict[str, set[str]] = {}
    for module, paths in sources.items():
        named = [pair for path in paths for pair in imported(path)]
        whole = {f"{source}.{name}" for source, name in named} | {source for source, _ in named}
        graph[module] = (whole & sources.keys()) - {module}
    return graph


def impure(text: str) -> list[str]:
    """What `core` and `policy` must not know."""
    bad = []
    for source, name in imports(text):
        if source.split(".")[0] in PURE["forbidden_modules"]:
            bad.append(source)
        is_c = any(source == c or source.startswith(c + ".") for c in IMPURE_C)
        if is_c and (source, name) not in ALLOWED_C:
            bad.append(f"{source}.{name}")
    return bad


def module_of(path: Path) -> str:
    """The module a file is, or is the header of."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_run_downward(path: Path) -> None:
    assert upward(module_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(PACKAGE).parts[0] in ("core", "policy")],
    ids=lambda path: path.name,
)
def test_the_core_is_pure(path: Path) -> None:
    assert impure(path.read_text()) == []


def test_the_scan_finds_what_it_looks_for() -> None:
    text = (
        '"""import asyncio"""\n'
        "from sidecar.core.link.pending cimport (Core,\n    Link)\n"
        "from sidecar.proxy.io.plane cimport Plane  # no\n"
        "cdef int f():\n    import time, socket as s\n"
        "cimport posix.time\nfrom libc.stdio cimport printf, snprintf\n"
    )
    assert ("sidecar.core.link.pending", "Link") in imports(text)
    assert upward("sidecar.core.link.x", text) == [
        "sidecar.core.link.x imports sidecar.proxy.io.plane"
    ]
    assert upward("sidecar.core.cache.x", "from sidecar.core.session.y cimport z") == [
        "sidecar.core.cache.x imports sidecar.core.session.y"
    ]
    assert upward("sidecar.admin.page", text) == [
        "sidecar.admin.page imports sidecar.proxy.io.plane"
    ]
    assert upward("sidecar.app", text) == []
    assert impure(text) == ["time", "socket", "posix.time.", "libc.stdio.printf"]


def test_no_circle_of_imports() -> None:
    """Between any two modules, Cython ones and those that are imported to check types included."""
    graph = dependencies(modules())
    assert {"sidecar.proxy.io.plane", "sidecar.proxy.server"} <= graph.keys()
    assert "sidecar.core.link.pending" in graph["sidecar.proxy.io.client"]
    assert "sidecar.proxy.assembly" in graph["sidecar.proxy.server"]
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_a_circle_is_found(tmp_path: Path) -> None:
    low, high = tmp_path / "low.py", tmp_path / "high.pyx"
    low.write_text("if TYPE_CHECKING:\n    from sidecar.high import High\n")
    high.write_text("from sidecar cimport low\n")
    graph = dependencies({"sidecar.low": [low], "sidecar.high": [high]})
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


def test_the_files_are_there() -> None:
    found = {module_of(path) for path in FILES}
    assert {"sidecar.core.link.pending", "sidecar.proxy.io.plane"} <= found
    assert any(imports(path.read_text()) for path in FILES)


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".pyx"], ids=lambda p: p.name)
def test_every_module_has_a_stub(path: Path) -> None:
    assert path.with_suffix(".pyi").exists()
    assert (PACKAGE / "py.typed").exists()


def test_the_stubs_tell_the_truth() -> None:
    pytest.importorskip("mypy")
    modules = [module_of(path) for path in FILES if path.suffix == ".pyx"]
    command = [sys.executable, "-m", "mypy.stubtest", *modules, "--concise"]
    command += ["--allowlist", str(ROOT / "tests/harness/stubtest.txt")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def has_a_source(test: Path) -> bool:
    """Whether test_x.py, or test_x_subject.py, lies where x lies in the package."""
    folder = PACKAGE / test.relative_to(ROOT / "tests").parent
    words = test.stem.removeprefix("test_").split("_")
    names = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return any((folder / f"{n}{end}").exists() for n in names for end in (".py", ".pyx", ".pxd"))


def test_tests_mirror_the_tree() -> None:
    tests = [test for folder in MIRRORED for test in folder.rglob("test_*.py")]
    assert len(tests) > 30
    strays = {str(t.relative_to(ROOT / "tests")) for t in tests if not has_a_source(t)}
    assert strays == CUT_BY_SUBJECT
    assert not has_a_source(ROOT / "tests/policy/test_nothing.py")
    assert has_a_source(ROOT / "tests/policy/test_failover_world.py")


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_what_tests_and_bench_import_is_there(folder: str) -> None:
    """Of each other; modules that are not run here (compat) are looked at as well."""
    pattern = re.compile(r"^from ((?:tests|bench)(?:\.\w+)+) import", re.MULTILINE)
    files = list((ROOT / folder).rglob("*.py"))
    missing = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in pattern.findall(file.read_text())
        if not any(
            (ROOT / name.replace(".", "/")).with_suffix(end).exists() for end in ("", ".py", ".pyx")
        )
    ]
    assert files
    assert missing == []
