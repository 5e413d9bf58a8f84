"""The applications of the two lanes.

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

import time
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff

from bench.drills.kinds import kind_of
from bench.drills.raw import Commands, Raw
from bench.drills.spec import Connect, Spec
from tests.harness.sentinels import SERVICE

RETRY_BASE, RETRY_CAP = 0.01, 1.0
"""Pauses between retries grow from the one to the other (s), as in redis-py 8's `Redis()`."""


def counting(client: int, connects: list[Connect]) -> type[Connection]:
    """Connections of redis-py that note when they are made."""

    class Counting(Connection):
        async def _connect(self) -> None:
            error = ""
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except Exception as failure:
                error = kind_of(failure)
                raise
            finally:
                connects.append(Connect(client, time.monotonic(), error))

    return Counting


def connect(spec: Spec, client: int, connects: list[Connect], db: int = 0) -> Commands:
    """One client with a pool of its own."""
    if spec.crowd.program == "raw":
        return Raw(spec, client, connects)
    if spec.sentinels:
        return _through_sentinels(spec)
    options = {**_options(spec), "host": spec.host, "port": spec.port, "db": db}
    options |= {"username": spec.username, "password": spec.password}
    pool = ConnectionPool(connection_class=counting(client, connects), **options)
    found: Commands = Redis.from_pool(pool)
    return found


def _options(spec: Spec) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": spec.timeout,
        "socket_connect_timeout": spec.timeout,
    }
    retries = spec.crowd.retries
    if retries == 0:
        options["retry"] = Retry(NoBackoff(), 0)
    elif retries == 1:
        options["retry"] = Retry(NoBackoff(), 1)
    elif retries is not None:
        options["retry"] = Retry(
            ExponentialWithJitterBackoff(base=RETRY_BASE, cap=RETRY_CAP), retries
        )
    else:
        options["retry"] = Redis().get_retry()
    return options


def _through_sentinels(spec: Spec) -> Commands:
    options = _options(spec)
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [("127.0.0.1", port) for port in spec.sentinels],
        socket_timeout=spec.timeout,
        socket_connect_timeout=spec.timeout,
    )
    client: Commands = sentinel.master_for(SERVICE, decode_responses=True, retry=options["retry"])
    return client
