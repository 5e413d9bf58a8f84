"""What the credential helpers of this folder share: HTTP, the output, errors without secrets.

Standard library only. An error is one line that names a place, never what was sent or received:
those are tokens.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

# Metadata servers answer in milliseconds, a token service within a second or two. All of it must
# end within `upstream.credential_timeout` (10 s as it ships).
TIMEOUT = 3.0
LONGEST = 1 << 20


class Failure(Exception):
    """There are no credentials; one line, without secrets."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        """No: a token that was sent to one host must not reach another."""


def fetch(
    url: str,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    *,
    method: str | None = None,
    proxied: bool = False,
) -> str:
    """The body of a successful answer; `form` is posted. Metadata servers are never asked through a
    proxy: it would be another machine's metadata."""
    place = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}{urlsplit(url).path}"
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if not proxied:
        handlers.append(urllib.request.ProxyHandler({}))
    data = urlencode(form).encode() if form is not None else None
    try:
        request = urllib.request.Request(url, data, dict(headers or {}), method=method)
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as answer:
            text: str = answer.read(LONGEST).decode()
    except urllib.error.HTTPError as error:
        error.close()
        raise Failure(f"{place} answers with status {error.code}") from None
    except urllib.error.URLError as error:
        raise Failure(f"cannot reach {place}: {error.reason}") from None
    except UnicodeDecodeError:
        raise Failure(f"{place} answers with something that is not text") from None
    except (OSError, ValueError, HTTPException) as error:
        raise Failure(f"cannot reach {place}: {type(error).__name__}") from None
    return text


def fetch_json(url: str, *args: Any, **named: Any) -> dict[str, Any]:
    """The object that the answer holds; see `fetch`."""
    try:
        said = json.loads(fetch(url, *args, **named))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Failure(f"{urlsplit(url).netloc} answers with something that is not a JSON object")
    return said


def field(said: Mapping[str, Any], name: str, what: str) -> str:
    """A field that must be there."""
    value = said.get(name)
    if not isinstance(value, str) or not value:
        raise Failure(f"the answer of {what} has no {name}")
    return value


def seconds(said: Mapping[str, Any], name: str, what: str) -> float:
    """A number of seconds that must be there; some services write it as a string."""
    try:
        return float(said[name])
    except (KeyError, TypeError, ValueError):
        raise Failure(f"the answer of {what} has no number {name}") from None


def read_file(path: str, what: str) -> str:
    """The text of a small file."""
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Failure(f"{what}: cannot read {path}: {why}") from None
    if not text:
        raise Failure(f"{what}: {path} is empty")
    return text


def run(credentials: Callable[[], tuple[str, str, float]]) -> None:
    """Print what the sidecar expects: user, password, and how many seconds they are good for."""
    try:
        user, password, expires_in = credentials()
        if expires_in <= 0:
            raise Failure("the credentials have expired already; is the clock of this host right?")
    except Failure as failure:
        sys.exit(f"{Path(sys.argv[0]).name}: {' '.join(str(failure).split())}")
    print(json.dumps({"username": user, "password": password, "expires_in": int(expires_in)}))
