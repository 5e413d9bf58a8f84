"""The certificates that the settings name, and how long they are valid.

Each file is read at most once for each of its changes. What is shown is what the next reload takes
into use, or the last one has taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.admin.answers import Certificate
from sidecar.file_version import Version, file_version
from sidecar.settings.schema import Settings
from sidecar.tls.pem import Validity, first_list_to_expire, first_to_expire


class Certificates:
    """The certificates that `settings()` names; `clock` returns seconds since 1970."""

    def __init__(self, settings: Callable[[], Settings], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._read: dict[str, tuple[Version, Validity]] = {}

    def __call__(self) -> Sequence[Certificate]:
        now = self._settings()
        listen, upstream, admin = now.listen.tls, now.upstream.tls, now.admin.tls
        named = {
            "listen.tls.cert_file": listen.cert_file,
            "listen.tls.ca_file": listen.ca_file,
            "listen.tls.crl_file": listen.crl_file,
            "upstream.tls.cert_file": upstream.cert_file,
            "upstream.tls.ca_file": upstream.ca_file,
            "upstream.tls.crl_file": upstream.crl_file,
            "admin.tls.cert_file": admin.cert_file,
            "admin.tls.ca_file": admin.ca_file,
            "admin.tls.crl_file": admin.crl_file,
        }
        return [self._of(use, file) for use, file in named.items() if file]

    def _of(self, use: str, file: str) -> Certificate:
        found, reason = None, None
        try:
            found = self._content(use, file)
        except (OSError, ValueError) as error:
            self._read.pop(file, None)
            reason = error.strerror if isinstance(error, OSError) else "not a PEM certificate"
        # A list may say nothing of its end.
        ends = None if found is None or found.ends == float("inf") else found.ends
        return Certificate(
            use=use,
            file=file,
            subject=None if found is None else found.subject,
            not_before=None if found is None else found.begins,
            not_after=ends,
            seconds_left=None if ends is None else round(ends - self._clock()),
            error=reason,
        )

    def _content(self, use: str, file: str) -> Validity:
        changed = file_version(file)
        read_at, content = self._read.get(file, (None, None))
        if read_at != changed or content is None:
            read = first_list_to_expire if use.endswith("crl_file") else first_to_expire
            content = read(file)
            self._read[file] = (changed, content)
        return content
