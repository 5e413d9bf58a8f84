"""ioredis and node-redis through the sidecar.

The packages are installed once into `build/node-clients`, from npm's cache when the registry cannot
be reached; when that fails, too, the tests are skipped and say why.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import npm
from tests.harness.pair import Pair

HERE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder the scripts find their packages in."""
    folder, problem = npm.install(HERE, "node-clients")
    if problem:
        pytest.skip(f"ioredis and node-redis NOT tested: {problem}")
    return folder


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
