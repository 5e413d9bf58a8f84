"""The tokens that the admin port accepts: those of the settings, and those of a file.

The file is looked at twice a second, so that a token can be replaced without a signal: a new one
works, and one that is gone from it does not. A file that cannot be read, or has a line that is
wrong, changes nothing, and is logged.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence

import structlog

from sidecar.file_version import Version, file_version
from sidecar.settings.sections.operations import Admin
from sidecar.settings.tokens import Token, read_tokens

log = structlog.get_logger()

LOOK = 0.5  # seconds between two looks at the file


class Tokens:
    """The tokens of these settings. Raises OSError if the file cannot be used."""

    def __init__(self, settings: Admin) -> None:
        self._known: Sequence[tuple[bytes, Token]] = ()
        self._file = ""
        self._seen: Version = ()
        self.use(settings)

    def use(self, settings: Admin) -> None:
        """Accept the tokens of these settings from now on. Raises OSError if the file cannot be
        used: all stays as it was."""
        version = file_version(settings.token_file) if settings.token_file else ()
        known = _tokens(settings)
        self._settings, self._file, self._seen = settings, settings.token_file, version
        self._known = [(token.secret.encode(), token) for token in known]

    def __bool__(self) -> bool:
        """Whether there are any: then one is needed."""
        return bool(self._known)

    def find(self, shown: bytes) -> Token | None:
        """The token that somebody has shown. It takes as long whichever it is, and if it is
        none."""
        found = None
        for secret, token in self._known:
            if hmac.compare_digest(secret, shown):
                found = token
        return found

    async def watch(self) -> None:
        """Read the file again whenever it has changed. Never ends."""
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Read the file again if it has changed."""
        if not self._file or file_version(self._file) == self._seen:
            return
        self._seen = file_version(self._file)
        try:
            self.use(self._settings)
        except OSError as error:
            reason = error.strerror or str(error)
            log.error("admin tokens unread", file=self._file, error=reason)
        else:
            log.info("admin tokens renewed", file=self._file, tokens=len(self._known))


def _tokens(settings: Admin) -> Sequence[Token]:
    found = [Token(settings.token)] if settings.token else []
    if settings.read_token:
        found.append(Token(settings.read_token, "read"))
    if settings.token_file:
        try:
            found += read_tokens(settings.token_file)
        except ValueError as error:
            raise OSError(f"admin.token_file: {error}") from error
    return found
