"""The certificates that the settings name, and how long they are valid.

Read from the files, at most once for each change of a file: what is shown is what the next reload
takes into use, or has taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.settings.schema import Settings
from sidecar.tls import first_to_expire


class Certificates:
    """The certificates of `settings`; `clock` returns seconds since 1970."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        listen, upstream, admin = settings.listen.tls, settings.upstream.tls, settings.admin.tls
        named = {
            "listen.tls.cert_file": listen.cert_file,
            "listen.tls.ca_file": listen.ca_file,
            "upstream.tls.cert_file": upstream.cert_file,
            "upstream.tls.ca_file": upstream.ca_file,
            "admin.tls.cert_file": admin.cert_file,
        }
        self._files = {use: file for use, file in named.items() if file}
        self._clock = clock
        self._read: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def __call__(self) -> Sequence[Mapping[str, Any]]:
        return [self._of(use, file) for use, file in self._files.items()]

    def _of(self, use: str, file: str) -> Mapping[str, Any]:
        facts: Mapping[str, Any]
        try:
            changed = os.stat(file).st_mtime
            if self._read.get(file, (None,))[0] != changed:
                self._read[file] = (changed, _facts(file))
            facts = self._read[file][1]
        except (OSError, ValueError) as error:
            self._read.pop(file, None)
            reason = error.strerror if isinstance(error, OSError) else "not a PEM certificate"
            facts = {"subject": None, "not_after": None, "error": reason}
        end = facts["not_after"]
        left = None if end is None else round(end - self._clock())
        return {"use": use, "file": file, **facts, "seconds_left": left}


def _facts(file: str) -> Mapping[str, Any]:
    subject, not_after = first_to_expire(file)
    return {"subject": subject, "not_after": not_after, "error": None}
