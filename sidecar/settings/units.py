"""Durations and sizes as text: "500ms" and 0.5 seconds, "64KiB" and 65,536 bytes.

Units may be written in any case. KB, MB, GB and TB are KiB, MiB, GiB and TiB, as in redis.conf. k,
m and g, which are multiples of 1,000 there and of 1,024 elsewhere, are refused.

Text in, numbers or ValueError out, and back again.
"""

from __future__ import annotations

import re

_SIZE_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_AS_IN_REDIS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_DURATION_UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_duration(text: str) -> float:
    """Seconds of "500ms", "2s", "1.5m", "1h", "1d" or a plain number. Raises ValueError."""
    return _measure(text, _DURATION_UNITS)


def parse_size(text: str) -> int:
    """Bytes of "64KiB", "64kb", "1.5GiB" or a plain number. Raises ValueError."""
    value = _measure(text, {**_SIZE_UNITS, **_AS_IN_REDIS})
    if value != int(value):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(value)


def _measure(text: str, units: dict[str, float] | dict[str, int]) -> float:
    match = _NUMBER_UNIT.fullmatch(text.strip())
    if not match or len(match[1]) > 20:
        raise ValueError(f"{text!r} is not a number with a unit")
    scale = {name.lower(): value for name, value in units.items()}.get(match[2].lower())
    if scale is None:
        known = ", ".join(filter(None, units))
        raise ValueError(f"unknown unit {match[2]!r}; known: {known}")
    # Division keeps "50ms" equal to 0.05: 50 * 0.001 is 0.05 too, but 3 * 0.001 is not 0.003.
    number = float(match[1])
    return number / round(1 / scale) if scale < 1 else number * scale


def format_duration(value: float) -> str:
    """A TOML value for `value` seconds, in the largest unit that keeps it whole."""
    if value == 0:
        return "0"
    for unit, scale in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if value % scale == 0 and (value > scale or scale == 1):
            return f'"{int(value // scale)}{unit}"'
    return f'"{value * 1000:g}ms"'


def format_size(value: int) -> str:
    """A TOML value for `value` bytes, in the largest unit that keeps it whole."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % _SIZE_UNITS[unit] == 0:
            return f'"{value // _SIZE_UNITS[unit]}{unit}"'
    return str(value)
