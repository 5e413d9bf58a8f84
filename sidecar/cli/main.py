"""The command line: `sidecar run`, `check`, `hotkeys`, `pause`, `resume`, `switch`,
`certs dev|show|check`, and `--version`.

Each command reads its arguments, calls one function, and turns the errors of that function into one
line on standard error and an exit code: 0 done, 1 failed, 2 wrong arguments or settings,
130 interrupted before the sidecar served. A command imports what it needs when it runs, so that
`--version` and `check` do not load the data plane.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import sidecar

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
Settings come from the command line, then from SIDECAR_SECTION__KEY variables, then from the file,
then from the defaults. docs/configuration.md and config/full.toml list all of them.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        code = command(parsed)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:  # before the sidecar serves; later it handles the signal itself
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar", description=sidecar.__doc__, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"sidecar {sidecar.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="start the sidecar", epilog=_EPILOG, allow_abbrev=False)
    run.set_defaults(command=_run)
    _add_settings(run)

    check = commands.add_parser(
        "check", help="read and check the settings without starting anything", allow_abbrev=False
    )
    check.set_defaults(command=_check)
    _add_settings(check)

    _add_hotkeys(commands)
    _add_upstream(commands)
    _add_certs(commands)
    return parser


def _add_hotkeys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    hotkeys = commands.add_parser(
        "hotkeys", help="show the hottest keys of a running sidecar", allow_abbrev=False
    )
    hotkeys.set_defaults(command=_hotkeys)
    _add_admin(hotkeys)
    hotkeys.add_argument("--count", type=int, default=20, help="how many keys (default: 20)")
    hotkeys.add_argument("--watch", action="store_true", help="show them again every second")


def _add_admin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="HOST:PORT",
        default="127.0.0.1:6381",
        help="its admin address (default: 127.0.0.1:6381)",
    )
    parser.add_argument("--json", action="store_true", help="print the JSON of the admin API")


def _add_upstream(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pause = commands.add_parser(
        "pause", help="have a running sidecar hold all commands", allow_abbrev=False
    )
    pause.set_defaults(command=_pause)
    _add_admin(pause)
    resume = commands.add_parser("resume", help="let held commands go on", allow_abbrev=False)
    resume.set_defaults(command=_resume)
    _add_admin(resume)
    switch = commands.add_parser(
        "switch", help="have a running sidecar go over to another upstream", allow_abbrev=False
    )
    switch.set_defaults(command=_switch)
    _add_admin(switch)
    switch.add_argument(
        "url", help="as upstream.url; - reads it from standard input, so that nobody sees it"
    )
    switch.add_argument("--dry-run", action="store_true", help="only connect and compare")
    _add_tls(
        switch,
        "TLS of the new upstream",
        "As [upstream.tls]; the files are on the sidecar's host. Without any of these, the "
        "settings of the configuration are used.",
    )


def _add_tls(parser: argparse.ArgumentParser, title: str, help: str) -> None:
    """The settings of [upstream.tls], as options."""
    tls = parser.add_argument_group(title, help)
    for name, what in (
        ("ca-file", "CA certificates (PEM) to check it against"),
        ("crl-file", "revocation lists (PEM) of its CA"),
        ("cert-file", "client certificate (PEM)"),
        ("key-file", "its private key (PEM)"),
        ("server-name", "name expected in its certificate"),
    ):
        tls.add_argument(f"--{name}", metavar=name.rpartition("-")[2].upper(), help=what)


def _add_certs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    certs = commands.add_parser("certs", help="make, show and check certificates")
    kinds = certs.add_subparsers(title="kinds", metavar="KIND", required=True)
    dev = kinds.add_parser(
        "dev",
        help="make a CA, a server and a client certificate for development",
        allow_abbrev=False,
    )
    dev.set_defaults(command=_certs_dev)
    dev.add_argument("--dir", default="certs", help="where to write them (default: certs)")
    dev.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name or address of the server; can be repeated",
    )
    dev.add_argument("--force", action="store_true", help="replace existing files")

    show = kinds.add_parser(
        "show", help="show what is in certificate files, and when it ends", allow_abbrev=False
    )
    show.set_defaults(command=_certs_show)
    show.add_argument("files", nargs="*", metavar="FILE", help="instead of those of the settings")
    _add_settings(show)

    check = kinds.add_parser(
        "check",
        help="connect to a server with TLS and say what is wrong",
        allow_abbrev=False,
    )
    check.set_defaults(command=_certs_check)
    check.add_argument("server", metavar="HOST:PORT", help="where it listens")
    check.add_argument("-c", "--config", metavar="FILE", help="use [upstream.tls] of this file")
    _add_tls(check, "TLS", "As [upstream.tls], and before what that says.")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", help="TOML file with settings")
    parser.add_argument(
        "--listen",
        action="append",
        metavar="URL",
        help="listen.urls: where applications connect; can be repeated",
    )
    parser.add_argument(
        "--upstream",
        metavar="URL",
        help="upstream.url: the Redis or Valkey server to send commands to",
    )
    parser.add_argument(
        "--admin",
        metavar="HOST:PORT",
        help='admin.listen: web page, API, metrics and probes; "" turns them off',
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="any other setting; can be repeated",
    )


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
        for problem in error.problems:
            _complain(problem, WRONG)
        return WRONG
    from sidecar.tls import files

    if problems := list(files.problems(settings, time.time())):
        for problem in problems:
            _complain(problem, WRONG)
        return WRONG
    listeners = ", ".join(map(str, settings.listeners))
    print(f"ok: listens on {listeners}")
    print(f"    upstream   {settings.upstream_endpoint}")
    print(f"    admin      {settings.admin.listen or 'off'}")
    return OK


def _hotkeys(parsed: argparse.Namespace) -> int:
    from sidecar.cli import show_hotkeys

    return _asking(
        lambda: show_hotkeys.show(
            parsed.admin, parsed.count, watch=parsed.watch, as_json=parsed.json
        )
    )


def _pause(parsed: argparse.Namespace) -> int:
    from sidecar.cli import operate

    return _asking(lambda: operate.pause(parsed.admin, as_json=parsed.json))


def _resume(parsed: argparse.Namespace) -> int:
    from sidecar.cli import operate

    return _asking(lambda: operate.resume(parsed.admin, as_json=parsed.json))


def _switch(parsed: argparse.Namespace) -> int:
    from sidecar.cli import operate

    url = sys.stdin.readline().strip() if parsed.url == "-" else parsed.url
    given = _tls_given(parsed)
    tls = {name: os.path.abspath(v) if "file" in name else v for name, v in given.items()}
    return _asking(
        lambda: operate.switch(
            parsed.admin, url, tls=tls, dry_run=parsed.dry_run, as_json=parsed.json
        )
    )


def _tls_given(parsed: argparse.Namespace) -> dict[str, str]:
    names = ("ca_file", "crl_file", "cert_file", "key_file", "server_name")
    return {name: value for name in names if (value := getattr(parsed, name)) is not None}


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
    for line in found.lines:
        print(f"    {line}")
    if found.problem:
        return _complain(f"{parsed.server}: {found.problem}", FAILED)
    print(f"ok: {parsed.server} speaks TLS, and its certificate is accepted")
    return OK


def _complain(message: str, code: int) -> int:
    print(f"sidecar: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
