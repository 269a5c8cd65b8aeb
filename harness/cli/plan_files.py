"""`plan=`: a YAML file of words, and of `rows`, sets of words that one sweep runs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from harness.cli.packaged import plans
from harness.cli.yaml_words import MOST, Written, composed, flattened, items, kind, too_many
from harness.datasets.io.opening import NotPlain
from harness.errors import BadInput, Problem

ROWS = "rows"
WHOLE_SWEEP = ("store", "mlflow", "address", "ray", "retry", "dry_run", "gpus", "cluster", "plan")
"""Words that hold for a sweep as a whole: no row may set them."""


@dataclass(frozen=True)
class PlanFile:
    """The words of a plan file as texts, and those of each of its rows (one empty row where it has none)."""

    words: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, str]] = ({},)
    places: Sequence[Mapping[str, str]] = ({},)
    """Of each row, where its words stand: `p.yaml line 3`."""

    def placed(self, problem: Problem, row: int, given: Mapping[str, str]) -> Problem:
        """A problem of a row's word with its place, unless the line, which wins, has `given` it."""
        for key, place in self.places[row].items():
            if key not in given and problem.where in (key, f"word {key!r}"):
                return replace(problem, where=f"{problem.where} ({place})")
        return problem


def read_plan_file(path: str, problems: list[Problem]) -> PlanFile:
    """A plan file by path or, where there is no such file, by the name of a plan of the harness: `tags` or
    `docs/plans/tags.yaml`. What is wrong with it goes to `problems`.
    """
    own = plans()
    found = Path(path) if Path(path).exists() else own.get(Path(path).stem, Path(path))
    try:
        tree = composed(found)
        return _plan(found, tree, problems)
    except FileNotFoundError:
        fix = f"give a YAML file of words, or a plan of the harness by name: {', '.join(own)}"
        problems.append(Problem("plan", f"{path} does not exist", fix))
    except NotPlain as e:
        problems.append(Problem("plan", f"{path} is {e.strerror}", "give a YAML file of words"))
    except OSError as e:
        problems.append(Problem("plan", f"{path} cannot be read ({e.strerror})", "allow reading it (chmod a+r)"))
    except BadInput as e:
        problems.extend(e.problems)
    return PlanFile()


def _plan(path: Path, tree: yaml.Node | None, problems: list[Problem]) -> PlanFile:
    if not isinstance(tree, yaml.MappingNode):
        fix = "put the list below a line `rows:`" if isinstance(tree, yaml.SequenceNode) else "write key: value lines"
        problems.append(Problem("plan", f"{path} holds no words but {kind(tree)}", fix))
        return PlanFile()
    rows = [(key, value) for key, value in tree.value if key.value == ROWS]
    for key, _ in rows[1:]:
        said = f"{ROWS} is given twice in {path}: lines {rows[0][0].start_mark.line + 1} and {key.start_mark.line + 1}"
        problems.append(Problem("plan", said, "give it once"))
    tree.value = [pair for pair in tree.value if pair not in rows]
    shared = flattened(path, tree, problems)
    sets = _rows(path, rows[0][1], problems) if rows else [{}]
    places = [{k: f"{path} line {w.line}" for k, w in {**shared, **one}.items()} for one in sets]
    return PlanFile(_texts(shared), [_texts(one) for one in sets], places)


def _rows(path: Path, node: yaml.Node, problems: list[Problem]) -> list[dict[str, Written]]:
    rows = items(node)
    odd = [row for row in rows if not isinstance(row, yaml.MappingNode)] if rows else [node]
    if odd:
        said = f"rows of {path} is no list of sets of words: line {odd[0].start_mark.line + 1} is {kind(odd[0])}"
        problems.append(Problem("plan", said, "write - {methods: cam}"))
        return [{}]
    sets: list[dict[str, Written]] = []
    left = MOST - len(rows)
    if left < 0:
        raise too_many(path)
    for i, row in enumerate(rows):
        one = flattened(path, row, problems, left)
        left -= len(one)
        for name in (n for n in WHOLE_SWEEP if n in one):
            said = f"row {i + 1} of {path} (line {one[name].line}) sets {name}, which holds for the sweep"
            problems.append(Problem("plan", said, "put it beside rows, or on the line"))
        sets.append(one)
    return sets


def _texts(written: Mapping[str, Written]) -> dict[str, str]:
    return {key: value.text for key, value in written.items() if value.text is not None}
