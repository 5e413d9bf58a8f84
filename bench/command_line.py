"""What the command lines of all benches understand alike."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.harness.errors import Unavailable

RESULTS = Path(__file__).resolve().parent / "results"


def names(text: str) -> list[str]:
    """A list with commas, for an argument's `type`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def settings(texts: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE`, as `--sidecar-set` takes them."""
    pairs = (text.partition("=") for text in texts)
    return {key: value for key, _, value in pairs}


def terminal(width: int) -> Console:
    """The terminal; where it is none, so many columns."""
    return Console(width=None if sys.stdout.isatty() else width)


def progress(console: Console) -> Progress:
    """A bar that is gone when it is done."""
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*bar, TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def measuring(console: Console) -> Iterator[None]:
    """Ends the program, after what was started: with status 1 if something it needs is missing,
    and with 130 if SIGTERM or SIGINT interrupts it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except Unavailable as error:
        console.print(str(error), style="red")
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        console.print("interrupted; everything started has been ended")
        raise SystemExit(130) from error


def results_folder(wanted: Path | None, kind: str = "") -> Path:
    """Where results go: the folder that is wanted, or a new one in bench/results."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = wanted or RESULTS / "-".join(filter(None, (kind, stamp)))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shown(folder: Path) -> str:
    """The last line of a run."""
    return f"written to {os.path.relpath(folder)}"
