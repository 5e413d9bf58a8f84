"""What is wrong with a file of identities, beyond the types of its values: each fault is a line
that begins with the path.

Secrets are not shown. Files that it names are looked for, and not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from sidecar.settings.fields import Section
from sidecar.settings.phc import parse_hash
from sidecar.settings.sections.principals import (
    BUILT_IN_POLICIES,
    CommandPolicy,
    IdentitiesFile,
    Principal,
    Tenant,
)
from sidecar.settings.suggestions import suggested

# Names end up in labels, logs and, of tenants, as users of the server, which allows no blanks.
NAME = re.compile(r"[!-~]{1,64}")
NAME_FORM = "1 to 64 printable ASCII characters without blanks"

_CERTIFICATE = re.compile(r"(?:CN|DNS|URI):[!-~ ]+")
_PEER = re.compile(r"(?:uid|gid):[0-9]{1,10}")
_ACL_RULE = re.compile(r"[+-]@?[A-Za-z0-9_.|-]+|allcommands|nocommands")
_DENIED = re.compile(r"@?[A-Za-z0-9_.|-]+")
_COMMAND = re.compile(r"[A-Za-z0-9_.-]+")
_PATTERN = re.compile(r"[!-~]+")
# It stands in patterns, too, where it must mean itself.
_PREFIX = re.compile(r"[^\x00-\x20\x7f-\U0010ffff*?\[\]\\]{1,256}")

_CERTIFICATE_FORM = '"CN:name", "DNS:name" or "URI:spiffe://…"'
_PATTERN_FORM = 'a pattern, as "shop:*"'


def faults(read: IdentitiesFile) -> Iterator[str]:
    """Each reason why the file cannot be used; none when it can."""
    for name, principal in read.principals.items():
        yield from _principal(f"identities.{name}", principal, read)
    for name, tenant in read.tenants.items():
        yield from _tenant(f"tenants.{name}", tenant)
    for name, policy in read.policies.items():
        yield from _policy(name, policy)
    yield from _claims(read)
    yield from _users(read)
    yield from _prefixes(read)


def claim_of(text: str) -> str:
    """A name of a certificate, or a peer, in the form in which two can be compared: the names of
    hosts are the same in any case, and numbers with leading zeros."""
    kind, _, value = text.partition(":")
    if kind == "DNS":
        return f"DNS:{value.lower().rstrip('.')}"
    return f"{kind}:{int(value)}" if kind in ("uid", "gid") else text


def _principal(path: str, principal: Principal, read: IdentitiesFile) -> Iterator[str]:
    for number, text in enumerate(principal.passwords, 1):
        try:
            parse_hash(text)
        except ValueError as error:
            yield f"{path}.passwords: entry {number} is {error}"
    yield from _forms(
        f"{path}.certificates", principal.certificates, _CERTIFICATE, _CERTIFICATE_FORM
    )
    yield from _forms(f"{path}.peers", principal.peers, _PEER, '"uid:1000" or "gid:1000"')
    if principal.tenant and principal.tenant not in read.tenants:
        yield _unknown(f"{path}.tenant", "tenants", principal.tenant, read.tenants)
    if principal.policy and not read.has_policy(principal.policy):
        every = (*read.policies, *BUILT_IN_POLICIES)
        yield _unknown(f"{path}.policy", "policies", principal.policy, every)
    if principal.tenant and principal.upstream_username:
        yield f"{path}.upstream_username: set, but tenant is set as well; keep one"
    yield from _one_of(path, "upstream_password", principal)
    has_password = principal.upstream_password or principal.upstream_password_file
    if has_password and not principal.upstream_username:
        yield f"{path}.upstream_password: set, but upstream_username is empty; set it too"
    if principal.limits.burst and not principal.limits.commands:
        yield f"{path}.limits.burst: set, but limits.commands is not; set it"


def _tenant(path: str, tenant: Tenant) -> Iterator[str]:
    if tenant.username and not NAME.fullmatch(tenant.username):
        yield f"{path}.username: not a name; write {NAME_FORM}"
    yield from _one_of(path, "password", tenant)
    if not (tenant.password or tenant.password_file):
        yield f"{path}.password: empty; set it, or password_file: the sidecar logs in with it"
    for name in ("keys", "channels"):
        yield from _forms(f"{path}.{name}", getattr(tenant, name), _PATTERN, _PATTERN_FORM)
    yield from _forms(f"{path}.commands", tenant.commands, _ACL_RULE, '"+get" or "-@dangerous"')
    if tenant.prefix and not _PREFIX.fullmatch(tenant.prefix):
        yield f"{path}.prefix: write printable ASCII characters, without blanks and * ? [ ] \\"


def _policy(name: str, policy: CommandPolicy) -> Iterator[str]:
    path = f"policies.{name}"
    if name in BUILT_IN_POLICIES:
        yield f"{path}: this policy is built in; take another name"
    denied = '"KEYS", "CONFIG|SET" or "@dangerous"'
    yield from _forms(f"{path}.deny", policy.deny, _DENIED, denied)
    renamed = (*policy.rename, *policy.rename.values())
    yield from _forms(f"{path}.rename", renamed, _COMMAND, "the name of a command")
    for kind in ("deny_keys", "read_only_keys"):
        yield from _forms(f"{path}.{kind}", getattr(policy, kind), _PATTERN, _PATTERN_FORM)


def _claims(read: IdentitiesFile) -> Iterator[str]:
    """No certificate and no peer may be two identities."""
    for kind in ("certificates", "peers"):
        taken: dict[str, str] = {}
        for name, principal in read.principals.items():
            for text in getattr(principal, kind):
                if kind == "peers" and not _PEER.fullmatch(text):
                    continue  # said already
                other = taken.setdefault(claim_of(text), name)
                if other != name:
                    yield (
                        f"identities.{name}.{kind}: {text!r} is of identity {other!r} already; "
                        "keep one"
                    )


def _users(read: IdentitiesFile) -> Iterator[str]:
    """No two tenants may be one user of the server."""
    taken: dict[str, str] = {}
    for name, tenant in read.tenants.items():
        user = tenant.username or name
        other = taken.setdefault(user, name)
        if other != name:
            yield (
                f"tenants.{name}.username: {user!r} is the user of tenant {other!r} already; "
                "each needs its own"
            )


def _prefixes(read: IdentitiesFile) -> Iterator[str]:
    """No prefix may begin with that of another tenant, which would see all its keys."""
    prefixes = {name: tenant.prefix for name, tenant in read.tenants.items() if tenant.prefix}
    for name, prefix in prefixes.items():
        for other, begins in prefixes.items():
            if other != name and prefix.startswith(begins):
                yield (
                    f"tenants.{name}.prefix: begins with the prefix of tenant {other!r}, which "
                    "would see its keys; take another one"
                )


def _forms(path: str, texts: Iterable[str], form: re.Pattern[str], right: str) -> Iterator[str]:
    for text in texts:
        if not form.fullmatch(text):
            yield f"{path}: found {text!r}, expected {right}"


def _unknown(path: str, table: str, name: str, known: Iterable[str]) -> str:
    near = suggested(name, known)
    advice = f"; did you mean {near[0]}?" if near else f"; add [{table}.{name}]"
    return f"{path}: this file has no [{table}.{name}]{advice}"


def _one_of(path: str, name: str, section: Section) -> Iterator[str]:
    file = getattr(section, f"{name}_file")
    if file and getattr(section, name):
        yield f"{path}.{name}_file: set, but {name} is set as well; keep one"
    if file and not os.path.isfile(file):
        yield f"{path}.{name}_file: no file {file!r}; give the path of a text file"
