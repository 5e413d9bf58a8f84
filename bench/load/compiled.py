"""Compiles the C programs of the bench, each once per source text."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.harness.errors import Unavailable
from tests.harness.programs import ROOT

LIBRARIES = ("-ldl", "-lm")


def compiled(source: Path, cache: Path | None = None) -> Path:
    """The program made of one C file, in build/bench (or `cache`)."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        raise Unavailable(f"no C compiler: {source.name} needs `cc`")
    folder = cache or ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    fresh = program.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-std=gnu11", "-o", str(fresh), str(source), *LIBRARIES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{source.name} does not compile: {done.stderr.strip()}")
    fresh.replace(program)
    return program
