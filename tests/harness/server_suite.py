"""make suite: a server's own test suite, through the sidecar.

    make suite ARGS="--source ~/src/redis-7.0.15 --server redis7"
    make suite ARGS="--source ~/src/valkey-9.1.2 --server valkey --units unit/expire,unit/type/list"
    make suite ARGS="--source ~/src/redis-8.0.6 --server redis8 --set upstream.pooling=session"
    make suite ARGS="--source ~/src/redis-7.0.15 --server redis7 --cluster"

`--source` is an unpacked source of Redis or Valkey: its `runtest` has a mode for servers that it
has not started. Each unit gets a new server and a new sidecar. KNOWN says which tests fail and
why. A unit with another failure is run once more at the server itself. The exit code is 1 if
anything fails only through the sidecar and is not known.

With `--cluster` the sidecar has a cluster of three nodes behind it, and the tests are those that a
cluster can pass. They are compared with the same tests at one server.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.cluster import Cluster
from tests.harness.process import free_port
from tests.harness.servers import Server, Settings, Sidecar, redis7, redis8, valkey

# Units that need a server they have started themselves, or one that is no single server.
LEFT_OUT = (
    "aofrw",
    "oom-score",
    "shutdown",
    "printver",
    "moduleapi",
    "cluster",
    "tls",
    "list-common",
)
OF_NODES: Settings = {"enable-debug-command": "yes", "enable-protected-configs": "yes"}
OPTIONS = {**OF_NODES, "databases": 16}
BINARIES: dict[str, Callable[..., Server]] = {"valkey": valkey, "redis7": redis7, "redis8": redis8}
TAGS = "-needs:repl -needs:config-maxmemory"
SECONDS = 300

LINKS = "INFO, logs and CLIENT LIST of the server count and name links, not clients"
OWN = "statistics of the server count the sidecar's own commands"
BUFFERS = "buffers of a line of CLIENT LIST are those of the link"
RESET = "after RESET a client of session pooling has a new link, without its library's name"
UNMATCHED = "a client whose replies pass unmatched is told the server's numbers"
COUNTS = "bytes and commands of a client are counted as the sidecar gets and sends them"
EXPIRY = "a hash field that expires is seen in the near cache when the server announces it"
SHOWN = "a client of session pooling that monitors is shown the greetings of links"
KNOWN = {
    r"CLIENT KILL maxAGE will kill old clients": LINKS,
    r"RESET clears MONITOR state": SHOWN,
    r"Field TTL expires before key TTL: only the specific field should expire: m?s,?:?.*": EXPIRY,
    r"RESET does NOT clean library name": RESET,
    r"CLIENT GETREDIR provides correct client id": UNMATCHED,
    r"CLIENT TRACKINGINFO provides reasonable results when tracking on with options": UNMATCHED,
    r"client input output and command process statistics": COUNTS,
    r"CLIENT KILL SKIPME YES/NO will kill all clients": LINKS,
    r"Tracking info is correct": LINKS,
    r"Test special commands are paused by RO": LINKS,
    r"Test scripts are blocked by pause RO": LINKS,
    r"Test multiple clients can be queued up and unblocked": LINKS,
    r"(SLOWLOG|COMMANDLOG).*": LINKS,
    r"CLIENT TRACKINGINFO provides reasonable results when tracking redir broken": UNMATCHED,
    r"LATENCY HISTOGRAM .*": OWN,
    r"query buffer resized .*": BUFFERS,
    r"Client executes small argv commands using reusable query buffer": BUFFERS,
    r"verify reply buffer limits": BUFFERS,
}
"""Why a test fails through the sidecar, by its name: docs/compatibility.md tells of each."""

NAMELESS = "the server refuses a script that uses a key and names none"
STREAM = "the replication stream is that of one node"
BUSY = "a busy script blocks one shard only"
TRACKING = "CLIENT TRACKING is refused behind a cluster"
UNSUBSCRIBED = "a client that has subscribed keeps its link, and with it its node"
KNOWN_OF_CLUSTERS = {
    r"FUNCTION - test fcall_ro with read only commands": NAMELESS,
    r"MONITOR can log commands issued by functions": NAMELESS,
    r"CLIENT LIST": BUFFERS,
    r"EVAL - Scripts can run non-deterministic commands": NAMELESS,
    r"Script check unpack with massive arguments": NAMELESS,
    r"Redis should lazy expire keys": STREAM,
    r"(SCAN|RANDOMKEY): Lazy-expire should not be wrapped in MULTI/EXEC": STREAM,
    r"MULTI and script timeout": BUSY,
    r"EXEC and script timeout": BUSY,
    r"MULTI-EXEC body and script timeout": BUSY,
    r"RESET clears client state": TRACKING,
    r"Clients are able to enable tracking and redirect it": TRACKING,
    r"Keyspace notifications: we receive keyspace notifications": UNSUBSCRIBED,
}
"""The same of a test that fails with `--cluster` only."""


@dataclass
class Outcome:
    """What a unit's tests came to: how many passed, and which failed, by name with the reason."""

    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def unknown(self, *, cluster: bool) -> dict[str, str]:
        """Those failures that no reason is known for."""
        return {n: why for n, why in self.failed.items() if not reason(n, cluster=cluster)}


