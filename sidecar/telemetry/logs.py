"""The program's log: JSON lines for machines, coloured lines for a terminal, on standard error.

`configure` is called once, by the composition root; everybody else takes a logger with
`structlog.get_logger()`. Lines of the standard library's `logging` (asyncio, aiohttp) come out
in the same form. Not for the data path: a line costs several microseconds. Never log a value, a
password or a URL that is not an `Endpoint` turned to text.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.typing import Processor

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure(format: Format = "auto", level: Level = "info", stream: TextIO | None = None) -> None:
    """Set up both structlog and `logging`, writing to `stream` (standard error by default).

    `auto` means console on a terminal and JSON otherwise. May be called again: the last call
    counts, for loggers made before it too.
    """
    out = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    final = _console(out) if shows_console(format, out) else _json()
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))  # the libraries' debug lines are theirs


def counts() -> dict[str, object]:
    """What has been written and left out, for metrics."""
    return {"log_lines": {"log": 0}, "log_dropped": {"log": 0}, "log_suppressed": 0}


def shows_console(format: Format, stream: TextIO) -> bool:
    """Whether `format` means human-readable lines on `stream`."""
    return format == "console" or (format == "auto" and stream.isatty())


def _console(stream: TextIO) -> list[Processor]:
    # The plain traceback: the pretty one prints local variables, passwords among them.
    plain = structlog.dev.plain_traceback
    return [
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), timestamp_key="time", exception_formatter=plain
        )
    ]


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_serialize),
    ]


def _serialize(event: object, **_: Callable[[Any], Any]) -> str:
    return _encode(event).decode()
