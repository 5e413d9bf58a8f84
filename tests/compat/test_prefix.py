"""A client with a key prefix: every command in every form answers as without one, on a server
that has no other keys, and the server behind gets none without the prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.test_every_command import FULL, SHORT, params
from tests.harness.identities import hashed
from tests.harness.programs import have
from tests.harness.servers import Sidecar
from tests.mixer.forms import Form
from tests.mixer.known_forms import known_form
from tests.mixer.prefixed import LOGIN, PREFIX, SUBSCRIBING, PrefixedTable
from tests.mixer.table import BINARIES, CACHES, Setup, in_multi

# The user may do everything, so that what lacks the prefix is noticed.
FILE = f"""
[identities.{LOGIN[0]}]
passwords = ["{hashed(LOGIN[1])}"]
tenant = "shop"
[tenants.shop]
username = "default"
password = "upstream"
prefix = "{PREFIX.decode()}"
"""


@contextmanager
def tabled(setup: Setup, folder: Path) -> Iterator[PrefixedTable]:
    """A pair of servers and a sidecar for one setup."""
    if not have(setup.kind):
        pytest.skip(f"{setup.kind} is not installed")
    file = folder / "identities.toml"
    file.write_text(FILE)
    seed: dict[str, str | int] = {"hash-seed": "same"} if setup.kind == "valkey" else {}
    settings = {
        **CACHES[setup.cache], "upstream.pooling": setup.pooling,
        "identities.mode": "terminate", "identities.file": str(file),
    }  # fmt: skip
    binary = BINARIES[setup.kind]
    with (
        binary(seed) as direct,
        binary(seed) as behind,
        Sidecar(behind.url, settings=settings) as own,
    ):
        table = PrefixedTable(setup, direct, behind, own)
        try:
            table.warm()
            yield table
        finally:
            table.close()


def compare_all(setup: Setup, folder: Path, share: int, turn: int) -> None:
    """Compare every `share`th form, beginning with number `turn`."""
    with tabled(setup, folder) as table:
        forms = list(table.forms())
        forms += [form for form in in_multi(forms) if may_stand_in_multi(form)]
        assert len(forms) > 4000
        for form in forms[turn % share :: share]:
            table.compare(form)
        new = [found for found in table.found if known_form(found) is None]
        assert not new, "\n\n".join(map(str, new[:20]))


def may_stand_in_multi(form: Form) -> bool:
    """Whether a client with a prefix may send it in a transaction."""
    name = form.words[0].lower()
    return name not in SUBSCRIBING and name != b"randomkey"


SHARES = {"valkey": 12, "redis7": 24, "redis8": 24}
"""Each setup of the short run takes one form of so many."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("setup", params(SHORT))
def test_every_command(setup: Setup, tmp_path: Path) -> None:
    """A share of the forms in each setup."""
    compare_all(setup, tmp_path, SHARES[setup.kind], SHORT.index(setup))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("setup", params(FULL))
def test_every_command_in_every_setup(setup: Setup, tmp_path: Path) -> None:
    """All forms in all setups."""
    compare_all(setup, tmp_path, 1, 0)
