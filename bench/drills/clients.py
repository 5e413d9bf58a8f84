"""The applications of the two lanes, and what their errors are called.

* `sidecar`: `redis.asyncio.Redis(host, port)` at the sidecar's address, *without* retries: nothing
  the sidecar lets through is hidden by the library.
* `direct` at Sentinels: `redis.asyncio.sentinel.Sentinel([...]).master_for(service)` as the
  library makes it: no retries within a command. After an error the application goes on with its
  next command, for which the library connects anew and asks the Sentinels; every error counts.
  Retries serve it worse (`--direct-retries 10` has those of `redis.Redis()`): within one command
  redis-py 8.1 goes back to the address it had, without asking the Sentinels, until the retries are
  used up.
* `direct` at a name: `redis.asyncio.Redis(host=NAME)`, with the retries that the library ships.

Each client has one connection at a time, and opens a new one when it must.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError, TimeoutError

from tests.harness.sentinels import SERVICE

RETRY_BASE, RETRY_CAP = 0.01, 1.0
"""Pauses between retries grow from the one to the other (s), as in redis-py 8's `Redis()`."""

CLIENT_TIMEOUT = 5.0
"""`socket_timeout` and `socket_connect_timeout` (s), as in redis-py 8's `Redis()`."""

_PHRASES = (
    ("previous master is now a slave", "READONLY"),
    ("Timeout connecting", "refused"),
    ("Connect call failed", "refused"),
    ("Connection refused", "refused"),
    ("Error 111", "refused"),
    ("Connection closed by server", "closed"),
    ("Connection reset", "closed"),
    ("Broken pipe", "closed"),
)
"""A piece of redis-py's text -> kind. `refused`: no connection was made, nothing was sent."""


@dataclass(frozen=True)
class Spec:
    """What the load's process has to do; passed to it as JSON."""

    lane: str
    port: int
    """Where the clients connect to: the sidecar's, or that of `host`."""
    out: str
    """File for the history; OUT.ready is made once every client has been served."""
    host: str = "127.0.0.1"
    sentinels: tuple[int, ...] = ()
    """Ports of the Sentinels, for clients that ask these instead."""
    writers: int = 8
    readers: int = 8
    counters: int = 2
    think: float = 0.006
    """Average pause of a client between two commands (s)."""
    timeout: float = CLIENT_TIMEOUT
    retries: int | None = 0
    """Tries after the first; None: as the library does it."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, text: str) -> Spec:
        """From JSON."""
        fields = json.loads(text)
        return cls(**{**fields, "sentinels": tuple(fields["sentinels"])})

    @property
    def tries_again(self) -> bool:
        """Whether the library repeats commands by itself."""
        return self.retries != 0


def connect(spec: Spec) -> Redis:
    """One client with a pool of its own."""
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": spec.timeout,
        "socket_connect_timeout": spec.timeout,
    }
    if spec.retries == 0:
        options["retry"] = Retry(NoBackoff(), 0)
    elif spec.retries:
        backoff = ExponentialWithJitterBackoff(base=RETRY_BASE, cap=RETRY_CAP)
        options["retry"] = Retry(backoff, spec.retries)
    if not spec.sentinels:
        return Redis(host=spec.host, port=spec.port, **options)
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [("127.0.0.1", port) for port in spec.sentinels],
        socket_timeout=spec.timeout,
        socket_connect_timeout=spec.timeout,
    )
    client: Redis = sentinel.master_for(SERVICE, decode_responses=True, retry=options["retry"])
    return client


def kind_of(error: Exception) -> str:
    """A short name: the server's error code in capitals, else the network's failure."""
    text = str(error)
    if isinstance(error, MasterNotFoundError):
        return "no-master"
    for phrase, kind in _PHRASES:
        if phrase in text:
            return kind
    if isinstance(error, ReadOnlyError):
        return "READONLY"
    code = getattr(error, "status_code", None) or text.partition(" ")[0]
    if isinstance(error, RedisError) and code.isupper():
        return str(code)
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, ConnectionError | OSError) else "other"
