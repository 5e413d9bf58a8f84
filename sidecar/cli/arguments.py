"""The arguments of the command line: each command and its options, declared once.

main.py reads arguments by this, `sidecar --help` shows it, and completion.py makes completions for
shells of it. Each parser has the `name` of its command, by which main.py finds what to do, and an
argument that wants a file, a folder or a setting says so (`FILE`, `DIR`, `SETTING`).
"""

from __future__ import annotations

import argparse

import sidecar

FILE = "FILE"
DIR = "DIR"
SETTING = "SECTION.KEY=VALUE"
SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
Settings come from the command line, then from SIDECAR_SECTION__KEY variables, then from the file,
then from the defaults. docs/configuration.md and config/full.toml list all of them. Exit codes:
0 done, 1 failed, 2 wrong arguments or settings, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it parses has the `name` of the command."""
    whole = argparse.ArgumentParser(
        prog="sidecar", description=sidecar.__doc__, epilog=_EPILOG, allow_abbrev=False
    )
    whole.add_argument("--version", action="version", version=f"sidecar {sidecar.__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="start the sidecar", epilog=_EPILOG, allow_abbrev=False)
    run.set_defaults(name="run")
    _add_settings(run)

    check = commands.add_parser(
        "check", help="read and check the settings without starting anything", allow_abbrev=False
    )
    check.set_defaults(name="check")
    _add_settings(check)
    _add_json(check, "print the result as JSON")

    _add_hotkeys(commands)
    _add_upstream(commands)
    _add_certs(commands)
    _add_identities(commands)
    _add_tenants(commands)
    completion = commands.add_parser(
        "completion", help="print what a shell needs to complete commands", allow_abbrev=False
    )
    completion.set_defaults(name="completion")
    completion.add_argument("shell", choices=SHELLS, help="which shell")
    return whole


def _add_hotkeys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    hotkeys = commands.add_parser(
        "hotkeys", help="show the hottest keys of a running sidecar", allow_abbrev=False
    )
    hotkeys.set_defaults(name="hotkeys")
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
    _add_json(parser, "print the JSON of the admin API")
    tls = parser.add_argument_group(
        "TLS of the admin address", "For an address that begins with https://."
    )
    for name, what in (
        ("ca", "CA certificates (PEM) to check its certificate against"),
        ("cert", "client certificate (PEM)"),
        ("key", "its private key (PEM)"),
    ):
        tls.add_argument(f"--admin-{name}", metavar=FILE, default="", help=what)


def _add_json(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--json", action="store_true", help=help)


def _add_upstream(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pause = commands.add_parser(
        "pause", help="have a running sidecar hold all commands", allow_abbrev=False
    )
    pause.set_defaults(name="pause")
    _add_admin(pause)
    resume = commands.add_parser("resume", help="let held commands go on", allow_abbrev=False)
    resume.set_defaults(name="resume")
    _add_admin(resume)
    switch = commands.add_parser(
        "switch", help="have a running sidecar go over to another upstream", allow_abbrev=False
    )
    switch.set_defaults(name="switch")
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
        metavar = FILE if name.endswith("-file") else "NAME"
        tls.add_argument(f"--{name}", metavar=metavar, help=what)


def _add_certs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    certs = commands.add_parser("certs", help="make, show and check certificates")
    kinds = certs.add_subparsers(title="kinds", metavar="KIND", required=True)
    dev = kinds.add_parser(
        "dev",
        help="make a CA, a server and a client certificate for development",
        allow_abbrev=False,
    )
    dev.set_defaults(name="certs dev")
    dev.add_argument(
        "--dir", metavar=DIR, default="certs", help="where to write them (default: certs)"
    )
    dev.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name or address of the server; can be repeated",
    )
    dev.add_argument("--force", action="store_true", help="replace existing files")
    _add_json(dev, "print the names of the files as JSON")

    show = kinds.add_parser(
        "show", help="show what is in certificate files, and when it ends", allow_abbrev=False
    )
    show.set_defaults(name="certs show")
    show.add_argument("files", nargs="*", metavar=FILE, help="instead of those of the settings")
    _add_settings(show)
    _add_json(show, "print what is in them as JSON")

    check = kinds.add_parser(
        "check",
        help="connect to a server with TLS and say what is wrong",
        allow_abbrev=False,
    )
    check.set_defaults(name="certs check")
    check.add_argument("server", metavar="HOST:PORT", help="where it listens")
    check.add_argument("-c", "--config", metavar=FILE, help="use [upstream.tls] of this file")
    _add_json(check, "print the result as JSON")
    _add_tls(check, "TLS", "As [upstream.tls], and before what that says.")


def _add_identities(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    identities = commands.add_parser("identities", help="make what identities.file has")
    kinds = identities.add_subparsers(title="kinds", metavar="KIND", required=True)
    hashed = kinds.add_parser(
        "hash",
        help="print the hash of a password, which is typed or read from standard input",
        allow_abbrev=False,
    )
    hashed.set_defaults(name="identities hash")
    _add_json(hashed, "print it as JSON")


def _add_tenants(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tenants = commands.add_parser(
        "tenants", help="make the server's users of the tenants in identities.file, and try them"
    )
    kinds = tenants.add_subparsers(title="kinds", metavar="KIND", required=True)
    for kind, what in (
        ("plan", "show which users are missing or different at which server"),
        ("apply", "make and change them; other users are never touched"),
        ("verify", "try as each tenant to reach what others have"),
    ):
        parser = kinds.add_parser(kind, help=what, allow_abbrev=False)
        parser.set_defaults(name=f"tenants {kind}")
        parser.add_argument(
            "--user", metavar="NAME", default="", help="ask the servers as this user"
        )
        parser.add_argument(
            "--password-file",
            metavar=FILE,
            default="",
            help="its password; - reads it from standard input (default: the sidecar's own user)",
        )
        if kind == "apply":
            parser.add_argument(
                "--remove",
                action="store_true",
                help="delete users that were made for tenants that are not in the file any more",
            )
        _add_settings(parser)
        _add_json(parser, "print the result as JSON")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar=FILE, help="TOML file with settings")
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
        metavar=SETTING,
        help="any other setting; can be repeated",
    )
