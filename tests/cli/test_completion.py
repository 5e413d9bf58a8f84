"""What the completions of real shells offer."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli.arguments import parser
from sidecar.cli.completion import commands_of
from sidecar.settings.schema import describe

SHELLS = ("bash", "zsh", "fish")
COMMANDS = {
    "run", "check", "hotkeys", "pause", "resume", "switch", "certs", "identities", "tenants",
    "completion",
}  # fmt: skip

# Each prints what is offered for the words in $@, a line each; `FILES` where files are.
BASH = """
source "$SCRIPT"
compopt() { :; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sidecar
printf '%s\\n' "${COMPREPLY[@]}"
"""
# The completion system is left out: its functions say what they are asked to offer.
ZSH = """
compdef() { }
_files() { print FILES }
_message() { }
_describe() { local name=$2; print -l -- ${${(P)name}%%:*} }
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- ${^@}= }
words=("$@"); CURRENT=$#; PREFIX=$words[-1]
source "$SCRIPT"
_sidecar
"""
FISH = """
source $SCRIPT
complete -C (string join ' ' -- $argv)
"""


def script(shell: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    found = {shell: folder / shell for shell in SHELLS}
    for shell, file in found.items():
        file.write_text(script(shell))
    return found


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"NO {name.upper()}: {name} is not installed")
    return name


def offered(shell: str, scripts: dict[str, Path], *words: str) -> set[str]:
    """What the shell offers after these words, the last of which has been begun."""
    argv = {
        "bash": ["bash", "--norc", "-c", BASH, "bash"],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
        "fish": ["fish", "--no-config", "-c", FISH],
    }[shell]
    home = str(scripts[shell].parent)
    done = subprocess.run(
        [*argv, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=home,
        env={
            "SCRIPT": str(scripts[shell]),
            "HOME": home,
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
        },
    )
    assert done.stderr == ""
    lines = (line.partition("\t")[0] for line in done.stdout.splitlines())
    return {line for line in lines if line.startswith(words[-1])}


def test_commands(shell: str, scripts: dict[str, Path]) -> None:
    assert offered(shell, scripts, "sidecar", "") >= COMMANDS
    assert {"certs", "check"} & offered(shell, scripts, "sidecar", "cer") == {"certs"}
    assert offered(shell, scripts, "sidecar", "certs", "") >= {"dev", "show", "check"}
    assert not COMMANDS & offered(shell, scripts, "sidecar", "run", "")
    assert offered(shell, scripts, "sidecar", "completion", "") >= set(SHELLS)


def test_options(shell: str, scripts: dict[str, Path]) -> None:
    """Those of the command, also of `check` below `certs`, which is another than `check`."""
    assert {"--set", "--listen", "--config"} <= offered(shell, scripts, "sidecar", "run", "--")
    there = offered(shell, scripts, "sidecar", "certs", "check", "--")
    assert {"--server-name", "--json"} <= there
    assert "--set" not in there
    assert "--server-name" not in offered(shell, scripts, "sidecar", "check", "--")


def test_settings_and_values(shell: str, scripts: dict[str, Path]) -> None:
    every = {f"{row.path}=" for row in describe()}
    assert offered(shell, scripts, "sidecar", "run", "--set", "") == every
    assert offered(shell, scripts, "sidecar", "run", "--set", "cache.max_v") == {"cache.max_value="}
    assert offered(shell, scripts, "sidecar", "hotkeys", "--count", "") <= {""}


def test_every_command_and_option_is_known() -> None:
    """Also those that come later: whatever the parser has."""
    known = list(commands_of(parser()))
    assert {each.words for each in known if " " not in each.words} == {"", *COMMANDS}
    for each in known:
        assert all(name for name, _ in each.commands)
        assert each.words == "" or "--help" in [n for o in each.options for n in o.names]
    one = argparse.ArgumentParser(prog="x")
    one.add_argument("--flag", action="store_true")
    one.add_argument("--many", metavar="FILE", nargs="*")
    (found,) = commands_of(one)
    assert [(o.names, o.value) for o in found.options][1:] == [
        (["--flag"], ""),
        (["--many"], "FILE"),
    ]
