"""`sidecar tenants plan|apply`: the server's users of the tenants in `identities.file`.

plan says what is missing or different at each server; apply makes that. Users that this has not
made (they lack the mark of policy/acl_rules.py) are never touched. prove_tenants.py is `verify`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sidecar.cli.paint import Paint
from sidecar.cli.server_client import Account, Server, ServerError, Upstream
from sidecar.policy import acl_rules
from sidecar.policy.acl_rules import Actual, Commands, WantedUser
from sidecar.settings.identities_file import IdentitiesError, read_identities, read_password
from sidecar.settings.schema import Settings

OLDEST = "the server has no ACL GETUSER: tenants need Redis 7 or Valkey"


@dataclass(frozen=True)
class Step:
    """What is to be done about one tenant at one server. `state` is same, make, change, foreign
    (somebody else's user has the name) or left (a user whose tenant the file does not have)."""

    server: str
    tenant: str
    user: str
    state: str
    differences: Sequence[str]
    command: str = ""
    done: bool = False


class Planned:
    """The steps at all servers, and what kept some from being made."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.problems: list[str] = []

    @property
    def as_wanted(self) -> bool:
        """Whether every user is there as it should be."""
        return not self.problems and all(
            step.done or step.state in ("same", "left") for step in self.steps
        )


def wanted_users(settings: Settings) -> Sequence[WantedUser]:
    """The users of all tenants. Raises ServerError, in words of the file."""
    try:
        file = read_identities(settings.identities.file)
        return [
            acl_rules.wanted(
                name,
                tenant.username or name,
                read_password(
                    f"tenants.{name}.password_file", tenant.password, tenant.password_file
                ),
                tenant.keys,
                tenant.channels,
                tenant.commands,
                tenant.prefix,
                caches=settings.cache.mode != "off",
                in_cluster=settings.upstream_endpoint.kind == "cluster",
            )
            for name, tenant in file.tenants.items()
        ]
    except IdentitiesError as error:
        raise ServerError(error.problems[0]) from error
    except ValueError as error:
        raise ServerError(str(error)) from error


def plan(settings: Settings, account: Account | None, *, apply: bool, remove: bool) -> Planned:
    """What is to be done at every server; with `apply` it is done as well, and with `remove` users
    are deleted that were made for tenants that are gone. Raises ServerError."""
    upstream, users, planned = Upstream(settings), wanted_users(settings), Planned()
    account = account or upstream.account()
    for place in upstream.servers(account):
        try:
            with upstream.connect(place, account) as server:
                for step in _steps(server, users):
                    if apply and (step.state in ("make", "change") or remove):
                        step = _applied(server, step, users)
                    planned.steps.append(step)
        except ServerError as error:
            planned.problems.append(str(error))
    return planned


def _steps(server: Server, users: Sequence[WantedUser]) -> Iterator[Step]:
    commands, where = _commands_of(server), str(server.place)
    for user in users:
        try:
            rules = commands.usable(user.commands)
        except ValueError as error:
            raise ServerError(f"{server.place}: tenants.{user.tenant}.commands: {error}") from None
        actual = _actual(server, user.name)
        found = acl_rules.differences(user, actual, commands)
        state = "same" if not found else "make" if actual is None else "change"
        if actual is not None and actual.owner() != user.tenant:
            state = "foreign"
        shown = " ".join(["ACL", "SETUSER", user.name, *_with(user, rules).rules(secret=False)])
        command = shown if state in ("make", "change") else ""
        yield Step(where, user.tenant, user.name, state, found, command)
    names = {user.name for user in users}
    for name in server.must("ACL", "USERS"):
        if name not in names and (actual := _actual(server, name)) is not None and actual.owner():
            yield Step(where, actual.owner(), name, "left", (), f"ACL DELUSER {name}")


def _with(user: WantedUser, rules: Sequence[str]) -> WantedUser:
    return WantedUser(user.tenant, user.name, user.password, user.keys, user.channels, tuple(rules))


def _applied(server: Server, step: Step, users: Sequence[WantedUser]) -> Step:
    if step.state == "left":
        server.must("ACL", "DELUSER", step.user)
    elif step.state in ("make", "change"):
        user = next(each for each in users if each.name == step.user)
        rules = _commands_of(server).usable(user.commands)
        server.must("ACL", "SETUSER", user.name, *_with(user, rules).rules(secret=True))
        left = acl_rules.differences(user, _actual(server, user.name), _commands_of(server))
        if left:
            raise ServerError(f"{server.place}: {user.name} is still different: {left[0]}")
    else:
        return step
    return Step(
        step.server, step.tenant, step.user, step.state, step.differences, step.command, True
    )


def _commands_of(server: Server) -> Commands:
    found = {}
    for category in server.must("ACL", "CAT"):
        found[str(category)] = frozenset(map(str, server.must("ACL", "CAT", category)))
    return Commands(found)


def _actual(server: Server, name: str) -> Actual | None:
    said = server.must("ACL", "GETUSER", name)
    if said is None:
        return None
    fields = dict(zip(said[::2], said[1::2], strict=True))
    if not isinstance(fields["keys"], str):
        raise ServerError(f"{server.place}: {OLDEST}")
    return Actual(
        frozenset(fields["flags"]),
        frozenset(fields["passwords"]),
        frozenset(fields["keys"].split()),
        frozenset(fields["channels"].split()),
        fields["commands"],
        len(fields.get("selectors") or ()),
    )


def account(user: str, password_file: str) -> Account | None:
    """Whom the servers are asked as: this user, with the password in a file, or on standard input
    ("-"); None: the sidecar's own. Raises ServerError."""
    if not password_file:
        if user:
            raise ServerError("--user needs --password-file; - reads it from standard input")
        return None
    try:
        if password_file == "-":
            password = sys.stdin.readline()
        else:
            with open(password_file, encoding="utf-8") as file:
                password = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ServerError(f"{password_file}: {why.lower()}") from error
    return Account(user, password.rstrip("\r\n"))


_WORDS: Mapping[str, str] = {
    "same": "as wanted",
    "make": "to be made",
    "change": "to be changed",
    "foreign": "exists, and was not made by this command: not touched",
    "left": "left over: its tenant is not in the file (--remove deletes it)",
}


def show_plan(planned: Planned, *, as_json: bool) -> int:
    """Print it; the exit code: 0 if every user is as wanted, or was made so."""
    if as_json:
        steps: list[dict[str, Any]] = [asdict(step) for step in planned.steps]
        print(json.dumps({"steps": steps, "problems": planned.problems}, indent=2))
        return 0 if planned.as_wanted else 1
    paint, where = Paint(), ""
    for step in planned.steps:
        if step.server != where:
            where = step.server
            print(where)
        fine = step.done or step.state in ("same", "left")
        sign = paint.good("✓") if fine else paint.bad("✗")
        state = "done" if step.done else _WORDS[step.state]
        print(f"  {sign} {step.user}: {state}")
        if step.differences and step.state != "same":
            print(f"      {'; '.join(step.differences)}")
        if step.command and not step.done:
            print(f"      {step.command}")
    for problem in planned.problems:
        print(f"  {paint.bad('✗')} {problem}")
    return 0 if planned.as_wanted else 1
