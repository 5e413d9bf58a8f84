"""What `sidecar check` says of the file of `identities.file`: how much is in it, and what in it can
be used but is likely a mistake. What cannot be used is a fault (settings/identities_faults.py).

Secrets are not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.policy.command_policy import catalogue_from_data, unknown_rules
from sidecar.policy.shipped import shipped_commands
from sidecar.settings.identities_file import read_identities
from sidecar.settings.phc import is_weak, parse_hash
from sidecar.settings.schema import Settings
from sidecar.settings.sections.principals import IdentitiesFile
from sidecar.settings.urls import parse_listen


def counts(settings: Settings) -> Mapping[str, int]:
    """How many identities, tenants and policies the file has, and how many listeners have a
    policy."""
    read = read_identities(settings.identities.file)
    return {
        "identities": len(read.principals),
        "tenants": len(read.tenants),
        "policies": len(read.policies),
        "listeners_with_policy": sum(map(bool, _of_listeners(settings))),
    }


def warnings(settings: Settings) -> Iterator[str]:
    """Each likely mistake, as a line that begins with its place in the file."""
    read = read_identities(settings.identities.file)
    yield from _hashes(read)
    used = {each.policy for each in read.principals.values()} | set(_of_listeners(settings))
    catalogue = catalogue_from_data(shipped_commands())
    for name, policy in read.policies.items():
        if name not in used:
            yield f"policies.{name}: no identity and no listener has this policy"
        for rule in unknown_rules(policy, catalogue):
            yield f"policies.{name}.deny: {rule!r} is no command or category that is known here"
    tenants = {each.tenant for each in read.principals.values()}
    for name in read.tenants:
        if name not in tenants:
            yield f"tenants.{name}: no identity is of this tenant"


def _of_listeners(settings: Settings) -> list[str]:
    """The policy of each listener; empty: it has none."""
    return [parse_listen(url).policy or settings.listen.policy for url in settings.listen.urls]


def _hashes(read: IdentitiesFile) -> Iterator[str]:
    taken: dict[str, str] = {}
    for name, principal in read.principals.items():
        for number, text in enumerate(principal.passwords, 1):
            place = f"identities.{name}.passwords: entry {number}"
            if is_weak(parse_hash(text)):
                yield (
                    f"{place} costs an attacker little; make another one with `sidecar identities "
                    "hash`"
                )
            other = taken.setdefault(text, place)
            if other != place:
                yield f"{place} is the same hash as {other}"
