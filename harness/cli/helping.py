"""What `--help` prints: every word of a command with its default."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.cli.parsing import command_words, explanation


def wants_help(argv: Sequence[str]) -> bool:
    """Whether a command is asked to explain itself."""
    return bool({"-h", "--help", "help"} & set(argv))


def help_text(
    command: str,
    schema: type,
    about: str,
    subcommands: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
) -> str:
    """What `--help` prints: every word with its default, or those that `only` names, in that order."""
    lines = [f"usage: python -m {command} [words]   each word is key=value", "", about, ""]
    for name, text in (subcommands or {}).items():
        lines.append(f"  {name:<22} {text}")
    if subcommands:
        lines.append("")
    return "\n".join([*lines, *_word_lines(schema, command.rpartition(".")[2], only)])


def subcommand_help(module: str, schema: type, about: str, subcommands: Mapping[str, str], argv: Sequence[str]) -> str:
    """What `--help` prints of a command with subcommands: the words of each, or of the one that `argv` names."""
    chosen = [name for name in subcommands if name in argv] or list(subcommands)
    lines = [f"usage: python -m {module} SUBCOMMAND [words]   each word is key=value", "", about]
    for name in chosen:
        lines += ["", f"{name}: {subcommands[name]}", *_word_lines(schema, name)]
    return "\n".join(lines)


def _word_lines(schema: type, command: str, only: Collection[str] | None = None) -> list[str]:
    lines = []
    known = command_words(schema, command)
    for name, f in known.items() if only is None else ((name, known[name]) for name in only):
        default = "" if f.default is None else f" [{_show(f.default)}]"
        lines.append(f"  {name + '=':<22} {explanation(f)}{default}")
    return lines


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
