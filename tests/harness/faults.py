"""A TCP proxy that misbehaves on command, in a thread with an event loop of its own.

    with FaultProxy(server.port) as proxy:
        Wire(proxy.port) ...
        proxy.delay = 0.05                        # from now on, for every connection, both ways
        proxy.to_client.blackhole = True          # one way
        proxy.cut()                               # RST to both ends of every connection
        proxy.heal()

Attributes are what happens to bytes from now on; methods are what happens once, to the connections
there are. Bytes keep their order whatever happens to them, and what is held goes on in its order
when the fault ends.

Connections can be told apart: `classify` names the group of each, by the address it comes from and
by what its client has sent first, and each group has its own faults (`proxy.group(name)`). Those
of the proxy itself are those of the group "". `tracking_proxy` makes the two groups of a sidecar
with a near cache.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from .accepting import Listener
from .fault_groups import NAMES, Faults, Group
from .proxied import LOOK_AGAIN, ProxiedEnd

Classify = Callable[[str, bytes], str]
"""The peer's address, and the first bytes it has sent -> the name of its group."""

TRACKED, OTHERS = "tracked", "others"
SIGN = b"TRACKING\r\n$2\r\nON\r\n"


class FaultProxy(Listener):
    """Listens on a port of 127.0.0.1, with TLS when given a context, and passes to `target` what
    the faults let pass."""

    def __init__(
        self,
        target: int | tuple[str, int],
        port: int | None = None,
        *,
        context: ssl.SSLContext | None = None,
        classify: Classify = lambda address, sent: "",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.target = ("127.0.0.1", target) if isinstance(target, int) else target
        self.classify = classify
        self.rewrite: Callable[[bytes], bytes] = lambda data: data
        """What the server says, as its clients get it."""
        self.accepted = 0
        """Connections so far; with TLS, those whose handshake ended well on this side."""
        self.passed = 0
        """Bytes so far, both ways."""
        self.cuts = 0
        """How often `end_before` or `cut_after` has ended a connection."""
        self._groups: dict[str, Group] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        super().__init__(port, context, loop)

    def __setattr__(self, name: str, value: object) -> None:
        """A fault set on the proxy is set for both directions."""
        if name in NAMES:
            setattr(self.group(), name, value)
        else:
            super().__setattr__(name, value)

    def group(self, name: str = "") -> Group:
        """What happens to one group."""
        return self._groups.setdefault(name, Group(self.do))

    @property
    def to_server(self) -> Faults:
        """Faults of what clients send."""
        return self.group().to_server

    @property
    def to_client(self) -> Faults:
        """Faults of what the server sends."""
        return self.group().to_client

    @property
    def url(self) -> str:
        """The proxy as an upstream URL; a good certificate names this host."""
        return f"rediss://localhost:{self.port}" if self.tls else f"redis://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections there are now."""
        return sum(end.direction == "to_server" for end in self._ends())

    def cut(self) -> None:
        """RST to both ends of every connection."""
        for group in list(self._groups.values()):
            group.cut()

    def half_close(self, *, towards: str = "client") -> None:
        """End one direction of every connection, as a peer that shuts its sending side."""

        def finish() -> None:
            for end in self._ends():
                if end.direction == f"to_{towards}":
                    end.finish()

        self.do(finish)

    def heal(self) -> None:
        """No faults from now on, listening; what is under way goes on at once."""
        for group in list(self._groups.values()):
            group.open()
        self.listen()

    def close(self) -> None:
        """Stop everything."""
        self.refuse()
        self.cut()
        super().close()

    def _ends(self) -> list[ProxiedEnd]:
        groups = list(self._groups.values())
        ends = (end for group in groups for end in list(group.ends))
        return [end for end in ends if isinstance(end, ProxiedEnd)]

    # On the loop

    async def _create(self) -> asyncio.Server:
        return await self.loop.create_server(
            lambda: ProxiedEnd(self, "to_server", self.group()),
            "127.0.0.1",
            self.port,
            ssl=self.tls,
        )

    def group_of(self, address: str, sent: bytes) -> Group:
        """Where a connection belongs."""
        return self.group(self.classify(address, sent))

    def accept(self, end: ProxiedEnd) -> None:
        """A client has connected: make its way to the server."""
        self.accepted += 1
        task = self.loop.create_task(self._connect(end))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, end: ProxiedEnd) -> None:
        if end.group.severed:
            while end.group.severed:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_AGAIN)
            end.cut()
            return
        back = ProxiedEnd(self, "to_client", end.group)
        back.other = end
        try:
            await self.loop.create_connection(lambda: back, *self.target)
        except OSError:
            end.cut()
            return
        end.other = back
        back.join(end.group)
        end.flush()
        back.flush()


class TlsTerminator(FaultProxy):
    """A TLS port in front of a plain port.

    It gives a server without TLS (Valkey of the wheel) a TLS port, so that upstream TLS is
    testable with packages from PyPI alone.
    """

    def __init__(self, target: int, context: ssl.SSLContext, port: int | None = None) -> None:
        super().__init__(target, port, context=context)

    @property
    def handshakes(self) -> int:
        """Connections whose handshake ended well on this side (TLS 1.3 lets a client refuse the
        certificate after that)."""
        return self.accepted


def tracking_proxy(target: int) -> FaultProxy:
    """One whose groups are TRACKED and OTHERS.

    A connection is tracked once its client has sent CLIENT TRACKING ON as the sidecar does it, in
    capitals, and one of the others before; an application that tracks for itself through the
    sidecar is told apart by small letters.
    """
    return FaultProxy(target, classify=lambda address, sent: TRACKED if SIGN in sent else OTHERS)
