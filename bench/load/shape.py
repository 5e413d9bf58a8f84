"""What a load is, and where it goes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from tests.harness.wire import Wire


@dataclass(frozen=True)
class Load:
    """One load as the clients make it.

    `conns` connections, of which `busy` send (all of them if None), each with one batch of
    `pipeline` commands outstanding; `get` percent GET, the rest SET; `value` bytes; keys chosen
    uniformly out of `keys`, or with a Zipf exponent of `zipf`; `client` is the transport towards
    the proxy, `tcp` or `unix` (the proxy always reaches the server over TCP); `tls` is on both
    sides of the proxy.
    """

    conns: int = 50
    pipeline: int = 1
    get: int = 80
    value: int = 16
    keys: int = 10_000
    zipf: float = 0.0
    busy: int | None = None
    client: str = "tcp"
    tls: bool = False


@dataclass(frozen=True)
class Address:
    """Where a load's clients connect: a TCP port of 127.0.0.1 or a unix socket path."""

    port: int = 0
    path: str = ""
    tls: bool = False

    @property
    def where(self) -> int | str:
        """As `Wire` takes it."""
        return self.path or self.port

    def loadgen_args(self) -> list[str]:
        """This address as options of loadgen."""
        where = ["--unix", self.path] if self.path else ["--port", str(self.port)]
        return where + (["--tls"] if self.tls else [])

    def connect(self, deadline: float) -> Wire:
        """A connection; whose certificate is shown does not matter here."""
        return Wire(self.where, deadline=deadline, tls=_trusting() if self.tls else None)


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
