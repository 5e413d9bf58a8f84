"""The program's log: JSON lines for machines, coloured lines for a terminal, on standard error.

The composition root calls `configure` once; all other modules get a logger with
`structlog.get_logger()`. Lines of the standard library's `logging` (asyncio, aiohttp) have the same
form. A thread writes the lines (writer.py), so a reader that hangs delays nobody; an event that
repeats is logged some times and then counted (repeats.py). An event's name is a noun and a verb,
never varies, and is listed in docs/logging.md; what varies is in fields.

Not for the data path: a line costs several microseconds. Never log a value, a password, or a URL
other than `str(Endpoint)`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec
import structlog

from sidecar.telemetry.repeats import Repeats
from sidecar.telemetry.snapshots import Lines
from sidecar.telemetry.writer import LineWriter

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_log = structlog.get_logger()
_NO_LINES = Lines(written=0, dropped=0)


class _Setup:
    """What `configure` has set up. Modules keep their loggers, so loggers look here each time."""

    def __init__(self) -> None:
        self.writer: LineWriter | _Direct | None = None
        self.repeats = Repeats()
        self.level = logging.INFO
        self.put: Callable[[MutableMapping[str, Any]], None] = lambda event: None


_setup = _Setup()


def configure(
    format: Format = "auto",
    level: Level = "info",
    stream: TextIO | None = None,
    *,
    blocking: bool = False,
    worker: int = 0,
) -> None:
    """Set up structlog and `logging`. A thread writes the lines to standard error.

    Lines for another `stream` are written at once, and so are all lines if `blocking`. `auto` means
    console on a terminal and JSON otherwise. Each line says which `worker` it is of, if it is of
    one. Can be called again: the last call counts, also for
    loggers made before it.
    """
    close()
    out = sys.stderr if stream is None else stream
    line = _console_line(out) if shows_console(format, out) else _json_line
    if stream is None and not blocking and sys.__stderr__ is not None and out is sys.__stderr__:
        out.flush()
        _setup.writer = LineWriter(out.fileno(), line)
    else:
        _setup.writer = _Direct(out, line)
    _setup.put = _setup.writer.put if not worker else _of_worker(worker, _setup.writer.put)
    _setup.repeats = Repeats()
    _setup.level = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[_event],
        wrapper_class=_Bound,
        logger_factory=_Logger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(max(_setup.level, logging.INFO))  # the libraries' debug lines are theirs


def _of_worker(
    number: int, put: Callable[[MutableMapping[str, Any]], None]
) -> Callable[[MutableMapping[str, Any]], None]:
    def put_numbered(event: MutableMapping[str, Any]) -> None:
        event["worker"] = number
        put(event)

    return put_numbered


def set_level(level: Level) -> None:
    """Write lines from this level on."""
    _setup.level = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(_setup.level, logging.INFO))


def tick(now: float | None = None) -> None:
    """Log how many lines were left out of events that have not come again. Call it about every
    second."""
    for event, count in _setup.repeats.due(time.monotonic() if now is None else now):
        _log.warning("log lines suppressed", of=event, suppressed=count)


def lines() -> Lines:
    """What has been written and dropped."""
    writer = _setup.writer
    return Lines(written=writer.written, dropped=writer.dropped) if writer else _NO_LINES


def suppressed() -> int:
    """How many lines were left out because their event had been logged often enough."""
    return _setup.repeats.suppressed


def flush(within: float = 1.0) -> None:
    """Wait until everything is written, for at most so many seconds."""
    if _setup.writer is not None:
        _setup.writer.flush(within)


def close() -> None:
    """Write what is left. Lines logged after that wait for the next `configure`, or are lost."""
    writer, _setup.writer = _setup.writer, None
    if writer is not None:
        writer.close()


atexit.register(close)


def shows_console(format: Format, stream: TextIO) -> bool:
    """Whether `format` means human-readable lines on `stream`."""
    return format == "console" or (format == "auto" and stream.isatty())


def shows_colours(stream: TextIO) -> bool:
    """Whether colours are wanted: on a terminal that has them, unless NO_COLOR is set
    (https://no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and stream.isatty()


class _Bound(structlog.BoundLoggerBase):
    """A logger that looks up the current level for each line."""

    def debug(self, event: str, **facts: Any) -> None:
        if _setup.level <= logging.DEBUG:
            self._proxy_to_logger("debug", event, **facts)

    def info(self, event: str, **facts: Any) -> None:
        if _setup.level <= logging.INFO:
            self._proxy_to_logger("info", event, **facts)

    def warning(self, event: str, **facts: Any) -> None:
        if _setup.level <= logging.WARNING:
            self._proxy_to_logger("warning", event, **facts)

    def error(self, event: str, **facts: Any) -> None:
        self._proxy_to_logger("error", event, **facts)

    def exception(self, event: str, **facts: Any) -> None:
        self._proxy_to_logger("error", event, **{"exc_info": True, **facts})


class _Logger:
    """What structlog hands finished events to."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, event: MutableMapping[str, Any]) -> None:
        _setup.put(event)

    debug = info = warning = error = msg


class _Direct:
    """Writes each line to a stream at once."""

    def __init__(self, stream: TextIO, line: Callable[[MutableMapping[str, Any]], bytes]) -> None:
        self.written = self.dropped = 0
        self._stream = stream
        self._line = line

    def put(self, event: MutableMapping[str, Any]) -> None:
        self._stream.write(self._line(event).decode())
        self._stream.flush()
        self.written += 1

    def flush(self, within: float) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Leave the stream open: it belongs to somebody else."""


def _event(
    _: object, level: str, event: MutableMapping[str, Any]
) -> tuple[tuple[MutableMapping[str, Any]], dict[str, Any]]:
    """The only processor: drops repeats, and adds what must be read now. The thread makes the line
    later."""
    left_out = _setup.repeats.allows(event["event"], time.monotonic())
    if left_out:
        if left_out < 0:
            raise structlog.DropEvent
        event["suppressed"] = left_out
    event["level"] = level
    event["time"] = time.time()
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(_, level, event)
    return (event,), {}


class _Handler(logging.Handler):
    """Takes lines of `logging` the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            left_out = _setup.repeats.allows(f"{record.name}: {record.msg}", time.monotonic())
            if left_out < 0:
                return
            event: dict[str, Any] = {
                "event": record.getMessage(),
                "level": record.levelname.lower(),
                "time": record.created,
                "logger": record.name,
            }
            if left_out:
                event["suppressed"] = left_out
            if record.exc_info:
                event["exc_info"] = record.exc_info
                event = dict(structlog.processors.format_exc_info(None, "", event))
            _setup.put(event)
        except Exception:
            self.handleError(record)


def iso(seconds: float) -> str:
    """A Unix time as logs write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat("T", "microseconds")[:-6] + "Z"


def _json_line(event: MutableMapping[str, Any]) -> bytes:
    head = {"time": iso(event.pop("time")), "level": event.pop("level")}
    return _encode({**head, "event": event.pop("event"), **event}) + b"\n"


def _console_line(stream: TextIO) -> Callable[[MutableMapping[str, Any]], bytes]:
    # The plain traceback: the pretty one prints local variables, passwords among them.
    plain = structlog.dev.plain_traceback
    render = structlog.dev.ConsoleRenderer(
        colors=shows_colours(stream), timestamp_key="time", exception_formatter=plain
    )

    def line(event: MutableMapping[str, Any]) -> bytes:
        event["time"] = iso(event["time"])
        return render(None, "", event).encode("utf-8", "backslashreplace") + b"\n"

    return line
