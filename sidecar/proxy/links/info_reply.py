"""What a server's reply to INFO says: its fields, by name. Pure."""

from __future__ import annotations


def fields_of(info: str) -> dict[str, str]:
    """The fields of the text of INFO; what is no line of it is passed over."""
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line and line[:1] != "#")
