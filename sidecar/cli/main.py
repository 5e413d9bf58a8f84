"""The commands: `sidecar run`, `check`, `hotkeys`, `pause`, `resume`, `switch`,
`certs dev|show|check`, `identities hash`, `tenants plan|apply|verify`, `completion`, and
`--version`. arguments.py has their arguments.

Each command calls one function, and turns the errors of that function into one line on standard
error and an exit code: 0 done, 1 failed, 2 wrong arguments or settings, 130 interrupted (`run`:
before it served; later a signal ends it in order). With `--json` what a command has found is JSON
on standard output, faults included; what kept it from finding anything is a line on standard error.
A command imports what it needs when it runs, so that `--version` and `check` do not load the data
plane.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sidecar.cli.arguments import parser

if TYPE_CHECKING:
    from sidecar.cli.admin_client import Where
    from sidecar.settings.schema import Settings

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    try:
        code = _run_command(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads, such as `head`, has read enough
        _give_up_output()
        return OK
    except OSError as error:  # a full disk: commands translate their own
        _give_up_output()
        return _complain(f"cannot write the output: {error.strerror}", FAILED)
    except KeyboardInterrupt:  # before the sidecar serves; later it handles the signal itself
        return INTERRUPTED


def _run_command(arguments: Sequence[str] | None) -> int:
    try:
        parsed = parser().parse_args(arguments)
    except SystemExit as end:  # --help, --version, or wrong arguments
        return int(end.code or OK)
    return _COMMANDS[parsed.name](parsed)


def _give_up_output() -> None:
    """What is still to be written goes nowhere: the interpreter would complain at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _overrides(parsed: argparse.Namespace) -> dict[str, str | Sequence[str]]:
    """The settings named on the command line; raises ConfigError for a `--set` without `=`."""
    from sidecar.settings.load import ConfigError

    overrides: dict[str, str | Sequence[str]] = {}
    for text in parsed.set:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError([f"--set {path}: no value; write --set {path}=VALUE"])
        overrides[path.strip()] = value
    named = {
        "listen.urls": parsed.listen,
        "upstream.url": parsed.upstream,
        "admin.listen": parsed.admin,
    }
    overrides.update({path: value for path, value in named.items() if value is not None})
    return overrides


def _run(parsed: argparse.Namespace) -> int:
    from sidecar.settings.load import ConfigError, load

    try:
        settings = load(parsed.config, _overrides(parsed))
    except ConfigError as error:
        more = len(error.problems) - 1
        rest = f" (and {more} more: `sidecar check` lists them)" if more else ""
        return _complain(error.problems[0] + rest, WRONG)
    from sidecar.app.run import run
    from sidecar.app.startup import StartError

    try:
        run(settings, lambda: load(parsed.config, _overrides(parsed)), parsed.config)
    except StartError as error:
        return _complain(str(error), FAILED)
    return OK


def _check(parsed: argparse.Namespace) -> int:
    from sidecar.settings.load import ConfigError, load

    try:
        settings = load(parsed.config, _overrides(parsed))
    except ConfigError as error:
        return _faults(error.problems, parsed.json)
    from sidecar.tls import files

    if problems := list(files.problems(settings, time.time())):
        return _faults(problems, parsed.json)
    listeners = list(map(str, settings.listeners))
    upstream, admin = str(settings.upstream_endpoint), settings.admin.listen
    found: dict[str, object] = {
        "problems": [], "listen": listeners, "upstream": upstream, "admin": admin,
    }  # fmt: skip
    there, warnings = _identities(settings)
    if parsed.json:
        print(json.dumps(found | {"identities": there, "warnings": warnings}, indent=2))
        return OK
    print(f"ok: listens on {', '.join(listeners)}")
    print(f"    upstream   {upstream}")
    print(f"    admin      {admin or 'off'}")
    if there:
        said = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in there.items())
        print(f"    {settings.identities.mode}  {said}")
    for warning in warnings:
        print(f"warning: {warning} ({settings.identities.file})")
    return OK


def _identities(settings: Settings) -> tuple[Mapping[str, int], Sequence[str]]:
    """What the file of identities has, and what in it is likely a mistake; without one nothing."""
    if not settings.identities.file:
        return {}, ()
    from sidecar.cli import check_identities

    return check_identities.counts(settings), list(check_identities.warnings(settings))


def _faults(problems: Sequence[str], as_json: bool) -> int:
    """Each fault of the settings, in a line of its own."""
    if as_json:
        print(json.dumps({"problems": problems}, indent=2))
    else:
        for problem in problems:
            _complain(problem, WRONG)
    return WRONG


def _hotkeys(parsed: argparse.Namespace) -> int:
    from sidecar.cli import show_hotkeys

    return _asking(
        lambda: show_hotkeys.show(
            _where(parsed), parsed.count, watch=parsed.watch, as_json=parsed.json
        )
    )


def _pause(parsed: argparse.Namespace) -> int:
    from sidecar.cli import operate

    return _asking(lambda: operate.pause(_where(parsed), as_json=parsed.json))


def _resume(parsed: argparse.Namespace) -> int:
    from sidecar.cli import operate

    return _asking(lambda: operate.resume(_where(parsed), as_json=parsed.json))


def _switch(parsed: argparse.Namespace) -> int:
    from sidecar.cli import operate

    url = sys.stdin.readline().strip() if parsed.url == "-" else parsed.url
    given = _tls_given(parsed)
    tls = {name: os.path.abspath(v) if "file" in name else v for name, v in given.items()}
    return _asking(
        lambda: operate.switch(
            _where(parsed), url, tls=tls, dry_run=parsed.dry_run, as_json=parsed.json
        )
    )


