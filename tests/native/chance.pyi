"""Chance for the native fuzzers: for tests only."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

def on_tape(data: bytes, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
