"""The pages made from the settings table: `config/full.toml` and `docs/configuration.md`.

Rendering only; a test holds that the committed files equal what is rendered here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import msgspec

from sidecar.settings_io import Row

_TOML_HEAD = """\
# Every setting of redis-sidecar with its default. Generated: `python -m sidecar.config toml`.
# A file needs only the settings it changes; config/minimal.toml shows how few that can be.
# Durations are seconds or text such as "500ms", "2s", "1m"; sizes are bytes or "64KiB", "1MiB".
"""

_DOCS_HEAD = """\
# Configuration

<!-- Generated: `python -m sidecar.config docs`. Edit the declarations in sidecar/settings.py. -->

Every setting has a default; with none set at all, the sidecar listens on
`redis://127.0.0.1:6380` and starts a Valkey server of its own. `sidecar check -c FILE` reads
everything, reports every fault at once and starts nothing.

## Where settings come from
From the strongest to the weakest:

1. the command line: `--listen URL`, `--upstream URL`, `--admin HOST:PORT`, and
   `--set section.key=value` for everything else;
2. the environment: `SIDECAR_SECTION__KEY`, for example `SIDECAR_UPSTREAM__URL` or
   `SIDECAR_LISTEN__TLS__CERT_FILE`. Lists are separated by commas, or JSON;
3. the TOML file named with `-c`;
4. the defaults below.

A list given in one place replaces the list of a weaker one.

`SIDECAR_SECTION__KEY_FILE` names a file that holds the value (one trailing line end is
dropped), so that secrets need to stand neither in a configuration file nor in the environment:
`SIDECAR_UPSTREAM__URL_FILE=/run/secrets/redis-url`. A setting whose own name ends in `_file`
wins over this reading: `SIDECAR_LISTEN__TLS__CERT_FILE` is the setting `listen.tls.cert_file`.

An unknown key, an unknown `SIDECAR_` variable, a value of the wrong type and settings that
contradict each other are errors, never ignored. (Variables that Kubernetes adds by itself for a
Service named `sidecar…`, such as `SIDECAR_SERVICE_HOST`, are left alone.)

## Values
- Durations are numbers of seconds, or text with a unit: `"500ms"`, `"2s"`, `"1m"`, `"1h"`, `"1d"`.
- Sizes are numbers of bytes, or text with a binary unit: `"64KiB"`, `"1MiB"`, `"1GiB"`.
- In URLs, write `/`, `?`, `#`, `@`, `:` and `%` inside a user name or password percent-encoded
  (`%2F`, `%3F`, `%23`, `%40`, `%3A`, `%25`). IPv6 addresses stand in brackets:
  `redis://[::1]:6379`. `valkey://` and `valkeys://` mean `redis://` and `rediss://`.
- "Reload" says whether a running sidecar takes a change over; otherwise it needs a restart.
"""


def render_toml(table: Sequence[Row], settings: type[msgspec.Struct]) -> str:
    """A TOML document that sets every setting to its default, with help as comments."""
    lines = [_TOML_HEAD.rstrip("\n")]
    section = ""
    for row in table:
        if row.section != section:
            section = row.section
            lines += ["", f"# {_about(settings, section)}", f"[{section}]"]
        lines += [f"# {line}" for line in textwrap.wrap(_help(row), 96)]
        lines.append(f"{row.key} = {row.default_text}")
    return "\n".join(lines) + "\n"


def render_docs(table: Sequence[Row], settings: type[msgspec.Struct]) -> str:
    """The reference page: how settings are given, and a table for each section."""
    lines = [_DOCS_HEAD.rstrip("\n")]
    section = ""
    for row in table:
        if row.section != section:
            section = row.section
            lines += ["", f"## [{section}]", _about(settings, section), ""]
            lines += ["| Key | Type | Default | Reload | Meaning |", "|---|---|---|---|---|"]
        reload = "yes" if row.reloadable else "no"
        meaning = row.help.replace("|", "\\|")
        lines.append(
            f"| `{row.key}` | {_type(row)} | `{row.default_text}` | {reload} | {meaning} |"
        )
    return "\n".join(lines) + "\n"


def _help(row: Row) -> str:
    choices = " One of: " + ", ".join(row.choices) + "." if row.choices else ""
    return row.help + choices


def _type(row: Row) -> str:
    if row.choices:
        return " or ".join(f"`{choice}`" for choice in row.choices)
    names = {"list": "list of strings"}
    bounds = ""
    if row.ge is not None and row.le is not None and row.type in ("integer", "size", "duration"):
        bounds = f", {row.text_of_bound(row.ge)} to {row.text_of_bound(row.le)}"
    return names.get(row.type, row.type) + bounds


def _about(settings: type[msgspec.Struct], section: str) -> str:
    """The first line of the docstring of the section's class."""
    found = settings
    for name in section.split("."):
        found = next(f.type for f in _fields(found) if f.name == name)
    return (found.__doc__ or "").strip().partition("\n")[0]


def _fields(section: type[msgspec.Struct]) -> Iterator[msgspec.structs.FieldInfo]:
    yield from msgspec.structs.fields(section)
