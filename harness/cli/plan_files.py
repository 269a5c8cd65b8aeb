"""`plan=`: a YAML file of words, and of `rows`, sets of words that one sweep runs together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.cli.packaged import plans
from harness.errors import Problem

ROWS = "rows"
WHOLE_SWEEP = ("store", "mlflow", "address", "ray", "retry", "dry_run", "gpus", "cluster", "plan")
"""Words that hold for a sweep as a whole: no row may set them."""


def read_plan_file(path: str, problems: list[Problem]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The words of a plan file as texts, and those of each of its rows (one empty row where it has none).

    A name that is no file is that of a plan of the harness: `tags` or `docs/plans/tags.yaml`.
    """
    own = plans()
    found = Path(path) if Path(path).is_file() else own.get(Path(path).stem, Path(path))
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(found))
    except FileNotFoundError:
        fix = f"give a YAML file of words, or a plan of the harness by name: {', '.join(own)}"
        problems.append(Problem("plan", f"{path} does not exist", fix))
        return {}, [{}]
    except Exception as e:
        problems.append(Problem("plan", f"{path} cannot be read: {str(e).splitlines()[0]}", "write key: value lines"))
        return {}, [{}]
    if not isinstance(loaded, dict):
        problems.append(Problem("plan", f"{path} holds no words", "write key: value lines"))
        return {}, [{}]
    rows = _rows(path, loaded.pop(ROWS, [{}]), problems)
    shared: dict[str, str] = {}
    _flatten(path, loaded, "", shared, problems)
    return shared, rows


def _rows(path: str, loaded: Any, problems: list[Problem]) -> list[dict[str, str]]:
    if not isinstance(loaded, list) or not loaded or not all(isinstance(row, dict) for row in loaded):
        problems.append(Problem("plan", f"rows of {path} is no list of sets of words", "write - {methods: cam}"))
        return [{}]
    rows = []
    for i, row in enumerate(loaded):
        flat: dict[str, str] = {}
        _flatten(path, row, "", flat, problems)
        for name in (n for n in WHOLE_SWEEP if n in flat):
            fix = "put it beside rows, or on the line"
            problems.append(Problem("plan", f"row {i + 1} of {path} sets {name}, which holds for the sweep", fix))
        rows.append(flat)
    return rows


def _flatten(path: str, tree: Mapping[Any, Any], prefix: str, out: dict[str, str], problems: list[Problem]) -> None:
    for k, v in tree.items():
        key = f"{prefix}{k}"
        if isinstance(v, dict):
            _flatten(path, v, key + ".", out, problems)
        elif v is None:
            problems.append(Problem("plan", f"{key} has no value in {path}", "give one, or leave the line out"))
        elif key in out:
            problems.append(Problem("plan", f"{key} is given twice in {path}", "give it once"))
        elif isinstance(v, list):
            out[key] = ",".join(str(i) for i in v)
        else:
            out[key] = str(v).lower() if isinstance(v, bool) else str(v)
