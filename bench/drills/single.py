"""One server, and what stands around it in the drills that replace no master."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from bench.drills import tokens
from bench.drills.named import order
from bench.drills.spec import Spec
from bench.drills.switches import Address
from bench.drills.world import Options
from tests.harness.fleet import Fleet
from tests.harness.programs import server_binary
from tests.harness.sentinels import SentinelProcess
from tests.harness.servers import Server, Settings

USER = tokens.USER
RULES = ("on", "~*", "&*", "+@all")


class Single:
    """A server."""

    ABOUT: ClassVar[str] = "1 server"
    DIRECT: ClassVar[str] = (
        "at one server, `Redis(host, port)` with the retries that redis-py ships"
    )

    def __init__(self, fleet: Fleet, options: Options) -> None:
        self.fleet = fleet
        self.server = fleet.add(Server(server_binary(options.flavour), "server"))
        self.sentinels: Sequence[SentinelProcess] = ()
        self.nodes = [self.server]
        self.env: dict[str, str] = {}
        self.settings: Settings = {}

    @property
    def url(self) -> str:
        """See World."""
        return self.server.url

    def direct(self, spec: Spec) -> Spec:
        """Clients that connect to it."""
        return replace(spec.with_retries(None), port=self.server.port)

    def holder(self) -> Address:
        """The server."""
        return self.server.address

    def close(self) -> None:
        """The server ends with the fleet."""


class Restartable(Single):
    """Its sidecar lets another one listen on the same port."""

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self.settings = {"listen.reuse_port": "true", "drain.timeout": 2}


class Guarded(Single):
    """Its user `app` has one password after the other; the sidecar reads them from a file."""

    ABOUT: ClassVar[str] = "1 server whose user has a password that is rotated"
    DIRECT: ClassVar[str] = (
        "at a server with a password, `Redis(host, port, username, password)` with the password "
        "that was right when it was made"
    )

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self.password = self.allow(0)
        self.file = fleet.folder / "password"
        self.swap()
        self.settings = {
            "upstream.username": USER,
            "upstream.password_file": str(self.file),
        }

    def allow(self, number: int) -> str:
        """The server takes this password as well."""
        order(self.server, "ACL", "SETUSER", USER, *RULES, f">password-{number}")
        return f"password-{number}"

    def forbid(self, password: str) -> None:
        """The server takes it no more."""
        order(self.server, "ACL", "SETUSER", USER, f"<{password}")

    def swap(self) -> None:
        """The file is replaced, whole."""
        fresh = self.file.with_suffix(".fresh")
        fresh.write_text(f"{self.password}\n")
        fresh.rename(self.file)

    def direct(self, spec: Spec) -> Spec:
        """Clients that know the first password."""
        spec = super().direct(spec)
        return replace(spec, username=USER, password=self.password)


class Issued(Single):
    """Its user `app` has tokens that expire; the sidecar runs a program for each."""

    ABOUT: ClassVar[str] = "1 server whose user has tokens that expire"
    DIRECT: ClassVar[str] = (
        "at a server with tokens, `Redis(host, port, username, password)` with the token that was "
        "valid when it was made"
    )

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self.ledger = fleet.folder / "tokens"
        self._taken_back = 0
        where = (self.server.host, str(self.server.port), str(self.ledger))
        command = [sys.executable, "-S", tokens.__file__, *where]
        self.settings = {"upstream.credential_command": json.dumps(command)}

    def take_back(self, before: float) -> int:
        """The tokens issued before this time are no longer taken. How many there are so far."""
        for line in self.ledger.read_text().splitlines()[self._taken_back :]:
            issued, token = line.split()
            if float(issued) > before:
                break
            order(self.server, "ACL", "SETUSER", USER, f"<{token}")
            self._taken_back += 1
        return self._taken_back

    def direct(self, spec: Spec) -> Spec:
        """Clients that know one token."""
        host, port = self.server.address
        token = tokens.issue(host, port, str(self.ledger))
        return replace(super().direct(spec), username=USER, password=token)
