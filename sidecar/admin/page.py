"""The web page: static files of this package, read once, with a strict content security policy.

The files contain no data, so they need no token; the data comes through the API. The ETag of a file
is its digest: a browser asks each time, and gets 304 unless the sidecar has been replaced by
another version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
INDEX = "index.html"


@dataclass(frozen=True)
class _File:
    body: bytes
    type: str
    digest: str


class Page:
    """The files, by path: `/` and `/web/…`."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        for entry in files("sidecar.admin").joinpath("web").iterdir():
            kind = TYPES.get(entry.name.rpartition(".")[2])
            if kind is not None:
                body = entry.read_bytes()
                digest = hashlib.sha256(body).hexdigest()[:32]
                path = "/" if entry.name == INDEX else f"/web/{entry.name}"
                self._files[path] = _File(body, kind, digest)

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all files."""
        return frozenset(self._files)

    async def serve(self, request: web.Request) -> web.Response:
        """Answer with one file."""
        file = self._files[request.path]
        etag = f'"{file.digest}"'
        headers = {
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-cache",
            "ETag": etag,
        }
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers={**headers, "Content-Type": file.type})
