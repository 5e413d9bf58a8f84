"""ioredis and node-redis through the sidecar.

The packages are installed once into `build/node-clients`, from npm's cache when the registry cannot
be reached; when that fails, too, the tests are skipped and say why.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from .harness import Pair

HERE = Path(__file__).parent / "node"
CACHE = Path(__file__).parents[2] / "build" / "node-clients"


def _install(npm: str) -> str:
    """Install what `package-lock.json` names; return why it failed, or nothing."""
    stamp = CACHE / "installed"
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return ""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, CACHE / name)
    argv = [npm, "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(argv, cwd=CACHE, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return "npm ci took more than 90 s"
    if done.returncode != 0:
        return f"npm ci failed: {done.stderr.strip()[-300:]}"
    stamp.write_text(wanted)
    return ""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder the scripts find their packages in."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed: ioredis and node-redis NOT tested")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problem = _install(npm)
    if problem:
        pytest.skip(f"ioredis and node-redis NOT tested: {problem}")
    return CACHE


@pytest.mark.parametrize(
    "argv", [["ioredis.mjs"], ["node-redis.mjs", "2"], ["node-redis.mjs", "3"]], ids="-".join
)
def test_script(pair: Pair, node_modules: Path, argv: list[str]) -> None:
    """The script's own assertions hold, and it ends by itself."""
    script = node_modules / argv[0]
    temporary = script.with_suffix(f".{pair.sidecar.port}.mjs")
    shutil.copy(HERE / argv[0], temporary)  # node looks for packages beside the script
    try:
        done = subprocess.run(
            ["node", str(temporary), str(pair.sidecar.port), *argv[1:]],
            capture_output=True,
            text=True,
            timeout=30,
        )
    finally:
        temporary.unlink()
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
