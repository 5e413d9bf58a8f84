"""Colours of what commands print, if standard output is a terminal that wants them."""

from __future__ import annotations

import os
import sys


class Paint:
    """Marks what is well and what is not. `NO_COLOR` in the environment turns colours off."""

    def __init__(self) -> None:
        self._on = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def good(self, text: str) -> str:
        """Green."""
        return f"\x1b[32m{text}\x1b[0m" if self._on else text

    def bad(self, text: str) -> str:
        """Red."""
        return f"\x1b[31m{text}\x1b[0m" if self._on else text
