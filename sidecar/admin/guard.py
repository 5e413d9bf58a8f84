"""Who may use the admin endpoint, and how its answers are protected in a browser.

Three dangers, three answers:
* Somebody else on the network: a bearer token, compared in constant time. Probes and the files of
  the web page, which contain no data, need none.
* Another web page in the operator's browser (cross-site requests): every action is a POST with
  `Content-Type: application/json`, which a browser sends to another origin only after a preflight
  request, and that is never granted. Requests that say they come from another site are refused.
* Such a page under a host name that resolves to this address (DNS rebinding): without a token, only
  requests that name this host by an address or as localhost are answered. With a token the name
  does not matter, because the page does not have the token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = frozenset({"/livez", "/readyz", "/healthz"})

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """Decides about each request. `files` are paths that need no token."""

    def __init__(self, token: str, files: frozenset[str]) -> None:
        self._token = token.encode()
        self._open = OPEN | files

    def use_token(self, token: str) -> None:
        """Ask for this token from now on."""
        self._token = token.encode()

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request that is refused; None if it may pass."""
        if self._token:
            if request.path not in self._open and not self._has_token(request):
                return failure(
                    401,
                    "a token is needed: Authorization: Bearer <admin.token>",
                    {"WWW-Authenticate": 'Bearer realm="redis-sidecar"'},
                )
        elif not names_this_host(request.headers.get("Host", "")):
            return failure(
                403, "unknown host name; use an address or localhost, or set admin.token"
            )
        if request.method not in ("GET", "HEAD"):
            return self._cross_site(request)
        return None

    def _has_token(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        shown = given.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown, self._token)

    @staticmethod
    def _cross_site(request: web.Request) -> web.Response | None:
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (
            origin is not None and urlsplit_host(origin) != request.headers.get("Host", "").lower()
        ):
            return failure(403, "the request comes from another site")
        return None


def failure(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as JSON."""
    return web.json_response({"error": text}, status=status, headers=headers)


def urlsplit_host(origin: str) -> str:
    """The host and port of an Origin header; empty if it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def names_this_host(host: str) -> bool:
    """Whether a Host header is an address or localhost: names that nobody else can register."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of the framework in the same form as our own."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return failure(error.status, error.reason.lower(), headers)
