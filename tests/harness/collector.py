"""A real OTLP collector (`rotel`, from PyPI), and what it has received.

It writes each span into its log as text; `spans` reads that back.
"""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from .process import Process, free_port, wait_until

_FIELD = re.compile(r"^ *(Trace ID|Parent ID|ID|Name|Kind|Status code) *: ?(.*)$")
_TIME = re.compile(r"^(Start|End) time: (\d+)$")
_ATTRIBUTE = re.compile(r"^ *-> ([\w.]+): \w+\((.*)\)$")


@cache
def agent() -> Path | None:
    """The collector's program, if it is installed and can run (it wants libpython3.11.so)."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "rotel-agent"
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return program


needs_collector = pytest.mark.skipif(
    agent() is None, reason="rotel is not installed, or cannot run: sending spans is NOT tested"
)


def listens(port: int) -> bool:
    """Whether connections are accepted there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Received:
    """One span. Times in nanoseconds; attributes as text."""

    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""
    name: str = ""
    kind: str = ""
    status: str = ""
    start: int = 0
    end: int = 0
    attributes: dict[str, str] = field(default_factory=dict)


class Collector(Process):
    """Receives on `url` until closed."""

    def __init__(self, port: int | None = None) -> None:
        super().__init__("rotel", port)
        self.start()

    def start(self) -> None:
        """Start it (again, on the same port)."""
        program = agent()
        assert program is not None
        receivers = ["--otlp-http-endpoint", f"127.0.0.1:{self.port}"]
        receivers += ["--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"]
        show = ["--debug-log", "traces", "--debug-log-verbosity", "detailed"]
        self.spawn([str(program), "start", *receivers, "--exporter", "blackhole", *show])
        self.wait_ready(lambda: listens(self.port))

    @property
    def url(self) -> str:
        """Where spans are to be sent."""
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def spans(self) -> list[Received]:
        """All that has come, in the order in which it has."""
        found: list[Received] = []
        resource: dict[str, str] = {}
        into = resource
        for line in self.log().splitlines():
            if line.startswith("ResourceSpans #"):
                into = resource = {}
            elif line.startswith("Span #"):
                found.append(Received())
                into = found[-1].attributes
                into |= resource
            elif match := _ATTRIBUTE.match(line):
                into[match[1]] = match[2]
            elif found and (match := _TIME.match(line)):
                setattr(found[-1], match[1].lower(), int(match[2]))
            elif found and (match := _FIELD.match(line)):
                name = {"ID": "span_id", "Status code": "status"}.get(match[1])
                text = match[2].removeprefix("SPAN_KIND_").removeprefix("STATUS_CODE_")
                setattr(found[-1], name or match[1].lower().replace(" ", "_"), text.strip())
        return found

    def wait_for(
        self, check: Callable[[Received], bool], what: str, deadline: float = 10.0
    ) -> Received:
        """The first span that `check` accepts, as soon as it is there."""
        return wait_until(lambda: next(filter(check, self.spans()), None), what, deadline)  # type: ignore[return-value]
