"""The progress bar: one line that is gone at the end, and nothing where no one looks."""

from __future__ import annotations

import io

from sidecar.telemetry.progress import ProgressBar, bar


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_it_grows_and_goes() -> None:
    stream = Terminal()
    show = ProgressBar(stream, "warming up")
    for done in (0, 50, 50, 100):
        show(done, 100)
    lines = stream.getvalue().split("\r")
    assert lines == [
        "\x1b[2Kwarming up [........................]   0 %",
        "\x1b[2Kwarming up [############............]  50 %",
        "\x1b[2K",
        "",
    ]


def test_nothing_to_do_shows_nothing() -> None:
    stream = Terminal()
    ProgressBar(stream, "warming up")(0, 0)
    assert stream.getvalue() == ""


def test_only_on_a_terminal_and_beside_a_log_for_people() -> None:
    assert bar("auto", Terminal(), "x") is not None
    assert bar("console", Terminal(), "x") is not None
    assert bar("json", Terminal(), "x") is None
    assert bar("console", io.StringIO(), "x") is None
