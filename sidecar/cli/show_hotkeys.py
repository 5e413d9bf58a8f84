"""`sidecar hotkeys`: the hottest keys of a running sidecar, as a table in the terminal.

Asks the admin endpoint of the sidecar; how keys are counted is none of its business.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.cli import admin_client

EVERY = 1.0
CLEAR = "\x1b[H\x1b[2J"


def show(admin: admin_client.Where, count: int, *, watch: bool, as_json: bool) -> int:
    """Print the hottest keys once, or each second until interrupted. Raises NoAnswer."""
    while True:
        answer = ask(admin, count)
        indent = None if watch else 2  # one line for each second, for programs
        text = json.dumps(answer, indent=indent) if as_json else table(answer["keys"])
        if watch and not as_json and sys.stdout.isatty():
            text = CLEAR + text
        print(text, flush=True)
        if not watch:
            return 0
        time.sleep(EVERY)


def ask(admin: admin_client.Where, count: int) -> Any:
    """The answer of the admin endpoint. Raises NoAnswer."""
    said = admin_client.get(admin, f"/api/hotkeys?count={count}")
    if not isinstance(said.get("keys"), list):
        what = "what answers there is something else"
        raise admin_client.NoAnswer(admin_client.nobody(admin, what))
    return said


def table(keys: Sequence[Mapping[str, Any]]) -> str:
    """The keys as a table: share, rates, database, whether the key is cached, and the key."""
    lines = [f"{'share':>7} {'keys/s':>9} {'reads/s':>9} {'writes/s':>9} {'db':>3} cached  key"]
    lines += [
        f"{key['share']:>7.2%} {key['rate']:>9,.0f} {key['reads']:>9,.0f} {key['writes']:>9,.0f} "
        f"{key['db']:>3} {'yes' if key['cached'] else '':<6}  {key['key']}"
        for key in keys
    ]
    return "\n".join(lines)
