"""Packages of npm for tests, installed once into `build/`."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"


def install(source: Path, name: str) -> tuple[Path, str]:
    """Install what `source/package-lock.json` names into `build/NAME`, from npm's cache when the
    registry cannot be reached. Returns the folder, and why it failed, or nothing."""
    target = BUILD / name
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return target, "node and npm are not installed"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return target, _install(npm, source, target)


def _install(npm: str, source: Path, target: Path) -> str:
    stamp = target / "installed"
    wanted = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return ""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, target / name)
    argv = [npm, "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(argv, cwd=target, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return "npm ci took more than 90 s"
    if done.returncode != 0:
        return f"npm ci failed: {done.stderr.strip()[-300:]}"
    stamp.write_text(wanted)
    return ""
