"""The networks that a finished run left: their files in the store, and the networks with these weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from harness.api.dataset import Dataset
from harness.api.method import Method
from harness.api.recipe import Recipe, Train, weights_kind
from harness.engine.checkpoint import BEST, best_meta, load_weights
from harness.errors import BadInput, Problem
from harness.files import file_digest
from harness.plan.build import build_network
from harness.plan.config import RunConfig
from harness.plan.pretrained import RANDOM
from harness.plan.recipes import recipe_of
from harness.store import Results, Store


def weights_of(
    results: Results, key: str, store: Store, recipe: Recipe, network: str, problems: list[Problem]
) -> dict[str, Path]:
    """The files of a run's network and of those that it was built beside; what is missing becomes a problem."""
    stage = recipe.maker(network)
    assert isinstance(stage, Train)
    out: dict[str, Path] = {}
    for earlier in stage.networks:
        out |= weights_of(results, key, store, recipe, earlier, problems)
    kind = weights_kind(network)
    rows = results.artifacts.filter((pl.col("key") == key) & (pl.col("kind") == kind))
    path = store.root / rows["path"][0] if rows.height else None
    if path is not None and path.is_file() and file_digest(path) == rows["digest"][0]:
        return {**out, network: path}
    if path is None:
        found = "left no weights (keep=none)"
    elif path.is_file():
        found = f"its weights are damaged: {path}"
    else:
        found = f"its weights are gone from {path} (gc, or moved)"
    problems.append(Problem("run", f"{key} {found}", "train it again with keep=last: harness.train retrains the rest"))
    return out


def best_of(weights: Path, problems: list[Problem]) -> tuple[Path | None, dict[str, str]]:
    """The student's weights of the run's best rung, which lie beside its final ones, and what their file says of them:
    `objective`, `step`. Where there are none, that becomes a problem."""
    path = weights.with_name(BEST)
    meta = best_meta(path)
    if meta is None:
        rule = "a run has it where it was compared on the way (search=tpe, 4 trials or more)"
        found = f"{path} is damaged" if path.is_file() else f"best is not there: {rule}"
        problems.append(Problem("weights", found, "weights=student is the final ones"))
        return None, {}
    return path, meta


def load_network(run: RunConfig, name: str, files: Mapping[str, Path], dataset: Dataset) -> Method:
    """A network of a run with the weights of `files`, built beside those that it needs, in eval mode.

    Raises BadInput where the weights do not fit the code of today.
    """
    stage = recipe_of(run).maker(name)
    assert isinstance(stage, Train)
    earlier = {n: load_network(run, n, files, dataset) for n in stage.networks}
    method = build_network(run, stage, dataset, RANDOM, earlier)
    try:
        load_weights(files[name], method)
    except RuntimeError as e:
        found = f"{files[name].name} does not fit {run.method} as it is now: {str(e).splitlines()[0]}"
        raise BadInput(Problem("run", found, "check out the commit that the table runs names")) from e
    return method.eval()


def held_out(results: Results, key: str, target: str, weights: str) -> float | None:
    """The threshold that a run chose for a target on its tuning split; None where it chose none."""
    rows = results.evals.filter(
        pl.col("key") == key,
        pl.col("target") == target,
        pl.col("weights") == weights,
        pl.col("threshold_rule") == "held-out",
    )
    return None if rows.is_empty() else float(rows["threshold"][0])
