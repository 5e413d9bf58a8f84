"""The commands that the sidecar knows before a server has told its own (see routing.py)."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def shipped_commands() -> dict[str, Any]:
    """What `rows_from_data` and `catalogue_from_data` take, by name."""
    data = files("sidecar.policy").joinpath("commands.json").read_text()
    found: dict[str, Any] = json.loads(data)
    return found
