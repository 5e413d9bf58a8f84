"""Credentials that change: of the sidecar itself towards the servers, and towards the Sentinels.

They come from a *source*: files that somebody swaps (Kubernetes puts a new symlink in their place),
or a program that prints a token with a date of expiry. A source is read when it has changed, before
what it gave expires, and at once when a server refuses what it gave. Whoever connects takes the
newest.

Reads and remembers; connects to nothing. No password is ever logged, nor what a program has
printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from sidecar.file_version import Version, file_version

log = structlog.get_logger()

# Seconds. Files are looked at so often, and a source that failed is read again so soon.
LOOK = 0.5
RETRY = 1.0
# A source that is refused again and again is not read more often than this.
AT_MOST_EVERY = 0.2
# What a program gave is renewed when this share of its life is over.
RENEW_AT = 0.66
LONGEST = 1 << 20  # bytes of a file, or of a program's output
PART = 1 << 16


class CredentialError(Exception):
    """A source gives no credentials; one line: which setting, what is wrong, what to do."""


@dataclass(frozen=True)
class Given:
    """What a source gave. `user` empty: the default user, by the password alone. `expires_in` in
    seconds, None: never."""

    user: bytes
    password: bytes
    expires_in: float | None = None

    def same_login(self, other: Given) -> bool:
        """Whether both are the same user and password, however long they are good for."""
        return (self.user, self.password) == (other.user, other.password)


class Source(Protocol):
    """Where credentials come from."""

    async def read(self) -> Given:
        """Read them. Raises CredentialError."""

    def has_changed(self) -> bool:
        """Whether there is reason to read again before expiry; cheap."""


class Files:
    """A file with the password, one with the user, or both; `given` has what stands in no file.
    `section` is that of the settings, for messages."""

    def __init__(self, section: str, given: Given, user_file: str, password_file: str) -> None:
        self._section = section
        self._fixed = given
        self._user_file = user_file
        self._password_file = password_file
        self._seen: Sequence[Version] = ()

    async def read(self) -> Given:
        """See Source. What is read is short and local, so it is not worth a thread."""
        self._seen = self._look()
        user, password = self._fixed.user, self._fixed.password
        if self._user_file:
            user = self._text("username_file", self._user_file)
        if self._password_file:
            password = self._text("password_file", self._password_file)
        return Given(user, password)

    def has_changed(self) -> bool:
        """See Source."""
        return self._look() != self._seen

    def _look(self) -> Sequence[Version]:
        return [file_version(path) for path in (self._user_file, self._password_file) if path]

    def _text(self, name: str, path: str) -> bytes:
        try:
            with open(path, "rb") as file:
                text = file.read(LONGEST).rstrip(b"\r\n")
        except OSError as error:
            raise CredentialError(
                f"{self._section}.{name}: cannot read {path}: {error.strerror}"
            ) from None
        if not text:
            raise CredentialError(f"{self._section}.{name}: {path} is empty; write it again")
        return text


class Program:
    """A program that prints {"username": …, "password": …, "expires_in": …} as JSON; only the
    password is needed. It must end within `timeout` seconds."""

    def __init__(self, section: str, user: bytes, argv: Sequence[str], timeout: float) -> None:
        self._name = f"{section}.credential_command"
        self._user = user
        self._argv = argv
        self._timeout = timeout

    async def read(self) -> Given:
        """See Source."""
        return self._given(await self._run())

    def has_changed(self) -> bool:
        """See Source: only the program knows."""
        return False

    async def _run(self) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # with whatever it starts it is ended as one
            )
        except OSError as error:
            raise self._error(f"cannot run {self._argv[0]}: {error.strerror}") from None
        try:
            async with asyncio.timeout(self._timeout):
                output = await self._output(process)
                await process.wait()
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if isinstance(error, TimeoutError):
                why = f"{self._argv[0]} did not end within {self._timeout:g} s"
                raise self._error(why) from None
            raise
        if process.returncode:
            raise self._error(f"{self._argv[0]} ended with status {process.returncode}")
        return output

    async def _output(self, process: asyncio.subprocess.Process) -> bytes:
        """What it prints. More than can be right is not read: it might never end."""
        assert process.stdout is not None
        output = bytearray()
        while part := await process.stdout.read(PART):
            output += part
            if len(output) > LONGEST:
                raise self._error(f"it prints more than {LONGEST >> 20} MiB")
        return bytes(output)

    def _given(self, output: bytes) -> Given:
        try:
            said = json.loads(output)
        except (ValueError, RecursionError):
            raise self._error("what it prints is not JSON") from None
        if not isinstance(said, dict) or not isinstance(said.get("password"), str):
            raise self._error('it prints no object with a "password"')
        user, expires_in = said.get("username"), said.get("expires_in")
        if not isinstance(user, str | None):
            raise self._error('its "username" is not a string')
        if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | None):
            raise self._error('its "expires_in" is not a number of seconds')
        if expires_in is not None and not expires_in > 0:
            raise self._error('its "expires_in" is not above zero: what it gives has expired')
        try:
            password = said["password"].encode()
            return Given(user.encode() if user else self._user, password, expires_in)
        except UnicodeEncodeError:
            raise self._error("what it prints is not Unicode text") from None

    def _error(self, why: str) -> CredentialError:
        return CredentialError(f"{self._name}: {why}; run it by hand to see what is wrong")


class CredentialSettings(Protocol):
    """The settings of a section that say where its credentials come from."""

    @property
    def username(self) -> str: ...
    @property
    def username_file(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def password_file(self) -> str: ...
    @property
    def credential_command(self) -> tuple[str, ...]: ...
    @property
    def credential_timeout(self) -> float: ...


def fixed(settings: CredentialSettings, user: str = "", password: str = "") -> Given:
    """The credentials in the settings themselves, else these (of the URL)."""
    return Given((settings.username or user).encode(), (settings.password or password).encode())


def source_of(section: str, settings: CredentialSettings, given: Given) -> Source | None:
    """The source that the settings of this section name; None if the credentials never change.
    `given` is taken where the source gives nothing."""
    if settings.credential_command:
        timeout = settings.credential_timeout
        return Program(section, given.user, settings.credential_command, timeout)
    if settings.username_file or settings.password_file:
        return Files(section, given, settings.username_file, settings.password_file)
    return None


class Credentials:
    """The newest credentials of a source. Call `watch` in a task of its own."""

    def __init__(self, section: str, source: Source, first: Given) -> None:
        self._section = section
        self._source = source
        self.now = first
        self._changed: list[Callable[[], None]] = []
        self._renewing: asyncio.Task[None] | None = None
        self._read_at = time.monotonic()
        self._retry_at: float | None = None

    @classmethod
    async def begin(cls, section: str, source: Source) -> Credentials:
        """Read the source for the first time. Raises CredentialError."""
        return cls(section, source, await source.read())

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call this whenever there are other credentials."""
        self._changed.append(changed)

    async def renewed(self, used: Given) -> bool:
        """A server has refused these: read the source at once. Whether there are others now."""
        if self._is_new(used):
            return True
        early = self._read_at + AT_MOST_EVERY - time.monotonic()
        if early > 0 and not self._source.has_changed():
            await asyncio.sleep(early)
        if not self._is_new(used):
            await self._renew()
        return self._is_new(used)

    def _is_new(self, used: Given) -> bool:
        return not self.now.same_login(used)

    async def watch(self) -> None:
        """Read the source whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK, max(0.0, self._due - time.monotonic())))
            if self._source.has_changed() or time.monotonic() >= self._due:
                await self._renew()

    @property
    def _due(self) -> float:
        if self._retry_at is not None:
            return self._retry_at
        lasts = self.now.expires_in
        if lasts is None:
            return float("inf")
        return self._read_at + max(AT_MOST_EVERY, lasts * RENEW_AT)

    async def _renew(self) -> None:
        """Read the source, unless that is under way: then wait for it."""
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._read())
        await asyncio.shield(self._renewing)

    async def _read(self) -> None:
        before = self.now
        try:
            given = await self._source.read()
        except CredentialError as error:
            if self._retry_at is None:
                log.error("credentials unread", error=str(error))
            self._read_at = time.monotonic()
            self._retry_at = self._read_at + RETRY
            return
        finally:
            self._renewing = None
        self._read_at, self._retry_at, self.now = time.monotonic(), None, given
        if self._is_new(before):
            user = given.user.decode("utf-8", "replace") or "default"
            log.info("credentials renewed", section=self._section, user=user)
            for changed in self._changed:
                changed()
