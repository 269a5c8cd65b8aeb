"""The command line: `key=value` words over a typed dataclass, checked all at once, explained by `--help`.

Checking words imports neither torch nor Ray.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.plan_files import PlanFile, read_plan_file
from harness.cli.streams import drop_output, outer_fault, prepare_output
from harness.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_READER,
    BadInput,
    HarnessError,
    HarnessWarning,
    Problem,
    nearest,
    shown,
)

SWITCH = {True: ("true", "on", "yes", "1"), False: ("false", "off", "no", "0")}
"""What a switch may be set to, in lower or upper case."""


def word(
    default: Any,
    text: str,
    *commands: str,
    choices: Sequence[str] = (),
    several: bool = False,
    least: int | None = None,
    example: str = "",
    option: bool = False,
) -> Any:
    """A command-line word: its default, its explanation, and the commands that take it (none: all of them).

    `choices`: the only values that it may have, `several` of them where it is a list. `least`: its lowest value.
    `example`: how it may be written. `option`: it is one of the dataset's options (`Parsed.options`).
    """
    rules = {"choices": tuple(choices), "several": several, "least": least, "example": example, "option": option}
    meta = {"text": text, "commands": commands, **rules}
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
    given = _pairs(argv, schema, command, problems)
    file = PlanFile()
    if "plan" in given and "plan" in command_words(schema, command):
        file = read_plan_file(given["plan"], problems)
    sets = [_typed(_over(given, _over(row, file.words, schema), schema), schema, command, methods) for row in file.rows]
    problems.extend(file.placed(p, i, given) for i, one in enumerate(sets) for p in one.problems)
    problems = list(dict.fromkeys(problems))
    if problems and not collect:
        raise BadInput(problems)
    return [dataclasses.replace(one, problems=tuple(problems)) for one in sets]


def _over(high: Mapping[str, str], low: Mapping[str, str], schema: type) -> dict[str, str]:
    """Both, those of `high` where both name a word."""
    named = {_full(k, schema) for k in high}
    return {**{k: v for k, v in low.items() if _full(k, schema) not in named}, **high}


def _typed(given: Mapping[str, str], schema: type, command: str | None, methods: Sequence[str]) -> Parsed:
    known = command_words(schema, command)
    sections = {name.partition(".")[0] for name in known if "." in name}
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
        if name in known and key != name and name in given:
            problems.append(
                Problem(key, f"is given twice: {raw!r} and {given[name]!r}", f"{key} is {name}: give it once")
            )
        elif name in known and not known[name].metadata.get("option"):
            problem = _set(cfg, key, name, raw, known[name])
            problems += [problem] if problem else []
        elif head == "data" and tail and "data" in sections:
            options[tail] = raw
        elif head in methods and tail:
            knobs.setdefault(head, {})[tail] = raw
        else:
            fix = nearest(name, [*known, *sections, *(f"{m}.<knob>" for m in methods if m == head)])
            problems.append(Problem(f"word {key!r}", "is unknown", fix + " (--help lists all)"))
    return Parsed(OmegaConf.to_object(cfg), options, knobs, given, tuple(problems))


def leading(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The first words, those that are no `key=value` (subcommands, names of rows), and the rest."""
    first = list(itertools.takewhile(lambda text: "=" not in text, argv))
    return first, list(argv[len(first) :])


def subcommand(argv: Sequence[str], module: str, known: Iterable[str]) -> tuple[str, list[str]]:
    """The subcommand of a command that has them, and its words. Raises BadInput for none and for an unknown one."""
    name = argv[0] if argv else ""
    if name in known:
        return name, list(argv[1:])
    found = f"unknown subcommand {name!r}" if argv else "no subcommand given"
    raise BadInput(Problem(f"python -m {module}", found, nearest(name, known)))


def switch(text: str) -> bool:
    """A switch from its text, the same for words, knobs and options. Raises ValueError for all but eight texts."""
    for value, texts in SWITCH.items():
        if text.lower() in texts:
            return value
    raise ValueError("is neither on nor off")


def split_list(text: str | None) -> list[str]:
    """The parts of a comma list, blanks dropped."""
    return [p.strip() for p in (text or "").split(",") if p.strip()]


def main(run: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command: BadInput becomes exit code 2 with every problem on stderr, Ctrl-C 130, a closed pipe 141."""
    warnings.formatwarning = _one_line
    prepare_output()
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        drop_output()
        return EXIT_NO_READER
    except BadInput as e:
        for problem in e.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except HarnessError as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as e:
        if (fault := outer_fault(e)) is None:
            raise
        print(f"error: {shown(fault)}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED


_format = warnings.formatwarning


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a command prints it: those of the harness in their words alone, others as Python does."""
    if issubclass(category, HarnessWarning):
        return f"warning: {shown(str(message))}\n"
    return _format(message, category, filename, lineno, line)


def _section(f: dataclasses.Field[Any]) -> type | None:
    factory = f.default_factory
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def explanation(f: dataclasses.Field[Any]) -> str:
    """What a word means."""
    return str(f.metadata.get("text", ""))


def _full(key: str, schema: type) -> str:
    """A word's whole name: `data` and `data.name` are one."""
    return f"{key}.name" if any(f.name == key and _section(f) for f in dataclasses.fields(schema)) else key


def _pairs(argv: Sequence[str], schema: type, command: str | None, problems: list[Problem]) -> dict[str, str]:
    given: dict[str, str] = {}
    before: dict[str, str] = {}
    for text in argv:
        key, eq, raw = text.partition("=")
        name = _full(key, schema)
        if key and not raw and name in (known := command_words(schema, command)):
            example = known[name].metadata.get("example") or f"{key}=<value>"
            problems.append(Problem(key, "no value given", f"write {example}"))
        elif not eq or not key:
            problems.append(Problem(f"{text!r}", "is not key=value", "write for instance store=results"))
        elif name in before:
            problems.append(Problem(key, f"is given twice: {before[name]!r} and {raw!r}", "give it once"))
        else:
            given[key] = before[name] = raw
    return given


def _set(cfg: Any, key: str, name: str, raw: str, f: dataclasses.Field[Any]) -> Problem | None:
    """Set one word, or say what is wrong with its value. Texts are taken literally, numbers as OmegaConf reads them."""
    choices, least = f.metadata.get("choices", ()), f.metadata.get("least")
    unknown = [v for v in (split_list(raw) if f.metadata.get("several") else [raw]) if choices and v not in choices]
    if unknown:
        return Problem(key, f"{unknown[0]!r} is unknown", nearest(unknown[0], choices))
    before = OmegaConf.select(cfg, name)
    try:
        OmegaConf.update(cfg, name, _value(raw, str(f.type)))
    except (OmegaConfBaseException, ValueError) as e:
        return Problem(key, f"{raw!r}: {str(e).splitlines()[0]}", f.metadata.get("example") or explanation(f))
    value = OmegaConf.select(cfg, name)
    if isinstance(value, float) and value != value:
        problem = Problem(key, f"{raw!r}: is not a number", explanation(f))
    elif least is not None and value is not None and value < least:
        kind = "" if isinstance(value, float) else "whole "
        problem = Problem(key, f"{raw} is below {least}", f"give a {kind}number of at least {least}")
    else:
        return None
    OmegaConf.update(cfg, name, before)
    return problem


def _value(raw: str, kind: str) -> Any:
    if "str" in kind:
        return raw
    return switch(raw) if kind.startswith("bool") else raw
