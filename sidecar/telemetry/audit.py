"""The audit stream itself: the records, and the file or standard output that they are written to.

A record is a JSON line with `"audit": true`: who did it, from where, which command and subcommand;
never an argument, a value or a secret. Making a record costs well under a microsecond; a thread
encodes and writes it (writer.py).

Others decide what is recorded: policy/audited_commands.py which commands, core/observe/audit_notes
notes them as they pass, proxy/session/audit_trail.py adds who and where, and
admin/audited_calls.py does the same for the admin API.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Literal

import msgspec

from sidecar.telemetry.logs import iso
from sidecar.telemetry.snapshots import Lines
from sidecar.telemetry.writer import LineWriter

STDOUT = "-"
RECENT = 200


class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line. `event` is one of EVENTS (docs/logging.md). `time` is seconds since 1970, and ISO
    8601 in the line. `audit` tells these lines from others in the same stream."""

    audit: Literal[True]
    time: float | str
    event: str
    result: str = ""
    user: str = ""
    client: int = 0
    address: str = ""
    db: int = -1
    command: str = ""
    subcommand: str = ""
    detail: str = ""


EVENTS: Mapping[str, str] = {
    "started": "The audit stream begins; `detail` is the version.",
    "stopped": "It ends in order.",
    "login": "AUTH or HELLO with credentials: `result` is accepted or refused.",
    "certificate": "Mutual TLS: `result` is accepted, or why not; `detail` says whose it is.",
    "command": "A dangerous command was sent to the server.",
    "denied": "The server or a policy refused a command: `result` is NOPERM or NOAUTH.",
    "admin": "A call of the admin API: `command` is the method, `detail` the path, `user` whose "
    "token or certificate it was.",
    "reload": "Certificates or settings were read again: `result` is done or failed.",
    "lost": "Commands came too fast to be recorded; `detail` is their number.",
}

_encode = msgspec.json.Encoder().encode


class AuditError(Exception):
    """The audit stream cannot be opened; the message is one line."""


class Audit:
    """The stream to `target`: a path, or "-" for standard output. Raises AuditError."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._writer = LineWriter(self._open(), _line)
        self._recent: deque[Record] = deque(maxlen=RECENT)

    def _open(self) -> int:
        try:
            if self._target == STDOUT:
                return os.dup(sys.stdout.fileno())
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            return os.open(self._target, flags, 0o600)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise AuditError(f"cannot write {self._target}: {reason}; check audit.file") from error

    def login(self, accepted: bool, user: str, client: int, address: str) -> None:
        """The server has accepted or refused AUTH or HELLO AUTH."""
        result = "accepted" if accepted else "refused"
        self._put(Record(True, time.time(), "login", result, user, client, address))

    def command(
        self, command: str, subcommand: str, user: str, db: int, client: int, address: str
    ) -> None:
        """A dangerous command is sent to the server."""
        self._put(
            Record(True, time.time(), "command", "", user, client, address, db, command, subcommand)
        )

    def denied(
        self, result: str, command: str, user: str, db: int, client: int, address: str
    ) -> None:
        """The server refused a command."""
        self._put(Record(True, time.time(), "denied", result, user, client, address, db, command))

    def admin(self, method: str, path: str, status: int, address: str, user: str) -> None:
        """The admin API was called. `path` has no query, which may contain a secret; `user` is the
        name or the role of the token, or the name in the certificate."""
        now, result = time.time(), str(status)
        self._put(
            Record(True, now, "admin", result, user, address=address, command=method, detail=path)
        )

    def certificate(self, result: str, identity: str, client: int, address: str) -> None:
        """A client has shown a certificate, or should have: it was accepted, or refused for the
        reason `result`. No client has the number 0."""
        now = time.time()
        record = Record(
            True, now, "certificate", result, client=client, address=address, detail=identity
        )
        self._put(record)

    def note(self, event: str, result: str = "", detail: str = "") -> None:
        """Any other event."""
        self._put(Record(True, time.time(), event, result, detail=detail))

    def _put(self, record: Record) -> None:
        self._recent.append(record)
        self._writer.put(record)

    def recent(self, most: int) -> list[Record]:
        """The newest records as they are written, newest first."""
        return [_written(record) for record in list(self._recent)[::-1][:most]]

    def reopen(self) -> None:
        """Continue in a new file of the same name: the old one may have been moved away."""
        if self._target != STDOUT:
            self._writer.redirect(self._open())

    def lines(self) -> Lines:
        """Lines written and dropped."""
        return Lines(written=self._writer.written, dropped=self._writer.dropped)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _line(record: Record) -> bytes:
    return _encode(_written(record)) + b"\n"


def _written(record: Record) -> Record:
    if isinstance(record.time, str):
        return record
    return msgspec.structs.replace(record, time=iso(record.time))
