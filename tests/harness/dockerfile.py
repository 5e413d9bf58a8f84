"""A Dockerfile as tests look at it: its stages, with their instructions; no engine is needed."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One stage: the image that it is from, its name ("" for the last), its instructions, each with
    what stands behind it."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """What stands behind each instruction of this kind."""
        return [rest for kind, rest in self.steps if kind == instruction]


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile, in order. An ARG before the first stage is put in."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    defaults: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        kind, _, rest = line.partition(" ")
        if kind == "ARG" and not found:
            name, _, value = rest.partition("=")
            defaults[name] = value
        elif kind == "FROM":
            image, _, name = rest.partition(" AS ")
            for key, value in defaults.items():
                image = image.replace(f"${{{key}}}", value)
            found.append(Stage(image, name))
        else:
            found[-1].steps.append((kind, rest.strip()))
    return found


def environment(stage: Stage) -> dict[str, str]:
    """What ENV sets."""
    return dict(
        match.groups() for rest in stage.all("ENV") for match in re.finditer(r"(\w+)=(\S+)", rest)
    )


def context(root: Path) -> set[str]:
    """The paths below `root`, of files and folders, that `.dockerignore` lets into the build. For
    the forms in use: `*`, `!name` and `**/pattern`."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line]
    rules = [rule for rule in rules if not rule.startswith("#")]
    assert rules[0] == "*", "everything stays out but what is named"
    named = [rule[1:] for rule in rules[1:] if rule.startswith("!")]
    never = [rule.removeprefix("**/") for rule in rules[1:] if rule.startswith("**/")]
    assert len(named) + len(never) == len(rules) - 1, "a form that is not known here"
    found = set()
    for name in named:
        top = root / name
        for path in (top, *(top.rglob("*") if top.is_dir() else ())):
            parts = path.relative_to(root).parts
            if path.exists() and not any(
                fnmatch.fnmatch(part, pattern) for part in parts for pattern in never
            ):
                found.add("/".join(parts))
    return found
