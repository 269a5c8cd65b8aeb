"""Counts and curves as rows of the store's tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.scoring.curves import Curve
from harness.store.schema import SCHEMAS, empty


def counts_frame(eval_id: str, images: Sequence[str], counts_IK3: NDArray[np.int64]) -> pl.DataFrame:
    """Table `counts` of one eval: a row per image and occurring class; class 0 with zeros where none does."""
    return _rows(eval_id, "image", list(images), np.asarray(counts_IK3), keep_empty=True)


def curves_frame(eval_id: str, curve: Curve) -> pl.DataFrame:
    """Table `curves` of one eval: a row per threshold and class that occurs at it."""
    by_threshold_TK3 = np.swapaxes(curve.counts_KT3, 0, 1)
    return _rows(eval_id, "threshold", curve.thresholds_T.tolist(), by_threshold_TK3, keep_empty=False)


def _rows(
    eval_id: str, name: str, values: Sequence[str | float], counts_NK3: NDArray[np.int64], *, keep_empty: bool
) -> pl.DataFrame:
    table = "counts" if name == "image" else "curves"
    if len(values) != len(counts_NK3):
        raise ValueError(f"{len(values)} {name}s but counts of {len(counts_NK3)}")
    if not len(values):
        return empty(table)
    occurs_NK = counts_NK3.sum(-1) > 0
    if keep_empty:
        occurs_NK[~occurs_NK.any(1), 0] = True
    rows, classes = np.nonzero(occurs_NK)
    kept = counts_NK3[rows, classes]
    columns = {
        "eval": pl.Series([eval_id]).new_from_index(0, len(rows)),
        name: pl.Series(values).gather(rows),
        "class": classes,
        "tp": kept[:, 0],
        "fp": kept[:, 1],
        "fn": kept[:, 2],
    }
    schema = SCHEMAS[table]
    return pl.DataFrame({c: columns[c] for c in schema}).select(pl.col(c).cast(dtype) for c, dtype in schema.items())
