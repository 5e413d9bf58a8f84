"""Reading the settings: command line over environment over file over defaults.

`load` collects what each source says about each setting, checks every value, and then checks the
values against each other. One `ConfigError` reports every fault at once: the path of the key, what
was found, and what would be right. Nothing here opens a connection or keeps state: the result
depends only on the arguments, on the file, and on the files that `_FILE` variables name.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sidecar.settings.addresses import may_move
from sidecar.settings.fields import Row, check, from_text
from sidecar.settings.rules import combinations
from sidecar.settings.schema import Settings, describe

PREFIX = "SIDECAR_"
NO_ADVICE = "; docs/configuration.md lists them all"
_SECRET_FILE_LIMIT = 1 << 20  # a setting is never longer; protects against /dev/zero and the like

# Kubernetes puts SIDECAR_SERVICE_HOST, SIDECAR_PORT_6380_TCP_ADDR and the like into every
# container beside a Service called "sidecar" or "sidecar-…": not settings, and not mistakes.
_KUBERNETES = re.compile(
    r"SIDECAR_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)"
)


class ConfigError(Exception):
    """Settings that cannot be used; `problems` has one line for each fault found."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def load(
    path: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, str | Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check all settings.

    `path` is a TOML file, or None for no file. `overrides` are the command line's values by
    path ("upstream.url"): text, or a sequence of texts for a list. `environ` is the process
    environment unless given. Raises ConfigError.
    """
    gathered = _Gathered({row.path: row for row in describe()})
    if path is not None:
        gathered.file(Path(path))
    gathered.environment(os.environ if environ is None else environ)
    for key, text in (overrides or {}).items():
        gathered.text(key, text, "command line")
    values = gathered.checked()
    if values is None:
        raise ConfigError(gathered.problems)
    settings: Settings = _build(Settings, "", values)
    if "upstream.wait" not in values and _waits_for_master(settings, values):
        settings = _build(Settings, "", values | {"upstream.wait": settings.failover.hold})
    problems = [*gathered.problems, *combinations(settings)]
    if problems:
        raise ConfigError(problems)
    return settings


def _waits_for_master(settings: Settings, values: Mapping[str, object]) -> bool:
    """Whether an upstream of one address may come back as another server, so that commands are to
    wait for that as long as for a new master."""
    try:
        endpoint = settings.upstream_endpoint
    except ValueError:
        return False  # `combinations` says why
    if not settings.follows_name:
        return False
    return (endpoint.kind == "tcp" and may_move(endpoint.host)) or "failover.hold" in values


class _Gathered:
    """The values of all sources so far (later ones replace earlier ones), and the faults found."""

    def __init__(self, table: Mapping[str, Row]) -> None:
        self.table = table
        self.sections = {row.section for row in table.values()}
        self.values: dict[str, tuple[object, str]] = {}
        self.problems: list[str] = []

    def file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except OSError as error:
            self.problems.append(f"{path}: cannot read the file: {error.strerror}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self.problems.append(f"{path}: not valid TOML: {error}")
        else:
            self._tables(document, "", str(path))

    def _tables(self, tables: Mapping[str, object], prefix: str, source: str) -> None:
        for key, value in tables.items():
            path = prefix + key
            if path in self.table:
                self.values[path] = (value, source)
            elif path not in self.sections:
                self.problems.append(self._unknown(path, source))
            elif isinstance(value, dict):
                self._tables(value, path + ".", source)
            else:
                self.problems.append(f"{path}: expected a table, written [{path}] ({source})")

    def environment(self, environ: Mapping[str, str]) -> None:
        names = {row.environment: row for row in self.table.values()}
        for name in sorted(environ):
            if not name.startswith(PREFIX):
                continue
            source = f"environment {name}"
            row, file_row = names.get(name), names.get(name.removesuffix("_FILE"))
            if row is not None:
                self.text(row.path, environ[name], source)
            elif file_row is not None and file_row.environment in environ:
                self.problems.append(
                    f"{file_row.path}: both {file_row.environment} and {name} are set; keep one"
                )
            elif file_row is not None:
                self._from_file(file_row, environ[name], source)
            elif "__" in name or not _KUBERNETES.fullmatch(name):
                path = name.removeprefix(PREFIX).lower().replace("__", ".")
                self.problems.append(self._unknown(path, source, environment=True))

    def _from_file(self, row: Row, file: str, source: str) -> None:
        try:
            with open(file, encoding="utf-8") as opened:
                text = opened.read(_SECRET_FILE_LIMIT)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self.problems.append(f"{row.path}: cannot read {file}: {reason} ({source})")
        else:
            self.text(row.path, text.rstrip("\r\n"), source)

    def text(self, path: str, text: str | Sequence[str], source: str) -> None:
        row = self.table.get(path)
        if row is None:
            self.problems.append(self._unknown(path, source))
        elif isinstance(text, str):
            self.values[path] = (from_text(row, text), source)
        else:
            self.values[path] = (list(text), source)

    def _unknown(self, path: str, source: str, environment: bool = False) -> str:
        from sidecar.settings.suggestions import suggested  # here: only a mistake needs it

        near = suggested(path, [*self.table, *self.sections])
        if environment:
            near = [PREFIX + each.upper().replace(".", "__") for each in near]
        advice = f"; did you mean {' or '.join(near)}?" if near else NO_ADVICE
        return f"{path}: unknown setting ({source}){advice}"

    def checked(self) -> dict[str, object] | None:
        """The values as the program sees them; None, with `problems`, when one is wrong."""
        values: dict[str, object] = {}
        for path, (value, source) in self.values.items():
            try:
                values[path] = check(self.table[path], value)
            except ValueError as error:
                self.problems.append(f"{path}: {error} ({source})")
        return values if len(values) == len(self.values) else None


def _build(section: type[msgspec.Struct], prefix: str, values: Mapping[str, object]) -> Any:
    arguments: dict[str, object] = {}
    for field in msgspec.structs.fields(section):
        path = prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            arguments[field.name] = _build(field.type, path + ".", values)
        elif path in values:
            arguments[field.name] = values[path]
    return section(**arguments)
