"""The log: parseable lines, levels that count, and no local variables in tracebacks."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from sidecar.telemetry import logs


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
