"""What the errors of the load's clients are called."""

from __future__ import annotations

import builtins

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError, TimeoutError

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
    if isinstance(error, TimeoutError | builtins.TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, ConnectionError | OSError) else "other"
