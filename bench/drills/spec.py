"""What the load's clients are, and what they have to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

CLIENT_TIMEOUT = 5.0
"""`socket_timeout` and `socket_connect_timeout` (s), as in redis-py 8's `Redis()`."""


@dataclass(frozen=True)
class Crowd:
    """The clients of one program."""

    program: str = "redis-py"
    """`redis-py`; `ioredis` (ioredis.mjs); or `raw`: a socket that connects again at once when it
    is closed, and sends what was not answered once more."""
    writers: int = 8
    readers: int = 8
    counters: int = 2
    visitors: int = 0
    """Clients that connect, each time to another database, ask once, and go."""
    retries: int | None = 0
    """Tries after the first; None: as the library does it."""

    @property
    def size(self) -> int:
        """How many clients."""
        return self.writers + self.readers + self.counters + self.visitors

    @property
    def tries_again(self) -> bool:
        """Whether the program repeats commands by itself."""
        return self.retries != 0 or self.program != "redis-py"


@dataclass(frozen=True)
class Spec:
    """What a process of the load has to do; passed to it as JSON."""

    port: int
    """Where the clients connect to: the sidecar's, or that of `host`."""
    out: str
    """File for the history; OUT.ready is made once every client has been served, OUT.connects tells
    of the connections."""
    crowd: Crowd = Crowd()
    first: int = 0
    """Number of the first client."""
    host: str = "127.0.0.1"
    sentinels: tuple[int, ...] = ()
    """Ports of the Sentinels, for clients that ask these instead."""
    username: str | None = None
    password: str | None = None
    think: float = 0.006
    """Average pause of a client between two commands (s)."""
    timeout: float = CLIENT_TIMEOUT

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, text: str) -> Spec:
        """From JSON."""
        fields = json.loads(text)
        fields |= {"crowd": Crowd(**fields["crowd"]), "sentinels": tuple(fields["sentinels"])}
        return cls(**fields)

    def with_retries(self, retries: int | None) -> Spec:
        """The same, but for these."""
        return replace(self, crowd=replace(self.crowd, retries=retries))


class Connect(NamedTuple):
    """A client has connected, or tried to."""

    client: int
    time: float
    error: str
    """Empty, or the kind."""
