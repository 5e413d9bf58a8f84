"""Names whose addresses a test chooses, for a program under test: a stand-in for a name server.

A small library (names.c) is preloaded into the program and answers `getaddrinfo` from a file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .closing import Closing

_SOURCE = Path(__file__).with_name("names.c")


def _library() -> Path:
    """The library, compiled once for each version of its source."""
    source = _SOURCE.read_bytes()
    built = (
        Path(tempfile.gettempdir()) / f"sidecar-names-{hashlib.sha256(source).hexdigest()[:16]}.so"
    )
    if not built.exists():
        compiler = os.environ.get("CC", "cc").split()[-1]
        with tempfile.NamedTemporaryFile(dir=built.parent, delete=False) as file:
            args = ["-shared", "-fPIC", "-O1", "-o", file.name, str(_SOURCE), "-ldl"]
            subprocess.run([compiler, *args], check=True)
        os.replace(file.name, built)
    return built


class Names(Closing):
    """Names and their addresses. `env` is for the program that is to see them."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sidecar-names-"))
        self._file = self._folder / "names"
        self._names: dict[str, tuple[str, ...]] = {}
        self._write()
        before = os.environ.get("LD_PRELOAD", "")
        preload = f"{before}:{_library()}" if before else str(_library())
        self.env = {"LD_PRELOAD": preload, "NAMES_FILE": str(self._file)}

    def put(self, name: str, *addresses: str, slow: int = 0) -> None:
        """From now on this name has these addresses; with none, it does not exist. `slow`: whoever
        asks waits so many seconds."""
        self._names[name] = (*([f"~{slow}"] if slow else []), *addresses)
        self._write()

    def _write(self) -> None:
        lines = (" ".join((name, *addresses)) for name, addresses in self._names.items())
        fresh = self._folder / "fresh"
        fresh.write_text("".join(f"{line}\n" for line in lines))
        os.replace(fresh, self._file)

    def close(self) -> None:
        """Forget them."""
        shutil.rmtree(self._folder, ignore_errors=True)
