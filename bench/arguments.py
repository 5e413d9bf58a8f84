"""What the command lines of all benches understand alike."""

from __future__ import annotations


def names(text: str) -> list[str]:
    """A list with commas, for an argument's `type`."""
    return [part.strip() for part in text.split(",") if part.strip()]
