"""What is closed at the end of a `with` block: connections, child processes, threads."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """A context manager whose end is `close`."""

    def close(self) -> None:
        """End it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
