"""Packages of the Python index for tests alone, installed once into `build/`: such as would not fit
into this project's own environment, or are too much for it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"


def install(name: str, requirements: Sequence[str], *, alone: bool = False) -> tuple[Path, str]:
    """Install packages into `build/NAME`, a folder for PYTHONPATH; `alone`: without what they need.
    Returns the folder, and why it failed, or nothing."""
    target = BUILD / name
    target.parent.mkdir(exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return target, _install(target, requirements, alone)


def _install(target: Path, requirements: Sequence[str], alone: bool) -> str:
    stamp = target / "installed"
    wanted = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return ""
    shutil.rmtree(target, ignore_errors=True)
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-input", "--target", str(target), *(["--no-deps"] if alone else [])]
    try:
        done = subprocess.run([*argv, *requirements], capture_output=True, text=True, timeout=100)
    except subprocess.TimeoutExpired:
        return "pip install took more than 100 s"
    if done.returncode != 0:
        return f"pip install failed: {done.stderr.strip()[-300:]}"
    stamp.write_text(wanted)
    return ""
