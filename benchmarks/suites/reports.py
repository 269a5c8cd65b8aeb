"""Looking up the counts of evals in a large store: slices found in one pass, next to a filter for each eval."""

from __future__ import annotations

import functools

import numpy as np
import polars as pl

from benchmarks import Case
from harness.store.by_eval import ByEval
from harness.store.schema import SCHEMAS

CLASSES = 3
LOOKED_UP = 40
"""Evals that a report of ten tuned rows with two targets asks for, held-out and oracle."""


def cases(quick: bool) -> list[Case]:
    """A store of one run a file, as it is before `compact`."""
    runs, rows = (100, 450) if quick else (2000, 4500)

    @functools.cache
    def chunks() -> pl.DataFrame:
        rng = np.random.default_rng(0)
        images = [f"image_{n:05}" for n in range(rows // CLASSES)]
        one = {"image": np.repeat(images, CLASSES), "class": np.tile(np.arange(CLASSES), len(images))}
        frames = []
        for run in range(runs):
            pixels = {name: rng.integers(0, 1000, len(one["class"])) for name in ("tp", "fp", "fn")}
            frames.append(pl.DataFrame({"eval": [f"eval_{run:05}"] * len(one["class"]), **one, **pixels}))
        return pl.concat(
            [f.select(pl.col(c).cast(t) for c, t in SCHEMAS["counts"].items()) for f in frames], rechunk=False
        )

    def wanted() -> list[str]:
        return [f"eval_{n:05}" for n in np.linspace(0, runs - 1, LOOKED_UP).astype(int)]

    def reference() -> dict[str, pl.DataFrame]:
        return {name: chunks().filter(pl.col("eval") == name) for name in wanted()}

    def ours() -> dict[str, pl.DataFrame]:
        by_eval = ByEval(chunks())
        return {name: by_eval[name] for name in wanted()}

    def equal() -> str:
        theirs, mine = reference(), ours()
        assert theirs.keys() == mine.keys()
        assert all(theirs[name].equals(mine[name]) for name in theirs)
        return "every row equal, in order"

    unit = f"{runs} files of {rows} rows, {LOOKED_UP} evals"
    return [Case("counts of evals", reference, ours, equal, None if quick else 10.0, prepare=chunks, unit=unit)]
