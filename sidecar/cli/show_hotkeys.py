"""`sidecar hotkeys`: the hottest keys of a running sidecar, as a table in the terminal.

Asks the admin endpoint of the sidecar; how keys are counted is none of its business.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

TIMEOUT = 5.0
EVERY = 1.0
CLEAR = "\x1b[H\x1b[2J"


class NoAnswer(Exception):
    """The admin endpoint did not answer; the message is one line: why, and what to do."""


def show(admin: str, count: int, *, watch: bool, as_json: bool) -> int:
    """Print the hottest keys once, or each second until interrupted. Raises NoAnswer."""
    while True:
        answer = ask(admin, count)
        text = json.dumps(answer, indent=2) if as_json else table(answer["keys"])
        if watch and sys.stdout.isatty():
            text = CLEAR + text
        print(text, flush=True)
        if not watch:
            return 0
        time.sleep(EVERY)


def ask(admin: str, count: int) -> Any:
    """The answer of the admin endpoint. Raises NoAnswer."""
    base = admin if "://" in admin else f"http://{admin}"
    url = f"{base.rstrip('/')}/api/hotkeys?count={count}"
    request = urllib.request.Request(url)
    try:
        if secret := token(os.environ):
            request.add_unredirected_header("Authorization", f"Bearer {secret}")
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            said = json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read(300).decode("utf-8", "replace")
        raise NoAnswer(f"{url}: {error.code} {said}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(_nobody(admin, str(reason))) from error
    if not isinstance(said, dict) or not isinstance(said.get("keys"), list):
        raise NoAnswer(_nobody(admin, "what answers there is something else"))
    return said


def _nobody(admin: str, reason: str) -> str:
    return f"no sidecar answers at {admin}: {reason}; give its admin address with --admin"


def token(environ: Mapping[str, str]) -> str:
    """The admin token, from the same variables as the sidecar's. Raises OSError if the file named
    there cannot be read."""
    if file := environ.get("SIDECAR_ADMIN__TOKEN_FILE"):
        with open(file, encoding="utf-8") as opened:
            return opened.read(4096).rstrip("\r\n")
    return environ.get("SIDECAR_ADMIN__TOKEN", "")


def table(keys: Sequence[Mapping[str, Any]]) -> str:
    """The keys as a table: share, rates, database, whether the key is cached, and the key."""
    lines = [f"{'share':>7} {'keys/s':>9} {'reads/s':>9} {'writes/s':>9} {'db':>3} cached  key"]
    lines += [
        f"{key['share']:>7.2%} {key['rate']:>9,.0f} {key['reads']:>9,.0f} {key['writes']:>9,.0f} "
        f"{key['db']:>3} {'yes' if key['cached'] else '':<6}  {key['key']}"
        for key in keys
    ]
    return "\n".join(lines)
