"""Who may use the admin endpoint, and how its answers are protected in a browser.

Three dangers, three answers:
* Somebody else on the network: a bearer token (tokens.py) or a client certificate. Each has a role:
  `read` may ask, `operate` may act as well. Probes and the files of the web page, which contain no
  data, need neither.
* Another web page in the operator's browser (cross-site requests): every action is a POST with
  `Content-Type: application/json`, which a browser sends to another origin only after a preflight
  request, and that is never granted. Requests that say they come from another site are refused.
* Such a page under a host name that resolves to this address (DNS rebinding): without a token, only
  requests that name this host by an address or as localhost are answered. With a token the name
  does not matter, because the page does not have the token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from sidecar.admin.tokens import Tokens
from sidecar.settings.sections.operations import AdminTls
from sidecar.settings.tokens import Token

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Of a request: who has sent it, for the audit stream.
WHO = web.RequestKey("who", str)
READING = ("GET", "HEAD")
OPEN = frozenset({"/livez", "/readyz", "/healthz"})

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """Decides about each request. `files` are paths that need no token. `refused` counts by reason:
    token, role, host, site."""

    def __init__(self, tokens: Tokens, tls: AdminTls, files: frozenset[str]) -> None:
        self._tokens = tokens
        self._open = OPEN | files
        self.refused: Counter[str] = Counter(token=0, role=0, host=0, site=0)
        self.use(tls)

    def use(self, tls: AdminTls) -> None:
        """Certificates count as these settings say from now on."""
        self._role = tls.client_role if tls.client_auth != "none" else "none"
        self._certified = tls.client_auth != "none"

    @property
    def wants_token(self) -> bool:
        """Whether who has no certificate needs a token."""
        return bool(self._tokens) or self._certified

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request that is refused; None if it may pass."""
        found = self._refusal(request)
        if found is None:
            return None
        why, response = found
        self.refused[why] += 1
        return response

    def still_allows(self, request: web.Request) -> bool:
        """Whether a request that has passed would pass now: its token may be gone."""
        return self._refusal(request) is None

    def _refusal(self, request: web.Request) -> tuple[str, web.Response] | None:
        if self.wants_token:
            who = self._who(request)
            if request.path not in self._open:
                if who is None:
                    return "token", failure(
                        401,
                        "a token is needed: Authorization: Bearer <admin.token>",
                        {"WWW-Authenticate": 'Bearer realm="redis-sidecar"'},
                    )
                request[WHO] = who.name or who.role
                if who.role == "read" and request.method not in READING:
                    return "role", failure(403, "this token is for reading only")
        elif not names_this_host(request.headers.get("Host", "")):
            return "host", failure(
                403, "unknown host name; use an address or localhost, or set admin.token"
            )
        if request.method not in READING and (refused := self._cross_site(request)) is not None:
            return "site", refused
        return None

    def _who(self, request: web.Request) -> Token | None:
        """Who has sent this: the token decides if there is one, else the certificate."""
        given = request.headers.get("Authorization")
        if given is not None:
            scheme, _, shown = given.partition(" ")
            secret = shown.strip().encode("utf-8", "surrogateescape")
            return self._tokens.find(secret) if scheme.lower() == "bearer" else None
        subject = _subject(request)
        if subject is None or self._role == "none":
            return None
        return Token("", self._role, subject)

    @staticmethod
    def _cross_site(request: web.Request) -> web.Response | None:
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (
            origin is not None and urlsplit_host(origin) != request.headers.get("Host", "").lower()
        ):
            return failure(403, "the request comes from another site")
        return None


def _subject(request: web.Request) -> str | None:
    """The common name of the client's certificate, which TLS has checked; None without one."""
    found = request.transport.get_extra_info("peercert") if request.transport is not None else None
    if not found:
        return None
    names = dict(pair for part in found.get("subject", ()) for pair in part)
    return str(names.get("commonName", "certificate"))


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
