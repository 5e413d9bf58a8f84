"""How a setting is declared, and how a value for it is read from text and checked.

The sections declare their settings with `seconds`, `size` and `setting`; `rows` turns the class of
a section into table rows, and everything else (loading, documentation, tests) works from those
rows. This module knows no setting by name and reads no file: text and values in, values or
ValueError out.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from sidecar.settings.units import format_duration, format_size, parse_duration, parse_size

YEAR = 365 * 86400.0  # the longest duration: longer ones are typing errors, or overflow a timer

KiB = 1 << 10
MiB = 1 << 20

TlsVersion = Literal["1.2", "1.3"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all sections share: immutable, no unknown keys, named arguments only."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Whether a running sidecar takes a change over. `restart` is the reason why it does not, as
    the end of "needs a restart: …"; `switches`: by a planned switch of the upstream."""

    restart: str = ""
    switches: bool = False


LIVE = Reload()
SWITCH = Reload(switches=True)


def restart(why: str) -> Reload:
    """A setting that needs a restart, for this reason."""
    return Reload(restart=why)


def setting(
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
    secret: bool = False,
    reload: Reload,
    divided: bool = False,
) -> msgspec.Meta:
    """Describe one setting, for use inside `Annotated`.

    `unit` is "seconds", "bytes", "octal" or empty. `secret` keeps the value out of messages.
    `reload` says whether a running sidecar takes a change over without a restart. `divided`: it is
    what all workers together may take, and each gets its share (shares.py).
    """
    extra = {"unit": unit, "secret": secret, "reload": reload, "divided": divided}
    if pattern is not None:
        return msgspec.Meta(description=help, pattern=pattern, extra=extra)
    return msgspec.Meta(description=help, ge=ge, le=le, extra=extra)


def seconds(help: str, *, ge: float = 0.0, le: float = YEAR, reload: Reload) -> msgspec.Meta:
    """Describe a duration: a float of seconds, also written as text such as "500ms"."""
    return setting(help, unit="seconds", ge=ge, le=le, reload=reload)


def size(
    help: str, *, ge: int = 0, le: int = 1 << 40, reload: Reload, divided: bool = False
) -> msgspec.Meta:
    """Describe a size: an integer of bytes, also written as text such as "64KiB"."""
    return setting(help, unit="bytes", ge=ge, le=le, reload=reload, divided=divided)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as declared.

    `path` is "section.key"; `annotation` what msgspec checks a value against; `type` one of
    "duration", "size", "integer", "number", "boolean", "string", "list", "table" or "choice" (with
    the `choices`); `default` is the value the program sees (seconds, bytes).
    """

    path: str
    type: str
    default: object
    unit: str
    help: str
    reload: Reload
    divided: bool
    secret: bool
    choices: tuple[str, ...]
    ge: float | None
    le: float | None
    annotation: Any

    @property
    def reloadable(self) -> bool:
        """Whether a running sidecar takes a change over."""
        return not self.reload.restart

    @property
    def restart(self) -> str:
        """Why it does not; "" if it does."""
        return self.reload.restart

    @property
    def switches(self) -> bool:
        """Whether it does so by a planned switch of the upstream."""
        return self.reload.switches

    @property
    def section(self) -> str:
        """The path without the key."""
        return self.path.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def environment(self) -> str:
        """The name of the environment variable that sets it."""
        return "SIDECAR_" + self.path.upper().replace(".", "__")

    @property
    def default_text(self) -> str:
        """The default as a TOML value."""
        return self.text(self.default)

    def text(self, value: object) -> str:
        """`value` as a TOML value, in the largest unit that is exact."""
        if self.type == "duration" and isinstance(value, float):
            return format_duration(value)
        if self.type == "size" and isinstance(value, int):
            return format_size(value)
        return json.dumps(value)

    def text_of_bound(self, bound: float) -> str:
        """A bound of the range, in the unit a reader would write."""
        if self.type == "duration":
            return format_duration(bound).strip('"')
        return format_size(int(bound)).strip('"') if self.type == "size" else f"{bound:.0f}"

    @property
    def expected(self) -> str:
        """What a value must be, for error messages."""
        if self.unit == "octal":
            return 'octal digits in quotes, such as "0600"'
        text = _EXPECTED[self.type]
        if self.choices:
            return "one of " + ", ".join(json.dumps(choice) for choice in self.choices)
        if self.ge is not None and self.le is not None:
            low, high = self.text_of_bound(self.ge), self.text_of_bound(self.le)
            text += f", from {low} to {high}"
        return text


_EXPECTED = {
    "duration": 'a duration (seconds, or text such as "500ms", "2s", "1m")',
    "size": 'a size (bytes, or text such as "64KiB", "1MiB")',
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "list": "a list of strings",
    "table": "a table of strings",
    "choice": "",
}


def rows(section: type[msgspec.Struct], prefix: str = "") -> Iterator[Row]:
    """All settings of `section` and the sections inside it, keys before inner sections."""
    inner = []
    for field in msgspec.structs.fields(section):
        path = prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            inner.append((field.type, path + "."))
        else:
            is_made = field.default is msgspec.NODEFAULT
            yield _row(path, field.type, field.default_factory() if is_made else field.default)
    for inner_section, inner_prefix in inner:
        yield from rows(inner_section, inner_prefix)


def _row(path: str, annotation: Any, default: object) -> Row:
    if get_origin(annotation) is not Annotated:
        raise TypeError(f"{path} is declared without its description")
    base, meta = get_args(annotation)
    choices = tuple(get_args(base)) if get_origin(base) is Literal else ()
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    kind = "table" if get_origin(base) is dict else names.get(base, "list")
    kind = "choice" if choices else kind
    kind = {"seconds": "duration", "bytes": "size"}.get(meta.extra["unit"], kind)
    return Row(
        path=path,
        type=kind,
        default=default,
        unit=meta.extra["unit"],
        help=meta.description,
        reload=meta.extra["reload"],
        divided=meta.extra["divided"],
        secret=meta.extra["secret"],
        choices=choices,
        ge=meta.ge,
        le=meta.le,
        annotation=annotation,
    )


def from_text(row: Row, text: str) -> object:
    """What `text` (of a command line, a variable or a file) means for this setting.

    A list is JSON when it starts with "[", otherwise separated by commas. What cannot be read
    is returned as it is, for `check` to refuse.
    """
    text = text if row.type in ("string", "choice") else text.strip()
    if row.type == "list":
        if text.startswith("["):
            try:
                return json.loads(text)
            except ValueError:
                return text
        return [part.strip() for part in text.split(",") if part.strip()]
    if row.type == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if row.type in ("integer", "number"):
        try:
            return int(text) if row.type == "integer" else float(text)
        except ValueError:
            return text
    return text


def check(row: Row, value: object) -> object:
    """`value` as the program sees it: units applied, type and range checked.

    Raises ValueError with what was found and what was expected; a secret's value is not shown.
    """
    found = f"a {_TYPE_NAMES.get(type(value), 'value')}" if row.secret else _shown(value)
    hint = ""
    try:
        if isinstance(value, str) and row.type == "duration":
            value = parse_duration(value)
        elif isinstance(value, str) and row.type == "size":
            value = parse_size(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not a finite number")
        return msgspec.convert(value, row.annotation)
    except msgspec.ValidationError:
        pass
    except ValueError as error:
        hint = f" ({error})"
    raise ValueError(f"found {found}{hint}, expected {row.expected}")


_TYPE_NAMES: dict[type, str] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "list",
    dict: "table",
    types.NoneType: "null",
}


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
