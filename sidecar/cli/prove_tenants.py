"""`sidecar tenants verify`: tries, as each tenant, what it must and must not be able to do.

What is tried is in policy/isolation.py; nothing of it destroys anything. It is tried at the servers
themselves, past any sidecar: they enforce it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import hiredis

from sidecar.cli.paint import Paint
from sidecar.cli.server_client import Account, Place, ServerError, Upstream
from sidecar.cli.tenants import wanted_users
from sidecar.policy import acl_rules, isolation
from sidecar.policy.acl_rules import WantedUser
from sidecar.settings.schema import Settings


@dataclass(frozen=True)
class Proof:
    """One attempt, and whether it went as it must."""

    server: str
    tenant: str
    what: str
    other: str
    ok: bool
    said: str


def verify(settings: Settings, account: Account | None) -> tuple[list[Proof], list[str]]:
    """Try everything at every server: what was found, and what kept it from being tried. Raises
    ServerError."""
    upstream, users = Upstream(settings), wanted_users(settings)
    account = account or upstream.account()
    proofs: list[Proof] = []
    problems: list[str] = []
    token = f"sidecar-verify-{secrets.token_hex(6)}"
    for place in upstream.servers(account):
        for user in users:
            try:
                proofs += _proofs(upstream, place, account, user, users, token)
            except ServerError as error:
                problems.append(f"{error} (tenant {user.tenant})")
    return proofs, problems


def _proofs(
    upstream: Upstream,
    place: Place,
    account: Account,
    user: WantedUser,
    users: Sequence[WantedUser],
    token: str,
) -> Iterator[Proof]:
    where, login = str(place), Account(user.name, user.password.decode("utf-8", "replace"))
    attempts = list(isolation.own(_probe(user.keys, token))) if user.keys else []
    for other in users:
        if other is not user:
            key, channel = _probe(other.keys, token), _probe(other.channels, token)
            attempts += isolation.across(other.tenant, key, channel)
    with upstream.connect(place, login) as server:
        for attempt in attempts:
            said = server.ask(*attempt.request)
            error = isinstance(said, hiredis.ReplyError)
            ok, code = isolation.verdict(attempt, said, error)
            yield Proof(where, user.tenant, attempt.what, attempt.other, ok, code)
            if not error and attempt.request[0] in ("SUBSCRIBE", "PSUBSCRIBE"):
                return  # this connection can do nothing else now, and the rest does not matter
            if attempt.refused and not error and attempt.request[0] in ("SET", "COPY"):
                server.ask("DEL", *attempt.request[1:3])
    with upstream.connect(place, account) as admin:
        for request in isolation.HARMFUL:
            said = admin.ask("ACL", "DRYRUN", user.name, *request)
            text = str(said)
            if isinstance(said, hiredis.ReplyError):
                if "not found" in text or "wrong number" in text:
                    continue  # this server has no such command
                raise ServerError(f"{place}: ACL DRYRUN: {text}")
            what = f"may run {' '.join(request[:2])}"
            yield Proof(where, user.tenant, what, "", text != "OK", "OK" if text == "OK" else "no")


def _probe(patterns: frozenset[str], token: str) -> str:
    own = sorted(filter(acl_rules.is_tenants_own, patterns))
    return isolation.probes(own, token)


def show_proofs(proofs: Sequence[Proof], problems: Sequence[str], *, as_json: bool) -> int:
    """Print what was tried; the exit code: 0 if tenants are apart."""
    apart = bool(proofs) and all(proof.ok for proof in proofs) and not problems
    if as_json:
        found = {"apart": apart, "proofs": [asdict(each) for each in proofs], "problems": problems}
        print(json.dumps(found, indent=2))
        return 0 if apart else 1
    paint, head = Paint(), ("", "")
    for proof in proofs:
        if (proof.server, proof.tenant) != head:
            head = (proof.server, proof.tenant)
            print(f"{proof.tenant} at {proof.server}")
        sign = paint.good("✓") if proof.ok else paint.bad("✗")
        of = f" of {proof.other}" if proof.other else ""
        print(f"  {sign} {proof.what}{of}: {proof.said}")
    for problem in problems:
        print(f"{paint.bad('✗')} {problem}")
    if not proofs and not problems:
        print("there is no tenant in identities.file")
    wrong = sum(not proof.ok for proof in proofs) + len(problems)
    print("tenants are apart" if apart else f"{wrong} of {len(proofs)} attempts went wrong")
    return 0 if apart else 1