def _tls_given(parsed: argparse.Namespace) -> dict[str, str]:
    names = ("ca_file", "crl_file", "cert_file", "key_file", "server_name")
    return {name: value for name in names if (value := getattr(parsed, name)) is not None}


def _where(parsed: argparse.Namespace) -> Where:
    """The admin address that the arguments name."""
    from sidecar.cli.admin_client import Where

    return Where(parsed.admin, parsed.admin_ca, parsed.admin_cert, parsed.admin_key)


def _asking(ask: Callable[[], int]) -> int:
    """What `ask` returns; one line if no sidecar answers, or it refuses."""
    from sidecar.cli.admin_client import NoAnswer

    try:
        return ask()
    except NoAnswer as error:
        return _complain(str(error), FAILED)


def _certs_dev(parsed: argparse.Namespace) -> int:
    from sidecar.cli import dev_certs

    try:
        paths = dev_certs.create(parsed.dir, parsed.host, force=parsed.force)
    except (FileExistsError, ValueError) as error:
        return _complain(str(error), FAILED)
    except OSError as error:
        return _complain(f"cannot write to {parsed.dir}: {error.strerror}", FAILED)
    if parsed.json:
        print(json.dumps({"files": [str(path) for path in paths]}, indent=2))
    else:
        print(f"wrote {', '.join(path.name for path in paths)} to {parsed.dir}")
    return OK


def _certs_show(parsed: argparse.Namespace) -> int:
    from sidecar.cli import show_certs
    from sidecar.settings.load import ConfigError, load

    named: Sequence[tuple[str, str]] = [("", file) for file in parsed.files]
    if not named:
        try:
            named = show_certs.of_settings(load(parsed.config, _overrides(parsed)))
        except ConfigError as error:
            return _complain(error.problems[0], WRONG)
    if parsed.json:
        files = [show_certs.as_json(setting, file) for setting, file in named]
        print(json.dumps({"files": files}, indent=2))
        return FAILED if any(each["error"] for each in files) else OK
    if not named:
        print("no certificate files are set")
    code = OK
    for setting, file in named:
        print(f"{setting}  {file}" if setting else file)
        try:
            print("\n".join(show_certs.show(file)))
        except OSError as error:
            code = _complain(f"{file}: {(error.strerror or str(error)).lower()}", FAILED)
        except ValueError:
            code = _complain(f"{file}: no certificate (PEM) in it that can be read", FAILED)
    return code


def _certs_check(parsed: argparse.Namespace) -> int:
    import ssl

    import msgspec

    from sidecar.cli import check_tls
    from sidecar.settings.addresses import parse_host_port
    from sidecar.settings.load import ConfigError, load

    try:
        host, port = parse_host_port(parsed.server)
        tls = load(parsed.config).upstream.tls
        found = check_tls.check(host, port, msgspec.structs.replace(tls, **_tls_given(parsed)))
    except ConfigError as error:
        return _complain(error.problems[0], WRONG)
    except ValueError as error:
        return _complain(str(error), WRONG)
    except ssl.SSLError as error:
        return _complain(str(error.args[-1]), WRONG)
    if parsed.json:
        print(json.dumps({"problem": found.problem, "found": found.lines}, indent=2))
        return FAILED if found.problem else OK
    for line in found.lines:
        print(f"    {line}")
    if found.problem:
        return _complain(f"{parsed.server}: {found.problem}", FAILED)
    print(f"ok: {parsed.server} speaks TLS, and its certificate is accepted")
    return OK


def _identities_hash(parsed: argparse.Namespace) -> int:
    from sidecar.cli import hash_password
    from sidecar.passwords import hash_password as made

    try:
        text = made(hash_password.ask())
    except (hash_password.NoPasswordError, EOFError) as error:
        return _complain(str(error) or "no password was typed", FAILED)
    print(json.dumps({"hash": text}) if parsed.json else text)
    return OK


def _tenants(parsed: argparse.Namespace) -> int:
    from sidecar.cli import tenants
    from sidecar.cli.server_client import ServerError
    from sidecar.settings.load import ConfigError, load

    kind = parsed.name.partition(" ")[2]
    try:
        settings = load(parsed.config, _overrides(parsed))
        account = tenants.account(parsed.user, parsed.password_file)
        if kind == "verify":
            from sidecar.cli import prove_tenants

            found = prove_tenants.verify(settings, account)
            return prove_tenants.show_proofs(*found, as_json=parsed.json)
        planned = tenants.plan(
            settings, account, apply=kind == "apply", remove=kind == "apply" and parsed.remove
        )
        return tenants.show_plan(planned, as_json=parsed.json)
    except ConfigError as error:
        return _faults(error.problems, parsed.json)
    except ServerError as error:
        return _complain(str(error), FAILED)


def _completion(parsed: argparse.Namespace) -> int:
    from sidecar.cli import completion
    from sidecar.settings.schema import describe

    settings = [row.path for row in describe()]
    print(completion.script(parsed.shell, parser(), settings), end="")
    return OK


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "check": _check,
    "hotkeys": _hotkeys,
    "pause": _pause,
    "resume": _resume,
    "switch": _switch,
    "certs dev": _certs_dev,
    "certs show": _certs_show,
    "certs check": _certs_check,
    "identities hash": _identities_hash,
    "tenants plan": _tenants,
    "tenants apply": _tenants,
    "tenants verify": _tenants,
    "completion": _completion,
}


def _complain(message: str, code: int) -> int:
    print(f"sidecar: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
