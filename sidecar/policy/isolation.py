"""What `sidecar tenants verify` tries, to prove that tenants are apart.

Nothing here destroys anything, even if a tenant may do what it should not: keys that are written
are the proof's own, with random names, and what would do harm is only asked about (ACL DRYRUN).

Pure: names go in, requests and judgements come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Asked about, never done.
HARMFUL = (
    ("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("CONFIG", "SET", "maxmemory", "0"),
    ("CONFIG", "GET", "*"), ("SHUTDOWN",), ("DEBUG", "JMAP"), ("SWAPDB", "0", "1"),
    ("REPLICAOF", "NO", "ONE"), ("ACL", "SETUSER", "x"), ("ACL", "LIST"), ("MONITOR",),
    ("CLIENT", "LIST"), ("CLIENT", "KILL", "ID", "0"), ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"), ("FUNCTION", "LIST"), ("SLOWLOG", "GET"), ("MODULE", "LIST"),
    ("SCAN", "0"), ("RANDOMKEY",), ("DBSIZE",), ("PUBSUB", "CHANNELS"), ("SYNC",),
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """A request of a tenant, and whether it must be refused. `what` is how it is shown."""

    what: str
    request: tuple[str, ...]
    refused: bool = True
    other: str = ""  # the tenant whose key or channel it names


def own(key: str) -> Iterator[Attempt]:
    """What a tenant must be able to do with this key of its own."""
    yield Attempt("writes its own key", ("SET", key, "x", "PX", "10000"), refused=False)
    yield Attempt("reads its own key", ("GET", key), refused=False)
    yield Attempt("deletes its own key", ("DEL", key), refused=False)


def across(other: str, key: str, channel: str) -> Iterator[Attempt]:
    """What a tenant must not be able to do with a key and a channel of another one; "": it has
    none."""
    script = "return redis.call('GET', ARGV[1])"
    requests: list[tuple[str, tuple[str, ...]]] = []
    if key:
        requests += [
            ("reads", ("GET", key)),
            ("asks about", ("EXISTS", key)),
            ("asks about", ("TYPE", key)),
            ("looks into", ("OBJECT", "ENCODING", key)),
            ("writes", ("SET", key, "x", "PX", "10000")),
            ("pops from", ("LPOP", key)),
            ("copies", ("COPY", key, f"{key}-copy")),
            ("reads in a script", ("EVAL", "return redis.call('GET', KEYS[1])", "1", key)),
            ("reads in a script, undeclared,", ("EVAL", script, "0", key)),
        ]
    if channel:
        requests += [
            ("publishes to", ("PUBLISH", channel, "x")),
            ("subscribes to", ("SUBSCRIBE", channel)),
            ("subscribes by pattern to", ("PSUBSCRIBE", f"{channel[:1] or '*'}*")),
        ]
    for what, request in requests:
        yield Attempt(f"{what} {request[0]}", request, other=other)


def sample(pattern: str, token: str) -> str:
    """A name that an ACL pattern matches, with `token` in it if there is room; "" for one that only
    says what may be read or written."""
    text = pattern.partition("~")[2] if pattern[:1] == "%" else pattern[1:]
    out, i, done = "", 0, False
    while i < len(text):
        char = text[i]
        if char == "\\" and i + 1 < len(text):
            out += text[i + 1]
            i += 1
        elif char == "*":
            out += "" if done else token
            done = True
        elif char == "?":
            out += "x"
        elif char == "[":
            end = text.find("]", i + 1)
            end = len(text) if end < 0 else end
            inside = text[i + 1 : end].lstrip("\\")
            out += inside[:1] if inside[:1] != "^" else "~"
            i = end
        else:
            out += char
        i += 1
    return out


def verdict(attempt: Attempt, said: object, is_error: bool) -> tuple[bool, str]:
    """Whether the attempt went as it must, and what the server said, in a word. On a cluster a
    redirection comes after the permission."""
    text = str(said) if is_error else ""
    code = text.split(" ", 1)[0] if is_error else "done"
    refused = code == "NOPERM" or "No permissions to access" in text or "can't access at" in text
    if attempt.refused:
        return refused, code
    return (not is_error) or code in ("MOVED", "ASK", "READONLY", "CLUSTERDOWN"), code


def probes(patterns: Sequence[str], token: str) -> str:
    """A name of the first of these patterns that has one; "" if none has."""
    for pattern in patterns:
        if name := sample(pattern, token):
            return name
    return ""
