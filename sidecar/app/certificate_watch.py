"""Watches the certificate files that the settings name: has them read again when one changes, and
warns before one ends.

Only versions of files are looked at (Kubernetes swaps them as a whole, by a symbolic link). A
certificate and its key may be written one after the other, so a change counts once the files have
stayed the same from one look to the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from sidecar.admin.answers import Certificate
from sidecar.admin.certificates import Certificates
from sidecar.file_version import Version, file_version
from sidecar.policy.expiry import words
from sidecar.settings.schema import Settings

log = structlog.get_logger()

# Seconds between two looks at the files, between two looks at the clock, and between two warnings
# about the same file.
LOOK = 0.5
CLOCK = 60.0
AGAIN = 86400.0


def files_of(settings: Settings) -> list[str]:
    """The certificate files of all sections, in a fixed order."""
    sections = (settings.listen.tls, settings.upstream.tls, settings.admin.tls)
    names = ("cert_file", "key_file", "ca_file", "crl_file")
    found = (getattr(section, name, "") for section in sections for name in names)
    return list(dict.fromkeys(path for path in found if path))


class CertificateWatch:
    """Watches the files of `settings()`. `renew` reads them again; it logs its errors, and raises
    none."""

    def __init__(
        self, settings: Callable[[], Settings], renew: Callable[[], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._renew = renew
        self._used = self._versions()  # those that the certificates in use were read from
        self._last = self._used
        self._certificates = Certificates(settings, time.time)
        self._told: dict[str, tuple[object, float]] = {}

    async def run(self) -> None:
        """Never ends."""
        clock = 0.0
        while True:
            if time.monotonic() >= clock:
                clock = time.monotonic() + CLOCK
                self.warn(time.time())
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Have the files read again if they have changed, and change no more."""
        now, last = self._versions(), self._last
        self._last = now
        if now == self._used or now != last:
            return
        changed = [path for path in now if self._used.get(path) != now[path]]
        self._used = now
        if changed and self._settings().reload.certificates:
            log.info("certificate files changed", files=changed)
            await self._renew()
            self.warn(time.time())

    def warn(self, now: float) -> None:
        """Log what ends soon, has ended, or has not begun (`now` is Unix time): at once, and then
        once a day."""
        for each in self._certificates():
            why = _words(each, now)
            over = each.not_after is not None and now >= each.not_after
            before, at = self._told.get(each.use, ((), 0.0))
            if not why:
                self._told.pop(each.use, None)
            elif before != (each.not_after, over) or now - at >= AGAIN:
                self._told[each.use] = ((each.not_after, over), now)
                write = log.error if over else log.warning
                write(
                    "certificate ends",
                    setting=each.use,
                    file=each.file,
                    certificate=each.subject,
                    reason=why,
                )

    def _versions(self) -> Mapping[str, Version]:
        return {path: file_version(path) for path in files_of(self._settings())}


def _words(each: Certificate, now: float) -> str:
    """What is wrong with it; empty: nothing. Files that cannot be read are the reload's business,
    and a list may say nothing of its end."""
    if each.not_before is None or each.not_after is None:
        return ""
    return words(each.not_before, each.not_after, now)
