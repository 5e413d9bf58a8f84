"""What a drill is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.drills.scene import LANES, Scene
from bench.drills.spec import Crowd
from bench.drills.world import World

W = TypeVar("W", bound=World)


@dataclass(frozen=True)
class Drill(Generic[W]):
    """One drill: what is done to what. What must hold stands in `targets.py`."""

    number: str
    name: str
    about: str
    world: type[W]
    act: Callable[[Scene[W]], None]
    lanes: tuple[str, ...] = LANES
    crowds: tuple[Crowd, ...] = (Crowd(),)
    """The clients, in a process of their own for each program."""
    patience: float = 0.0
    """Timeout of the clients in seconds, where the outage lasts longer than they usually wait."""
