"""The command line: `sidecar run`, `check`, `hotkeys`, `certs dev`, and `--version`.

Reads arguments, calls one function, and turns its errors into one line on standard error and an
exit code: 0 done, 1 could not start, 2 wrong arguments or settings, 130 interrupted before it
served. Imports what a command needs only when that command runs, so that `--version` and `check`
do not load the data plane.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import sidecar

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
Settings come from the command line, then SIDECAR_SECTION__KEY variables, then the file, then
defaults; docs/configuration.md and config/full.toml list them all.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except KeyboardInterrupt:  # before the sidecar serves; from then on it handles the signal
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
        "check", help="read and check the settings, start nothing", allow_abbrev=False
    )
    check.set_defaults(command=_check)
    _add_settings(check)

    hotkeys = commands.add_parser(
        "hotkeys", help="show the hottest keys of a running sidecar", allow_abbrev=False
    )
    hotkeys.set_defaults(command=_hotkeys)
    hotkeys.add_argument(
        "--admin", metavar="HOST:PORT", default="127.0.0.1:6381", help="its admin address"
    )
    hotkeys.add_argument("--count", type=int, default=20, help="how many keys (default: 20)")
    hotkeys.add_argument("--watch", action="store_true", help="show them anew each second")
    hotkeys.add_argument("--json", action="store_true", help="print what the admin address answers")

    certs = commands.add_parser("certs", help="make certificates")
    kinds = certs.add_subparsers(title="kinds", metavar="KIND", required=True)
    dev = kinds.add_parser(
        "dev", help="a CA, a server and a client certificate, for development", allow_abbrev=False
    )
    dev.set_defaults(command=_certs_dev)
    dev.add_argument("--dir", default="certs", help="where to write them (default: certs)")
    dev.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name or address of the server; may be repeated",
    )
    dev.add_argument("--force", action="store_true", help="replace files that exist")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", help="settings in TOML")
    parser.add_argument(
        "--listen",
        action="append",
        metavar="URL",
        help="listen.urls: where the application connects; may be repeated",
    )
    parser.add_argument("--upstream", metavar="URL", help="upstream.url: the server behind")
    parser.add_argument(
        "--admin", metavar="HOST:PORT", help='admin.listen: probes and metrics; "" for none'
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="any other setting; may be repeated",
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
        run(settings)
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
    listeners = ", ".join(map(str, settings.listeners))
    print(f"ok: listens on {listeners}")
    print(f"    upstream   {settings.upstream_endpoint}")
    print(f"    admin      {settings.admin.listen or 'off'}")
    return OK


def _hotkeys(parsed: argparse.Namespace) -> int:
    from sidecar.cli import show_hotkeys

    try:
        return show_hotkeys.show(
            parsed.admin, parsed.count, watch=parsed.watch, as_json=parsed.json
        )
    except show_hotkeys.NoAnswer as error:
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


def _complain(message: str, code: int) -> int:
    print(f"sidecar: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
