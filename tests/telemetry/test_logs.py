"""The log: parseable lines, levels that count, and no local variables in tracebacks."""

import contextlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from sidecar.telemetry import logs
from sidecar.telemetry.audit import EVENTS
from sidecar.telemetry.repeats import BURST, WINDOW, Repeats
from sidecar.telemetry.writer import LineWriter
from tests.harness.process import wait_until


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fail() -> None:
    password = "hunter2"
    raise RuntimeError("no use" if password else "")


def test_json_lines_from_both_libraries() -> None:
    out = io.StringIO()
    logs.configure("auto", "info", out)
    structlog.get_logger().info("listening", urls=["redis://h:1"])
    structlog.get_logger().debug("not written")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["event"], first["level"], first["urls"]) == ("listening", "info", ["redis://h:1"])
    assert (second["event"], second["level"], second["logger"]) == (
        "slow callback",
        "warning",
        "asyncio",
    )
    assert first["time"].endswith("Z")


@pytest.mark.parametrize("format", ["json", "console"])
def test_tracebacks_show_no_local_variables(format: logs.Format) -> None:
    out = io.StringIO()
    logs.configure(format, "info", out)
    try:
        fail()
    except RuntimeError as error:
        structlog.get_logger().exception("bad")
        logging.getLogger("asyncio").error("worse", exc_info=error)
    text = out.getvalue()
    assert text.count("RuntimeError: no use") == 2
    assert "hunter2" not in text


def test_the_last_configuration_counts_for_older_loggers() -> None:
    logger = structlog.get_logger()
    logs.configure("json", "error", io.StringIO())
    out = io.StringIO()
    logs.configure("json", "debug", out)
    logger.debug("seen")
    assert json.loads(out.getvalue())["event"] == "seen"


def blocked_pipe() -> tuple[int, int]:
    """The ends of a pipe that takes no more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    os.set_blocking(writing, True)
    return reading, writing


def test_a_reader_that_hangs_holds_nobody_up() -> None:
    reading, writing = blocked_pipe()
    writer = LineWriter(writing, lambda number: b"%d\n" % number, most=100)
    began = time.monotonic()
    for number in range(1000):
        writer.put(number)
    assert time.monotonic() - began < 1.0
    assert writer.dropped >= 800
    assert not writer.flush(0.05)
    os.set_blocking(reading, False)
    found = b""

    def everything() -> bool:
        nonlocal found
        with contextlib.suppress(BlockingIOError):
            found += os.read(reading, 1 << 20)
        return found.endswith(b"\n") and writer.written + writer.dropped == 1000

    wait_until(everything, "what was kept comes once it can")
    numbers = [int(word) for word in found.lstrip(b"x").split()]
    assert numbers == sorted(numbers)
    assert len(numbers) == writer.written
    writer.close()
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, lambda line: line)
    writer.put(b"to nobody\n")
    assert writer.flush(5.0)
    assert (writer.written, writer.dropped) == (0, 1)
    writer.close()
    os.close(writing)


def test_a_line_that_cannot_be_made_does_not_end_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(file, lambda line: line.encode())
    for item in (3, "good\n"):
        writer.put(item)
    assert writer.flush(5.0)
    first, second = path.read_text().splitlines()
    assert "log line lost" in first
    assert second == "good"
    writer.close()
    os.close(file)


def test_repeats_are_told_some_times_then_counted() -> None:
    repeats = Repeats()
    told = [repeats.allows("down", 0.1 * n) for n in range(BURST + 5)]
    assert told == [0] * BURST + [-1] * 5
    assert repeats.allows("other", 1.0) == 0
    assert repeats.allows("down", WINDOW + 1.0) == 5
    assert repeats.suppressed == 5
    assert repeats.due(2 * WINDOW + 2.0) == []


def test_what_does_not_come_again_is_told_of_as_well() -> None:
    repeats = Repeats()
    for _ in range(BURST + 2):
        repeats.allows("down", 0.0)
    assert repeats.due(WINDOW / 2) == []
    assert repeats.due(WINDOW + 1.0) == [("down", 2)]
    assert repeats.due(WINDOW + 1.0) == []


def test_repeats_in_the_log() -> None:
    out = io.StringIO()
    logs.configure("json", "info", out)
    for _ in range(BURST + 3):
        structlog.get_logger().warning("upstream link lost")
        logging.getLogger("asyncio").warning("again")
    logs.tick(time.monotonic() + WINDOW + 1)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines].count("upstream link lost") == BURST
    assert [line["event"] for line in lines].count("again") == BURST
    assert {(line["of"], line["suppressed"]) for line in lines if "of" in line} == {
        ("upstream link lost", 3),
        ("asyncio: again", 3),
    }
    assert logs.suppressed() == 6


NOUN_VERB = re.compile(r"(?:TLS|[a-z-]+)(?: [a-z-]+)+")
_CALL = re.compile(r"\b_?log\.(?:debug|info|warning|error|exception)\(\s*(?:\"([^\"]+)\")?")


def test_every_event_has_a_name_that_stays_and_is_documented() -> None:
    """The name is a literal, so it can be looked for; what varies are the facts beside it."""
    root = Path(__file__).parents[2]
    documented = set(re.findall(r"^\| `([^`]+)`", (root / "docs/logging.md").read_text(), re.M))
    named = set()
    for file in (root / "sidecar").rglob("*.py"):
        for name in _CALL.findall(file.read_text()):
            assert name, f"{file}: an event without a literal name"
            assert NOUN_VERB.fullmatch(name), f"{file}: {name!r} is no noun and verb"
            named.add(name)
    assert len(named) > 20
    assert named <= documented, sorted(named - documented)
    assert set(EVENTS) <= documented
