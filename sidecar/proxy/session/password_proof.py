"""Judges passwords of clients against the hashes of `identities.file`, off the loop.

A verification takes tens of milliseconds and megabytes on purpose, so it runs in one of a few
threads, and only so many wait. The same password of the same principal is verified once at a time,
and what was accepted is remembered for a while as a keyed digest: a thousand clients that come back
after a restart cost one verification. What was refused is not remembered.

A name that nobody has costs the same work as one that somebody has, and all hashes of a principal
are tried: time tells nothing. Wrong passwords slow down (policy/login_attempts.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from sidecar import passwords
from sidecar.policy.login_attempts import LoginAttempts
from sidecar.proxy.session.identity_book import IdentityBook

log = structlog.get_logger()

THREADS = 2
# Verifications that wait for a thread; with the default costs they take about two seconds.
MOST_WAITING = 64
# Accepted passwords that are remembered, and for how many seconds.
MOST_KNOWN = 1024
REMEMBER = 3600.0


class BusyError(Exception):
    """Too many logins at once: this one was not looked at."""


class PasswordProof:
    """Judges passwords by what `book` says at that moment."""

    def __init__(self, book: IdentityBook) -> None:
        self._book = book
        self._attempts = LoginAttempts()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()  # digest: until when
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._decoys: list[str] = []
        self._make_decoys()
        book.on_change(self._make_decoys)

    async def judge(self, address: str, user: bytes, password: bytes) -> bool:
        """Whether this is the user's password. Raises BusyError."""
        wait = self._attempts.turn(address, user, time.monotonic())
        if wait is None:
            raise BusyError
        if wait:
            try:
                await asyncio.sleep(wait)
            finally:
                self._attempts.begin(address, user, time.monotonic())
        accepted = await self._judged(user, password)
        self._attempts.judged(address, user, accepted, time.monotonic())
        return accepted

    async def _judged(self, user: bytes, password: bytes) -> bool:
        hashes = self._hashes_of(user)
        digest = self._digest(user, password, hashes)
        if self._known.get(digest, 0.0) > time.monotonic():
            self._known.move_to_end(digest)
            return True
        running = self._running.get(digest)
        if running is None:
            if len(self._running) >= MOST_WAITING:
                raise BusyError
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, _fits_any, password, hashes)
            self._running[digest] = running
            running.add_done_callback(lambda _: self._running.pop(digest, None))
        accepted = await asyncio.shield(running)
        if accepted:
            self._known[digest] = time.monotonic() + REMEMBER
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return accepted

    def _hashes_of(self, user: bytes) -> Sequence[str]:
        """The user's hashes, and as many others as make their number that of every user."""
        principal = self._book.file.principals.get(user.decode("utf-8", "replace"))
        own = principal.passwords if principal is not None else ()
        return (*own, *self._decoys[len(own) :])

    def _digest(self, user: bytes, password: bytes, hashes: Sequence[str]) -> bytes:
        found = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (user, password, *(text.encode() for text in hashes)):
            found.update(len(part).to_bytes(8, "big") + part)
        return found.digest()

    def _make_decoys(self) -> None:
        """Hashes that nobody's password fits, of the kind that the file has."""
        every = [principal.passwords for principal in self._book.file.principals.values()]
        like = next((each[0] for each in every if each), None)
        most = max(map(len, every), default=0)
        self._decoys = [passwords.decoy(like) for _ in range(most)] if like is not None else []

    def close(self) -> None:
        """End the threads, once they have done what they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _fits_any(password: bytes, hashes: Sequence[str]) -> bool:
    """Whether a password fits one of these hashes; all of them are tried."""
    return sum([passwords.verify(password, each) for each in hashes]) > 0
