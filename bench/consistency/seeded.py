"""`python -m bench.consistency.seeded`: is every deliberate bug noticed?

A copy of the repository, with an environment of its own, is changed by one bug of the table at a
time, built, and put before the checker or the tests. It is kept for the next time. Exit status 1:
a bug was not noticed, or the unchanged copy is not clean.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.consistency.bugs import BUGS, Bug
from tests.harness.programs import ROOT

TESTS = ("test_nearcache.py", "test_nearcache_access.py", "test_nearcache_limits.py",
         "test_nearcache_replies.py", "test_nearcache_news.py",
         "test_nearcache_cluster.py")  # fmt: skip


@dataclass
class Result:
    """How a bug fared."""

    bug: Bug
    noticed: str = ""
    by: str = ""
    seconds: float = 0.0
    trouble: str = ""


class Copy:
    """The copy."""

    def __init__(self, folder: Path, build: str) -> None:
        self.folder, self._build = folder, build
        self.python = folder / ".venv" / "bin" / "python"
        self._output = ""

    def refresh(self) -> None:
        """Make every file that the repository knows, or could know, what it is there."""
        names = self._run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT).split("\n")
        for name in filter(None, names):
            source, target = ROOT / name, self.folder / name
            if not source.is_file():
                target.unlink(missing_ok=True)
            elif not target.is_file() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
                target.chmod(source.stat().st_mode)

    def build(self) -> None:
        """Compile what has changed."""
        self._run(["make", "build", ".venv/.installed-test"], cwd=self.folder)

    def change(self, bug: Bug) -> str:
        """Put a bug in: the text of the file before."""
        path = self.folder / bug.file
        before = path.read_text()
        if before.count(bug.old) != 1:
            raise LookupError(f"found {before.count(bug.old)} times in {bug.file}: {bug.old!r}")
        path.write_text(before.replace(bug.old, bug.new))
        return before

    def load(self, faults: Sequence[str], seconds: float) -> dict[str, int]:
        """Violations under load, by rule; a crash counts as one."""
        with tempfile.TemporaryDirectory() as out:
            argv = [str(self.python), "-m", "bench.consistency", "--out", out, "--failovers", "0"]
            argv += ["--seconds", str(seconds), "--calm", "0.05"]
            for fault in faults:
                argv += ["--faults", fault]
            try:
                self._run(argv, cwd=self.folder)
            except RuntimeError:
                if not (Path(out) / "consistency.json").exists():
                    return {"crash": 1}
            found = json.loads((Path(out) / "consistency.json").read_text())
        return dict(found[0]["violations"])

    def test(self, expression: str) -> list[str]:
        """The tests that fail."""
        argv = [str(self.python), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        argv += [f"tests/compat/{name}" for name in TESTS]
        argv += ["-k", expression]
        try:
            self._run(argv, cwd=self.folder)
        except RuntimeError:
            lines = self._output.splitlines()
            return [line.split()[1] for line in lines if line.startswith(("FAILED", "ERROR"))]
        return []

    def _run(self, argv: Sequence[str], cwd: Path) -> str:
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
        self._output = done.stdout
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)[:200]}: {(done.stdout + done.stderr)[-2000:]}")
        return done.stdout


def prove(copy: Copy, bug: Bug, seconds: float) -> Result:
    """Put a bug in, see who notices, take it out."""
    result = Result(bug)
    try:
        before = copy.change(bug)
    except LookupError as error:
        result.trouble = str(error)
        return result
    try:
        copy.build()
        begin = time.monotonic()
        if bug.load and (rules := copy.load(bug.load, seconds)):
            result.by = "load"
            result.noticed = ", ".join(f"{rule} {count}" for rule, count in rules.items())
        elif bug.tests and (failed := copy.test(bug.tests)):
            result.by, result.noticed = "test", failed[0].partition("::")[2]
        result.seconds = time.monotonic() - begin
    except RuntimeError as error:
        result.trouble = str(error)[-300:]
    finally:
        (copy.folder / bug.file).write_text(before)
    return result


def show(result: Result) -> None:
    """One line of the table."""
    verdict = result.by or ("ERROR" if result.trouble else "MISSED")
    text = result.noticed or result.trouble
    print(f"{result.bug.name:56} {verdict:7} {result.seconds:4.0f} s  {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Prove the bugs that are wanted."""
    parser = argparse.ArgumentParser(prog="python -m bench.consistency.seeded", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="of a name")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load for each")
    parser.add_argument("--list", action="store_true", help="name the bugs and stop")
    where = Path(tempfile.gettempdir()) / f"sidecar-seeded-{os.getuid()}"
    parser.add_argument("--copy", type=Path, default=where, help=f"folder ({where})")
    args = parser.parse_args(argv)
    bugs = [bug for bug in BUGS if not args.only or any(part in bug.name for part in args.only)]
    if args.list:
        print("\n".join(bug.name for bug in bugs))
        return 0
    args.copy.mkdir(parents=True, exist_ok=True)
    copy = Copy(args.copy, "")
    print(f"building {args.copy}", flush=True)
    copy.refresh()
    copy.build()
    clean = copy.load((), args.seconds)
    print(f"{'no bug':56} {'broken' if clean else 'clean':7}       {clean or ''}", flush=True)
    results = []
    for bug in bugs:
        results.append(prove(copy, bug, args.seconds))
        show(results[-1])
    noticed = sum(bool(result.by) for result in results)
    print(f"{noticed} of {len(results)} noticed")
    return 0 if noticed == len(results) and not clean else 1


if __name__ == "__main__":
    sys.exit(main())
