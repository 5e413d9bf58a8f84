"""Asks the admin endpoint of a running sidecar, for the commands that need one."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from sidecar.settings.tokens import read_tokens

# Seconds for an answer. An action may take longer: it waits for commands that are under way.
TIMEOUT = 5.0
ACTION_TIMEOUT = 40.0


class Where(NamedTuple):
    """An admin address, with `https://` before it if it speaks TLS; then the files (PEM) to check
    its certificate against, and to show."""

    address: str
    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """The TLS context. Raises OSError."""
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context


class NoAnswer(Exception):
    """The admin endpoint did not answer, or refuses; the message is one line: why, and what to
    do."""


def get(admin: Where, path: str) -> Any:
    """The JSON at this path. Raises NoAnswer."""
    return _ask(admin, path, None, TIMEOUT)


def post(admin: Where, path: str, body: Mapping[str, Any]) -> Any:
    """The JSON that an action answers. Raises NoAnswer."""
    return _ask(admin, path, json.dumps(body).encode(), ACTION_TIMEOUT)


def _ask(admin: Where, path: str, body: bytes | None, timeout: float) -> Any:
    base = admin.address if "://" in admin.address else f"http://{admin.address}"
    url = base.rstrip("/") + path
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        if secret := token(os.environ):
            request.add_unredirected_header("Authorization", f"Bearer {secret}")
        context = admin.context() if base.startswith("https://") else None
        with urllib.request.urlopen(request, timeout=timeout, context=context) as response:
            said = json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode("utf-8", "replace")
        raise NoAnswer(f"{url}: {error.code} {_reason(said)}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(nobody(admin, str(reason))) from error
    if not isinstance(said, dict):
        raise NoAnswer(nobody(admin, "what answers there is something else"))
    return said


def _reason(said: str) -> str:
    """The reason in an error's body, or the body as it is."""
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return said


def nobody(admin: Where, reason: str) -> str:
    """The message where no sidecar answers."""
    return f"no sidecar answers at {admin.address}: {reason}; give its admin address with --admin"


def token(environ: Mapping[str, str]) -> str:
    """The admin token, from the same variables as the sidecar's; of several the first that allows
    everything. Raises OSError, ValueError if the file named there cannot be used."""
    if file := environ.get("SIDECAR_ADMIN__TOKEN_FILE"):
        known = sorted(read_tokens(file), key=lambda token: token.role != "operate")
        return known[0].secret
    return environ.get("SIDECAR_ADMIN__TOKEN") or environ.get("SIDECAR_ADMIN__READ_TOKEN", "")
