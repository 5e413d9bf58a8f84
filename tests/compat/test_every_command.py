"""Every command and subcommand that the servers have, in many forms, beside a direct server.

The forms are made of the tables in `forms/` (see tests/mixer/forms.py): right, one argument too few
and too many, keys of another type, empty and binary keys, odd case, options as names, and inside
of MULTI. After each form, further reads and the keys themselves are compared. By default each form
is compared once with Valkey, and a third of them with each Redis; `-m slow` compares all forms in
all setups.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.harness.programs import have
from tests.harness.servers import Sidecar
from tests.mixer.forms import names
from tests.mixer.known_forms import KNOWN_FORMS, KnownForm, known_form
from tests.mixer.masks import DELIBERATE
from tests.mixer.table import BINARIES, CACHES, Setup, Table, in_multi

KINDS = ("valkey", "redis7", "redis8")
MODES = [("off", "shared"), ("hot", "shared"), ("rules", "shared"), ("off", "session")]
"""With session pooling nothing is read from the cache."""

SHORT = [
    Setup(kind, *mode, protocol, db)
    for kind in KINDS
    for mode, (protocol, db) in zip(MODES, [(2, 9), (3, 0), (2, 0), (3, 9)], strict=True)
]
FULL = [
    Setup(kind, *mode, protocol, db)
    for kind, mode, protocol, db in product(KINDS, MODES, (2, 3), (0, 9))
]
SHARES = {"valkey": 4, "redis7": 12, "redis8": 12}
"""Each setup of the short run takes one form of so many."""


def params(setups: list[Setup]) -> list[object]:
    """Setups by name; those that need Debian's server, or one near cache for all, are marked."""
    return [pytest.param(setup, id=str(setup), marks=marks(setup)) for setup in setups]


def marks(setup: Setup) -> list[pytest.MarkDecorator]:
    """Of one setup."""
    alone = pytest.mark.one_worker("each worker has a near cache of its own")
    found = [pytest.mark.redis] if setup.kind == "redis7" else []
    return [*found, alone] if setup.cache != "off" else found


@contextmanager
def tabled(setup: Setup) -> Iterator[Table]:
    """A pair of servers and a sidecar for one setup."""
    if not have(setup.kind):
        pytest.skip(f"{setup.kind} is not installed")
    seed: dict[str, str | int] = {"hash-seed": "same"} if setup.kind == "valkey" else {}
    settings = {**CACHES[setup.cache], "upstream.pooling": setup.pooling}
    binary = BINARIES[setup.kind]
    with (
        binary(seed) as direct,
        binary(seed) as behind,
        Sidecar(behind.url, settings=settings) as own,
    ):  # fmt: skip
        table = Table(setup, direct, behind, own)
        try:
            table.warm()
            yield table
        finally:
            table.close()


REFUSED = names(
    "shutdown exec discard failover sync psync monitor restore-asking quit latency_graph"
    " object_freq client_caching script_kill function_kill function_restore acl_load acl_save"
    " config_rewrite module_load module_loadex module_unload asking readonly readwrite"
)
"""Commands of which no form here is right: without what they need they refuse, or are skipped."""


def compare_all(setup: Setup, share: int, turn: int) -> None:
    """Compare every `share`th form, beginning with number `turn`."""
    with tabled(setup) as table:
        forms = list(table.forms())
        forms += list(in_multi(forms))
        assert len(forms) > 5000
        for form in forms[turn % share :: share]:
            table.compare(form)
        new = [found for found in table.found if known_form(found) is None]
        assert not new, "\n\n".join(map(str, new[:20]))
        if share == 1:
            containers = {form.command.split()[0] for form in forms if " " in form.command}
            refused = {form.command for form in forms} - table.answered - containers
            expected = {name.replace("_", " ") for name in REFUSED}
            assert {name for name in refused if name[:7] != "cluster"} <= expected


@pytest.mark.timeout(300)
@pytest.mark.parametrize("setup", params(SHORT))
def test_every_command(setup: Setup) -> None:
    """A share of the forms in each setup."""
    compare_all(setup, SHARES[setup.kind], SHORT.index(setup))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("setup", params(FULL))
def test_every_command_in_every_setup(setup: Setup) -> None:
    """All forms in all setups."""
    compare_all(setup, 1, 0)


@pytest.mark.parametrize("known", KNOWN_FORMS, ids=lambda known: known.name)
def test_known_differences_are_still_there(known: KnownForm) -> None:
    """One that is mended goes from the table."""
    with tabled(known.setup) as table:
        table.compare(known.form)
        assert any(known.matches(found) for found in table.found), (
            f"{known.name} no longer differs: take it out of KNOWN_FORMS"
        )


@pytest.mark.parametrize("command", DELIBERATE)
def test_what_differs_on_purpose_is_documented(command: str) -> None:
    """docs/compatibility.md has a row for each."""
    text = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    assert DELIBERATE[command] in text, command