def reason(name: str, *, cluster: bool) -> str:
    """Why this test is known to fail, perhaps through a sidecar before a cluster; "" if it is not
    known to."""
    known = KNOWN | KNOWN_OF_CLUSTERS if cluster else KNOWN
    return next((why for test, why in known.items() if re.fullmatch(test, name)), "")


def parse(output: str) -> Outcome:
    """Read what `runtest` has printed. An exception ends a unit; it names the test it was in."""
    found = Outcome()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()
    for at, line in enumerate(lines):
        if line.startswith("[ok]: "):
            found.passed += 1
        elif failed := re.match(r"\[err\]: (.*) in tests/", line):
            found.failed[failed[1]] = lines[at + 1] if at + 1 < len(lines) else ""
        elif line.startswith("[exception]: "):
            rest = "\n".join(lines[at:])
            inside = re.search(r'^"test [{"](.*?)[}"] \{', rest, re.MULTILINE)
            found.failed[inside[1] if inside else line] = line
    if not lines or (not any("All tests passed" in line for line in lines) and not found.failed):
        found.failed["the unit"] = lines[-1] if lines else "it printed nothing"
    return found


class Suite:
    """One server's suite. `source` is its unpacked source, `settings` are the sidecar's; tests that
    would end or hang a unit are `skipped`."""

    def __init__(
        self,
        source: Path,
        kind: str,
        settings: dict[str, str],
        skipped: Sequence[str] = (),
        *,
        cluster: bool = False,
    ) -> None:
        self.source, self.kind, self.settings = source, kind, settings
        self.skipped = skipped
        self.cluster = cluster

    def units(self) -> list[str]:
        """All units but those LEFT_OUT."""
        folder = self.source / "tests"
        found = sorted([*folder.glob("unit/*.tcl"), *folder.glob("unit/type/*.tcl")])
        names = [str(one.relative_to(folder).with_suffix("")) for one in found]
        return [name for name in names if not any(word in name for word in LEFT_OUT)]

    def run(self, unit: str, *, direct: bool = False) -> Outcome:
        """Run one unit, at a server or through a sidecar in front of it."""
        if self.cluster and not direct:
            with Cluster(self.kind, settings=OF_NODES) as cluster:
                return self._through(unit, cluster.url, cluster.nodes[0].binary)
        with BINARIES[self.kind](OPTIONS) as server:
            if direct:
                return self._play(unit, server.binary, server.port)
            return self._through(unit, server.url, server.binary)

    def _through(self, unit: str, url: str, binary: str) -> Outcome:
        port = free_port()
        listen = f"redis://localhost:{port}"
        with Sidecar(url, listen=listen, port=port, settings=self.settings):
            return self._play(unit, binary, port)

    def _play(self, unit: str, binary: str, port: int) -> Outcome:
        with tempfile.TemporaryDirectory() as binaries:
            for name in ("server", "cli", "benchmark", "check-aof", "check-rdb", "sentinel"):
                Path(binaries, f"valkey-{name}").symlink_to(binary)
            argv = ["./runtest", "--host", "127.0.0.1", "--port", str(port), "--clients", "1"]
            argv += [word for test in self.skipped for word in ("--skiptest", test)]
            argv += ["--baseport", str(free_port()), "--single", unit, "--tags", TAGS]
            argv += ["--cluster-mode"] if self.cluster else []
            try:
                done = subprocess.run(
                    argv,
                    cwd=self.source,
                    env=os.environ | {"VALKEY_BIN_DIR": binaries},
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return Outcome(failed={"the unit": f"it did not end within {SECONDS} s"})
        return parse(done.stdout)


def main() -> int:
    """Run, and say what fails only through the sidecar."""
    parser = argparse.ArgumentParser(prog="suite", description="a server's own tests")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--server", choices=tuple(BINARIES), required=True)
    parser.add_argument("--units", default="", help="unit/expire,unit/type/list (all)")
    parser.add_argument("--set", action="append", default=[], help="a setting of the sidecar")
    parser.add_argument("--cluster", action="store_true", help="a cluster behind the sidecar")
    parser.add_argument("--skip", action="append", default=[], help="a test, by its name")
    options = parser.parse_args()
    settings = dict(one.split("=", 1) for one in options.set)
    suite = Suite(
        options.source.resolve(), options.server, settings, options.skip, cluster=options.cluster
    )
    passed, known, bad = 0, Counter[str](), 0
    for unit in options.units.split(",") if options.units else suite.units():
        outcome = suite.run(unit)
        passed += outcome.passed
        print(f"{unit}: {outcome.passed} passed, {len(outcome.failed)} failed", flush=True)
        unknown = outcome.unknown(cluster=options.cluster)
        reasons = (reason(name, cluster=options.cluster) for name in outcome.failed)
        known.update(why for why in reasons if why)
        if not unknown:
            continue
        alike = suite.run(unit, direct=True).failed
        for name, why in unknown.items():
            at_server = name in alike
            bad += not at_server
            print(f"    {'also at the server' if at_server else 'ONLY HERE'}: {name}: {why}")
    print(f"{passed} passed, {bad} failed only through the sidecar; known failures:")
    for why, count in known.most_common():
        print(f"    {count:3} {why}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
