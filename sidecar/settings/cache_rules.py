"""The rules of the near cache (`cache.rules`): key prefixes with their options.

A rule is written `prefix option …`, with the options `never`, `max_ttl=TIME` and
`max_staleness=TIME`. The prefix `*` matches every key. Text in, values or ValueError out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.settings.units import parse_duration

MOST = 64


@dataclass(frozen=True)
class CacheRule:
    """The options of keys that begin with `prefix`. Times in seconds; 0: as the cache has it."""

    prefix: bytes
    never: bool = False
    max_ttl: float = 0.0
    max_staleness: float = 0.0


def parse_rules(texts: Iterable[str]) -> tuple[CacheRule, ...]:
    """All rules, in order. Raises ValueError with what is wrong and what would be right."""
    rules = tuple(parse_rule(text) for text in texts)
    if len(rules) > MOST:
        raise ValueError(f"{len(rules)} rules; at most {MOST} are allowed")
    return rules


def parse_rule(text: str) -> CacheRule:
    """One rule. Raises ValueError."""
    words = text.split()
    if not words:
        raise ValueError('an empty rule; write a prefix, or "*" for every key')
    prefix = b"" if words[0] == "*" else words[0].encode()
    never = False
    times = {"max_ttl": 0.0, "max_staleness": 0.0}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if word == "never":
            never = True
        elif name in times and equals:
            times[name] = parse_duration(value)
        else:
            raise ValueError(
                f"{word!r} in {text!r}; write never, max_ttl=10s or max_staleness=100ms"
            )
    if never and any(times.values()):
        raise ValueError(f"{text!r} has both never and times; keep one of them")
    return CacheRule(prefix, never, times["max_ttl"], times["max_staleness"])
