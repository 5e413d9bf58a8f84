"""A progress bar on a terminal, for what takes a moment at start."""

from __future__ import annotations

from typing import TextIO

from sidecar.telemetry.logs import Format, shows_console

WIDTH = 24


def bar(format: Format, stream: TextIO, title: str) -> ProgressBar | None:
    """A progress bar if the log is on a terminal, for people to read; None otherwise."""
    return ProgressBar(stream, title) if shows_console(format, stream) and stream.isatty() else None


class ProgressBar:
    """Draws one line and leaves the cursor at its start, so that the next output, such as a line of
    the log, overwrites it. At the end it clears the line."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._title = title
        self._shown = ""

    def __call__(self, done: int, total: int) -> None:
        """Show how much is done."""
        text = "" if done >= total else self._text(done, total)
        if text != self._shown:
            self._stream.write(f"\x1b[2K{text}\r")
            self._stream.flush()
            self._shown = text

    def _text(self, done: int, total: int) -> str:
        filled = WIDTH * done // total
        bar = "#" * filled + "." * (WIDTH - filled)
        return f"{self._title} [{bar}] {100 * done // total:3} %"
