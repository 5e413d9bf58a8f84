"""Builds of the extension modules with something compiled in (sanitizers, coverage), beside the
installed package, which is not touched."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, str(Path(__file__).with_name("asan_run.py"))]
"""Runs a Python module on the packages of such a build: `[*RUN, MODULE, ...]`."""


@dataclass(frozen=True)
class Build:
    """A build in this folder, with an option of CMakeLists.txt turned on."""

    folder: Path
    option: str
    compiler: str = ""
    """The one it needs, if it is not the usual one."""

    @property
    def site(self) -> Path:
        """Where the package is."""
        return self.folder / "site"

    def make(self) -> None:
        """Compile the package and the native harness; only what changed is compiled again."""
        environment = {**os.environ, **({"CC": self.compiler} if self.compiler else {})}
        shutil.rmtree(self.site, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
        command += ["--no-deps", "--no-warn-conflicts", "--target", str(self.site)]
        command += ["-C", f"cmake.define.{self.option}=ON"]
        command += ["-C", f"build-dir={self.folder / 'objects'}", "."]
        subprocess.run(command, cwd=ROOT, check=True, env=environment)
        harness = self.folder / "native"
        native = ["make", "native", f"NATIVE_BUILD={harness}", f"NATIVE_FLAGS=-D{self.option}=ON"]
        subprocess.run(native, cwd=ROOT, check=True, env=environment)

    def program(self, **settings: str) -> dict[str, str]:
        """Write the program that tests are to start as the sidecar: one of this build, with these
        variables as well. The environment that tells them so."""
        path = self.folder / "sidecar"
        environment = {**self.environment(), **settings}
        variables = [f"{name}={value}" for name, value in environment.items()]
        path.write_text(f'#!/bin/sh\nexec env {shlex.join([*variables, *RUN])} sidecar "$@"\n')
        path.chmod(0o755)
        return {"TESTED_PROGRAM": str(path)}

    def environment(self) -> dict[str, str]:
        """What a Python needs that is to run its modules."""
        return {
            "TESTED_SITE": str(self.site),
            "TESTED_NATIVE": str(self.folder / "native" / "modules"),
        }
