"""YAML files of words: every value is the text that stands there, as on a command line, and keeps its line.

YAML would take `off` for a switch, `2024-01-01` for a date, `12:30` for 750 and `1e-3` for a text.
"""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.datasets.io.opening import plain_bytes
from harness.errors import BadInput, Problem

LARGEST = 2**20
"""Bytes of a file: more is no list of words."""
MOST = 10_000
"""Values of a file with what its anchors repeat."""
DEEPEST = 8
"""Levels of mappings; words have two."""
TAG = "tag:yaml.org,2002:"
QUOTE = "write `key: value` lines, and quotes around a value that holds `: ` or ` #` or begins with one of *&!%@`{["


@dataclass(frozen=True)
class Written:
    """A value as it is written; None where nothing is."""

    text: str | None
    line: int


def composed(path: Path) -> yaml.Node | None:
    """The tree of a YAML file in UTF-8 or UTF-16; None where it is empty. Raises OSError; BadInput with the line."""
    text = _decoded(path, plain_bytes(path, LARGEST + 1))
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as e:
        found = f"{path} line {_line(text, e.position)}: the control character U+{ord(text[e.position]):04X}"
        raise BadInput(Problem("plan", found, "take it out, or save the file as UTF-8 text")) from e
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "its end"
        raise BadInput(Problem("plan", f"{path} {at}: {e.problem or e.context}", _fix(str(e.problem)))) from e
    except RecursionError as e:
        raise BadInput(Problem("plan", f"{path} nests too deeply", QUOTE)) from e


def flattened(path: Path, tree: yaml.Node, problems: list[Problem], most: int = MOST) -> dict[str, Written]:
    """The values below a mapping by dotted key, lists joined with commas. Raises BadInput for more than `most`."""
    found: dict[str, Written] = {}
    values = 0
    for key, node in _values(path, tree, "", 1, problems):
        line = node.start_mark.line + 1
        if key in found:
            said = f"{key} is given twice in {path}: lines {found[key].line} and {line}"
            problems.append(Problem("plan", said, "give it once"))
            continue
        values += max(1, len(items(node)))
        if values > most:
            raise too_many(path)
        found[key] = Written(_text(path, key, node, problems), line)
    return found


def too_many(path: Path) -> BadInput:
    """That a file holds more than `MOST` values."""
    said = f"{path} holds more than {MOST} values with what its anchors repeat"
    return BadInput(Problem("plan", said, "write the words themselves"))


def items(node: yaml.Node) -> list[yaml.Node]:
    """What a list holds; empty for what is no list."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def kind(node: yaml.Node | None) -> str:
    """What a part of a file is, in words."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == f"{TAG}null"):
        return "nothing"
    if isinstance(node, yaml.ScalarNode):
        return f"the text {node.value[:40]!r}"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _values(
    path: Path, tree: yaml.Node, prefix: str, depth: int, problems: list[Problem]
) -> Iterator[tuple[str, yaml.Node]]:
    """Dotted keys with the nodes of their values, in the order of the file; what `<<` takes over comes last."""
    if depth > DEEPEST:
        where = f"{path} line {tree.start_mark.line + 1}"
        raise BadInput(Problem("plan", f"{where}: {prefix}... nests more than {DEEPEST} levels", "words have two"))
    own: set[str] = set()
    taken_over: list[yaml.Node] = []
    for key, value in tree.value:
        if key.tag == f"{TAG}merge":
            taken_over += items(value) or [value]
            continue
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            said = f"{path} line {key.start_mark.line + 1}: {kind(key)} stands where a word is expected"
            problems.append(Problem("plan", said, QUOTE))
            continue
        own.add(key.value)
        yield from _below(path, f"{prefix}{key.value}", value, depth, problems)
    for node in taken_over:
        if not isinstance(node, yaml.MappingNode):
            said = f"{path} line {node.start_mark.line + 1}: `<<` takes over {kind(node)}"
            problems.append(Problem("plan", said, "name the anchor of a mapping"))
            continue
        for key, value in node.value:
            if key.tag == f"{TAG}merge":
                said = f"{path} line {key.start_mark.line + 1}: what `<<` takes over has a `<<` of its own"
                problems.append(Problem("plan", said, "write its words out"))
            elif isinstance(key, yaml.ScalarNode) and key.value not in own:
                own.add(key.value)
                yield from _below(path, f"{prefix}{key.value}", value, depth, problems)


def _below(
    path: Path, key: str, value: yaml.Node, depth: int, problems: list[Problem]
) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(value, yaml.MappingNode):
        yield from _values(path, value, f"{key}.", depth + 1, problems)
    else:
        yield key, value


def _text(path: Path, key: str, node: yaml.Node, problems: list[Problem]) -> str | None:
    """A value, or a list of values, as on a command line; None with a problem for what has none."""
    parts = items(node) if isinstance(node, yaml.SequenceNode) else [node]
    for part in (node, *parts):
        if not part.tag.startswith(TAG) or "/" in part.tag:
            said = f"{path} line {part.start_mark.line + 1}: {key} has the tag {part.tag}"
            problems.append(Problem("plan", said, "write the value without it"))
            return None
    for part in parts:
        where = f"{path} line {part.start_mark.line + 1}"
        if kind(part) == "nothing":
            of = f"an item of {key}" if part is not node else key
            problems.append(Problem("plan", f"{of} has no value in {where}", "give one, or leave the line out"))
        elif not isinstance(part, yaml.ScalarNode):
            problems.append(Problem("plan", f"{where}: an item of {key} is {kind(part)}", "items are single values"))
        else:
            continue
        return None
    return ",".join(_as_word(part) for part in parts)


def _as_word(node: yaml.Node) -> str:
    # `True` and `true` are one value, and enter keys as one.
    text = str(node.value)
    return text.lower() if node.tag == f"{TAG}bool" and text.lower() in ("true", "false") else text


def _decoded(path: Path, data: bytes) -> str:
    if len(data) > LARGEST:
        raise BadInput(Problem("plan", f"{path} has more than {LARGEST} bytes", "is it another file? " + QUOTE))
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    again = f"save it as UTF-8: iconv -f <its encoding> -t UTF-8 {shlex.quote(str(path))}"
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as e:
        line = _line(data[: e.start].decode("latin-1"), e.start)
        found = f"{path} line {line}: byte 0x{data[e.start]:02x} is no {'UTF-16' if wide else 'UTF-8'}"
        raise BadInput(Problem("plan", found, again)) from e
    if "\0" in text:
        raise BadInput(Problem("plan", f"{path} holds NUL: it is no text, or in UTF-16 without its mark", again))
    return text


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _fix(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces"
    if "another document" in problem or "single document" in problem:
        return "one document a file: sets of words stand under rows:"
    return QUOTE
