"""The command line: `key=value` words over a typed dataclass, checked all at once, explained by `--help`.

Checking words imports neither torch nor Ray.
"""

from __future__ import annotations

import dataclasses
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.plan_files import read_plan_file
from harness.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_READER,
    BadInput,
    HarnessError,
    Problem,
    nearest,
)


def word(default: Any, text: str, *commands: str) -> Any:
    """A command-line word: its default, its explanation, and the commands that take it (none: all of them)."""
    meta = {"text": text, "commands": commands}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Parsed:
    """Typed words, the `data.<option>` texts, and the `<method>.<knob>` texts by method."""

    words: Any
    options: Mapping[str, str]
    knobs: Mapping[str, Mapping[str, str]]
    given: Mapping[str, str]
    """Every word as it was written, plan file included."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the words themselves, where the caller goes on to look for more: they have their defaults."""


def command_words(schema: type, command: str | None) -> dict[str, dataclasses.Field[Any]]:
    """The words of one command, sections by dotted name, in order."""
    out: dict[str, dataclasses.Field[Any]] = {}
    for f in dataclasses.fields(schema):
        commands = f.metadata.get("commands", ())
        if command and commands and command not in commands:
            continue
        section = _section(f)
        if section:
            for g in dataclasses.fields(section):
                out[f"{f.name}.{g.name}"] = g
        else:
            out[f.name] = f
    return out


def parse(
    argv: Sequence[str],
    schema: type,
    command: str | None = None,
    methods: Sequence[str] = (),
    *,
    collect: bool = False,
) -> Parsed:
    """Typed words from `key=value` texts.

    Raises BadInput with all problems at once: unknown words (with the nearest), wrong types, repeated words, a plan
    file with several rows. `collect` leaves all but the last in `Parsed.problems`.
    """
    sets = parse_rows(argv, schema, command, methods, collect=collect)
    if len(sets) > 1:
        fix = "harness.sweep takes such a file; here give one set of words"
        raise BadInput(Problem("plan", f"{sets[0].given['plan']} holds {len(sets)} rows", fix))
    return sets[0]


def parse_rows(
    argv: Sequence[str],
    schema: type,
    command: str | None = None,
    methods: Sequence[str] = (),
    *,
    collect: bool = False,
) -> list[Parsed]:
    """One set of typed words for each of the `rows` of a plan file, or the only one. Raises BadInput as `parse`.

    Words of a row win over those beside `rows`, words on the line over both.
    """
    problems: list[Problem] = []
    given = _pairs(argv, problems)
    shared: dict[str, str] = {}
    rows: list[dict[str, str]] = [{}]
    if "plan" in given and "plan" in command_words(schema, command):
        shared, rows = read_plan_file(given["plan"], problems)
    sets = [_typed(_over(given, _over(row, shared, schema), schema), schema, command, methods) for row in rows]
    problems.extend(p for one in sets for p in one.problems)
    problems = list(dict.fromkeys(problems))
    if problems and not collect:
        raise BadInput(problems)
    return [dataclasses.replace(one, problems=tuple(problems)) for one in sets]


def _over(high: Mapping[str, str], low: Mapping[str, str], schema: type) -> dict[str, str]:
    """Both, those of `high` where both name a word; `data` and `data.name` are one."""
    sections = {f.name for f in dataclasses.fields(schema) if _section(f)}
    named = {f"{k}.name" if k in sections else k for k in high}
    kept = {k: v for k, v in low.items() if (f"{k}.name" if k in sections else k) not in named}
    return {**kept, **high}


def _typed(given: Mapping[str, str], schema: type, command: str | None, methods: Sequence[str]) -> Parsed:
    known = command_words(schema, command)
    sections = {f.name for f in dataclasses.fields(schema) if _section(f)}
    cfg = OmegaConf.structured(schema)
    problems: list[Problem] = []
    options: dict[str, str] = {}
    knobs: dict[str, dict[str, str]] = {}
    for key, raw in given.items():
        if "${" in raw:
            problems.append(Problem(key, f"{raw!r} holds an interpolation", "write the value itself"))
            continue
        name = f"{key}.name" if key in sections else key
        head, _, tail = name.partition(".")
        if name in known:
            try:
                _set(cfg, name, raw, known[name])
            except (OmegaConfBaseException, ValueError) as e:
                problems.append(Problem(key, f"{raw!r}: {str(e).splitlines()[0]}", _text(known[name])))
        elif head == "data" and tail and "data" in sections:
            options[tail] = raw
        elif head in methods and tail:
            knobs.setdefault(head, {})[tail] = raw
        else:
            fix = nearest(name, [*known, *sections, *(f"{m}.<knob>" for m in methods if m == head)])
            problems.append(Problem(f"word {key!r}", "is unknown", fix + " (--help lists all)"))
    return Parsed(OmegaConf.to_object(cfg), options, knobs, given, tuple(problems))


def split_list(text: str | None) -> list[str]:
    """The parts of a comma list, blanks dropped."""
    return [p.strip() for p in (text or "").split(",") if p.strip()]


def help_text(command: str, schema: type, about: str, subcommands: Mapping[str, str] | None = None) -> str:
    """What `--help` prints: every word with its default."""
    lines = [f"usage: python -m {command} [words]   each word is key=value", "", about, ""]
    for name, text in (subcommands or {}).items():
        lines.append(f"  {name:<22} {text}")
    if subcommands:
        lines.append("")
    for name, f in command_words(schema, command.rpartition(".")[2]).items():
        default = "" if f.default is None else f" [{_show(f.default)}]"
        lines.append(f"  {name + '=':<22} {_text(f)}{default}")
    return "\n".join(lines)


def main(run: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command: BadInput becomes exit code 2 with every problem on stderr, Ctrl-C 130, a closed pipe 141."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be UTF-8: a report on them comes through all the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # What is left in the buffer would raise again when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO_READER
    except BadInput as e:
        for problem in e.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except HarnessError as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED


def _section(f: dataclasses.Field[Any]) -> type | None:
    factory = f.default_factory
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def _text(f: dataclasses.Field[Any]) -> str:
    return str(f.metadata.get("text", ""))


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pairs(argv: Sequence[str], problems: list[Problem]) -> dict[str, str]:
    given: dict[str, str] = {}
    for text in argv:
        key, eq, raw = text.partition("=")
        if not eq or not key:
            problems.append(Problem(f"{text!r}", "is not key=value", "write for instance methods=all"))
        elif key in given:
            problems.append(Problem(key, f"is given twice: {given[key]!r} and {raw!r}", "give it once"))
        else:
            given[key] = raw
    return given


def _set(cfg: Any, name: str, raw: str, f: dataclasses.Field[Any]) -> None:
    """Set one word. Texts are taken literally; numbers and switches go through OmegaConf's own conversion."""
    if "str" in str(f.type):
        OmegaConf.update(cfg, name, raw or None)
        return
    if str(f.type).startswith("bool") and raw.lower() in ("on", "off"):
        raw = "true" if raw.lower() == "on" else "false"
    OmegaConf.update(cfg, name, raw)
    value = OmegaConf.select(cfg, name)
    if isinstance(value, float) and value != value:
        raise ValueError("is not a number")
