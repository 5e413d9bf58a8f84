"""Reading the file of `identities.file`: all of it, with every fault at once.

`read_identities` builds the tables of sections/principals.py, and then has identities_faults.py
check them. What the file says against the settings beside it is identity_rules.py's business.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from sidecar.settings.fields import Row, Section, check, rows
from sidecar.settings.identities_faults import NAME, NAME_FORM, faults
from sidecar.settings.sections.principals import (
    CommandPolicy,
    IdentitiesFile,
    Principal,
    Tenant,
)
from sidecar.settings.suggestions import suggested

LONGEST = 4 << 20  # characters of a file; protects against /dev/zero and the like
LONGEST_PASSWORD = 1 << 16  # characters
_KINDS = ("identities", "tenants", "policies")

_T = TypeVar("_T", bound=Section)


class IdentitiesError(Exception):
    """A file that cannot be used; `problems` has one line for each fault found."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def read_identities(path: str) -> IdentitiesFile:
    """Read the file at `path`; "" is none. Raises IdentitiesError."""
    if not path:
        return IdentitiesFile()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
        document = tomllib.loads(text)
    except OSError as error:
        raise IdentitiesError([f"{path}: cannot read the file: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise IdentitiesError([f"{path}: not UTF-8 text"]) from None
    except tomllib.TOMLDecodeError as error:
        raise IdentitiesError([f"{path}: not valid TOML: {error}"]) from None
    if len(text) > LONGEST:
        raise IdentitiesError([f"{path}: longer than 4 MiB"])
    reading = _Reading(document)
    problems = [*reading.problems, *faults(reading.read)]
    if problems:
        raise IdentitiesError([f"{problem} ({path})" for problem in problems])
    return reading.read


def read_password(path: str, text: str, file: str) -> bytes:
    """A password that is written, or in a file (one line end is dropped). Raises
    IdentitiesError."""
    if not file:
        return text.encode()
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(LONGEST_PASSWORD).rstrip("\r\n").encode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise IdentitiesError([f"{path}: cannot read {file}: {why}"]) from None


class _Reading:
    """What a document says, and the faults in its types. What is wrong is left out."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        for name in document:
            if name not in _KINDS:
                near = suggested(name, _KINDS)
                advice = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(_KINDS)}"
                self.problems.append(f"{name}: unknown table{advice}")
        self.read = IdentitiesFile(
            principals=self._tables(document, "identities", Principal),
            tenants=self._tables(document, "tenants", Tenant),
            policies=self._tables(document, "policies", CommandPolicy),
        )

    def _tables(self, document: Mapping[str, Any], kind: str, form: type[_T]) -> dict[str, _T]:
        """All `[kind.NAME]`."""
        tables = document.get(kind, {})
        if not isinstance(tables, dict):
            self.problems.append(f"{kind}: expected tables, written [{kind}.NAME]")
            return {}
        known = {row.path: row for row in rows(form)}
        read = {}
        for name, table in tables.items():
            path = f"{kind}.{name}"
            if not NAME.fullmatch(name):
                self.problems.append(f"{kind}: {name!r} is not a name; write {NAME_FORM}")
            elif not isinstance(table, dict):
                self.problems.append(f"{path}: expected a table, written [{path}]")
            else:
                read[name] = _build(form, "", self._values(path, table, known))
        return read

    def _values(
        self, path: str, table: Mapping[str, Any], known: Mapping[str, Row], inside: str = ""
    ) -> dict[str, object]:
        """What a table says, by the path in it."""
        values: dict[str, object] = {}
        sections = {row.section for row in known.values() if row.section}
        for key, value in table.items():
            place = inside + key
            row = known.get(place)
            if row is not None:
                try:
                    values[place] = check(row, value)
                except ValueError as error:
                    self.problems.append(f"{path}.{place}: {error}")
            elif place in sections and isinstance(value, dict):
                values |= self._values(path, value, known, f"{place}.")
            elif place in sections:
                self.problems.append(f"{path}.{place}: expected a table, written {{ … }}")
            else:
                near = suggested(place, [*known, *sections])
                advice = f"; did you mean {' or '.join(near)}?" if near else ""
                self.problems.append(f"{path}.{place}: unknown{advice}")
        return values


def _build(form: type[_T], prefix: str, values: Mapping[str, object]) -> _T:
    """A table of these values by path."""
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(form):
        path = prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, Section):
            arguments[field.name] = _build(field.type, path + ".", values)
        elif path in values:
            arguments[field.name] = values[path]
    return form(**arguments)
