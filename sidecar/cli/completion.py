"""`sidecar completion bash|zsh|fish`: prints the completion for a shell, made from the parser.

Each script finds the command that the words before the cursor name, and offers its options, its
subcommands, and the values of an option where they are known: files, names of settings, choices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.cli.arguments import DIR, FILE, SETTING


@dataclass(frozen=True)
class Option:
    """An option: its names, what it is for, and what kind of value it takes: FILE, SETTING, any
    other word for one that is not known, "" for none."""

    names: Sequence[str]
    help: str
    value: str


@dataclass(frozen=True)
class Command:
    """A command by its words ("" for the program itself): its options, its subcommands with what
    they are for, and the choices of its arguments. `files`: it takes files."""

    words: str
    options: Sequence[Option]
    commands: Sequence[tuple[str, str]]
    choices: Sequence[str]
    files: bool


def commands_of(parser: argparse.ArgumentParser, words: str = "") -> Iterator[Command]:
    """The program, and all of its commands."""
    options, below, choices, files = [], [], list[str](), False
    children: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children += action.choices.items()
            below += [(each.dest, each.help or "") for each in action._choices_actions]
        elif action.option_strings:
            value = str(action.metavar or "VALUE") if action.nargs != 0 else ""
            value = FILE if value == DIR else value
            options.append(Option(action.option_strings, action.help or "", value))
        else:
            choices += action.choices or ()
            files = files or action.metavar == FILE
    yield Command(words, options, below, choices, files)
    for name, child in children:
        yield from commands_of(child, f"{words} {name}".strip())


def script(shell: str, parser: argparse.ArgumentParser, settings: Sequence[str]) -> str:
    """The completion for this shell; `settings` are the paths of all settings."""
    commands = list(commands_of(parser))
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return "\n".join(make(commands, settings)) + "\n"


def _names(commands: Sequence[Command], value: str) -> str:
    """The names of all options with this kind of value, as a pattern of `case`."""
    found = {
        name for each in commands for o in each.options if o.value == value for name in o.names
    }
    return "|".join(sorted(found))


def _others(commands: Sequence[Command]) -> str:
    """The names of all options whose value is not known."""
    found = {
        name
        for each in commands
        for option in each.options
        if option.value not in ("", FILE, SETTING)
        for name in option.names
    }
    return "|".join(sorted(found))


def _steps(commands: Sequence[Command]) -> str:
    """What leads from one command to the next, as a pattern of `case`: `certs/dev`."""
    return "|".join("/".join(each.words.rpartition(" ")[::2]) for each in commands if each.words)


def _words(command: Command) -> str:
    names = [name for option in command.options for name in option.names]
    return " ".join([*(name for name, _ in command.commands), *command.choices, *names])


def _bash(commands: Sequence[Command], settings: Sequence[str]) -> Iterator[str]:
    yield "# bash completion for sidecar: source <(sidecar completion bash)"
    yield "_sidecar() {"
    yield '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"'
    yield '    local at="" word words=""'
    yield "    COMPREPLY=()"
    yield '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield f'        case "$at/$word" in {_steps(commands)}) at="${{at:+$at }}$word" ;; esac'
    yield "    done"
    yield '    case "$prev" in'
    yield f"        {_names(commands, FILE)}) return ;;  # files: by complete -o default"
    yield f"        {_names(commands, SETTING)})"
    yield "            type compopt >/dev/null 2>&1 && compopt -o nospace"
    yield f'            words="{" ".join(f"{path}=" for path in settings)}" ;;'
    yield f"        {_others(commands)})"
    yield "            type compopt >/dev/null 2>&1 && compopt +o default; return ;;"
    yield '        *) case "$at" in'
    for command in commands:
        files = '[[ "$cur" == -* ]] || return; ' if command.files else ""
        yield f'            "{command.words}") {files}words="{_words(command)}" ;;'
    yield "        esac ;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$cur"))'
    yield "}"
    yield "complete -o default -F _sidecar sidecar"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh(commands: Sequence[Command], settings: Sequence[str]) -> Iterator[str]:
    yield "#compdef sidecar"
    yield "# zsh completion for sidecar: source <(sidecar completion zsh)"
    yield "_sidecar() {"
    yield '    local at="" word'
    yield "    local -a found"
    yield '    for word in "${(@)words[2,CURRENT-1]}"; do'
    yield f'        case "$at/$word" in ({_steps(commands)}) at="${{at:+$at }}$word" ;; esac'
    yield "    done"
    yield '    case "$words[CURRENT-1]" in'
    yield f"        ({_names(commands, FILE)}) _files; return ;;"
    yield f"        ({_names(commands, SETTING)})"
    yield f"            compadd -S = -- {' '.join(settings)}; return ;;"
    yield f"        ({_others(commands)}) _message value; return ;;"
    yield "    esac"
    yield '    case "$at" in'
    for command in commands:
        told = [*command.commands, *((choice, "") for choice in command.choices)]
        told += [(name, option.help) for option in command.options for name in option.names]
        found = " ".join(_quoted(_described(name, help)) for name, help in told)
        files = '[[ "$PREFIX" == -* ]] || { _files; return }; ' if command.files else ""
        yield f"        ({_quoted(command.words)}) {files}found=({found}) ;;"
    yield "    esac"
    yield "    _describe sidecar found"
    yield "}"
    # A file of $fpath is the function itself; what is sourced declares it.
    yield 'if [ "${funcstack[1]}" = "_sidecar" ]'
    yield 'then _sidecar "$@"'
    yield "else compdef _sidecar sidecar"
    yield "fi"


def _described(name: str, help: str) -> str:
    """As `_describe` of zsh has it: colons divide."""
    return name.replace(":", "\\:") + (f":{help}" if help else "")


def _fish(commands: Sequence[Command], settings: Sequence[str]) -> Iterator[str]:
    yield "# fish completion for sidecar: sidecar completion fish | source"
    yield "function __sidecar_at"
    yield "    set -l at ''"
    yield "    for word in (commandline -opc)[2..-1]"
    yield '        switch "$at/$word"'
    for command in commands:
        if command.words:
            before, _, name = command.words.rpartition(" ")
            yield f"            case '{before}/{name}'"
            yield f"                set at '{command.words}'"
    yield "        end"
    yield "    end"
    yield '    test "$at" = "$argv[1]"'
    yield "end"
    yield "complete -c sidecar -f"
    for command in commands:
        here = f"complete -c sidecar -n \"__sidecar_at '{command.words}'\""
        if command.files:
            yield f"{here} -F"
        for name, help in command.commands:
            yield f"{here} -a {name} -d {_quoted_fish(help)}"
        for choice in command.choices:
            yield f"{here} -a {choice}"
        for option in command.options:
            yield f"{here} {_fish_option(option, settings)} -d {_quoted_fish(option.help)}"


def _fish_option(option: Option, settings: Sequence[str]) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    if option.value == FILE:
        return f"{names} -r -F"
    if option.value == SETTING:
        return f"{names} -x -a '{' '.join(f'{path}=' for path in settings)}'"
    return f"{names} -x" if option.value else names


def _quoted_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
