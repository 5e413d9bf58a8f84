"""Writes what clients do to the audit stream, with user, database, id and address.

It gets the notes of core/observe/audit_notes, and hands records to telemetry/audit.py.
"""

from __future__ import annotations

from sidecar.policy.audited_commands import LOGINS, UNKNOWN, shown
from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.session.client_list import printable_address
from sidecar.telemetry.audit import Audit
from sidecar.tls.faults import OF_CERTIFICATES
from sidecar.tls.handshake import Layer
from sidecar.tls.pem import identity

NO_DB = -1  # left out of the record


class AuditTrail:
    """Writes to `stream`."""

    def __init__(self, stream: Audit) -> None:
        self.stream = stream

    def noted(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """Write a note of the plane; see Plane.use_audit."""
        if client is None:
            self.stream.note(kind, detail=command)
            return
        who = (*self._identity(client), client.id, _address(client))
        if client.mode == PINNED_MODE and command in LOGINS:
            client.passed_login = True
        if kind != "command":
            self.stream.denied(kind, command, *who)
        elif (subcommand := shown(command, second.decode("latin-1"))) is not None:
            self.stream.command(command, subcommand, *who)

    def _identity(self, client: Client) -> tuple[str, int]:
        """User and database. A pinned client's AUTH and SELECT pass by: then they are not known."""
        login = client.identity.login
        if client.mode != PINNED_MODE:
            client.passed_login = False
            return _text(login.user), login.db
        return UNKNOWN if client.passed_login else _text(login.user), NO_DB

    def arrived(self, client: Client, tls: Layer | None) -> None:
        """Write whose certificate a client has shown, if it has shown one."""
        shown = tls[0].getpeercert(True) if tls is not None else None
        if shown:
            self.stream.certificate("accepted", identity(shown), client.id, _address(client))

    def turned_away(self, reason: str, who: str, address: object) -> None:
        """Write that a client was refused for its certificate, or for want of one. `who` it says
        that it is; `reason` is one of tls.faults.REASONS."""
        if reason in OF_CERTIFICATES:
            shown = printable_address(address).decode() or "unix"
            self.stream.certificate(reason, who, 0, shown)

    def login(self, client: Client, user: bytes | None, accepted: bool) -> None:
        """Write that the server accepted or refused a client's credentials."""
        self.stream.login(accepted, _text(user), client.id, _address(client))


def _text(user: bytes | None) -> str:
    return (user or b"default").decode("utf-8", "replace")


def _address(client: Client) -> str:
    return printable_address(client.peer).decode() or "unix"
