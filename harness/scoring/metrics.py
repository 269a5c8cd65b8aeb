"""The one definition of IoU and mIoU, as queries over counts (design section 4, Scores).

IoU = tp/(tp+fp+fn) over the whole split; classes absent from prediction and truth are left out and counted.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from harness.store.reading import Results

_Operand = TypeVar("_Operand", pl.Expr, NDArray[np.float64])
_SUMS = [pl.col("tp").sum(), pl.col("fp").sum(), pl.col("fn").sum()]
_TOTAL = pl.col("tp") + pl.col("fp") + pl.col("fn")


def _ratio(tp: _Operand, fp: _Operand, fn: _Operand) -> _Operand:
    """IoU; 0/0, a class that is absent from prediction and truth, is NaN."""
    return tp / (tp + fp + fn)


def iou_array(counts_K3: NDArray[np.generic]) -> NDArray[np.float64]:
    """IoU (...,K) of summed counts (...,K,3) in [0,1]; NaN for absent classes."""
    tp, fp, fn = np.moveaxis(np.asarray(counts_K3, np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        return _ratio(tp, fp, fn)


def miou_array(counts_K3: NDArray[np.generic]) -> NDArray[np.float64]:
    """mIoU (...) of summed counts (...,K,3) in [0,1]; NaN when every class is absent."""
    iou = iou_array(counts_K3)
    present = ~np.isnan(iou)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, iou, 0.0).sum(-1) / present.sum(-1))


def dice_array(counts_K3: NDArray[np.generic]) -> NDArray[np.float64]:
    """Dice 2tp/(2tp+fp+fn) (...,K) of summed counts (...,K,3) in [0,1]; NaN for absent classes."""
    iou_K = iou_array(counts_K3)
    return np.asarray(2 * iou_K / (1 + iou_K))


def mdice_array(counts_K3: NDArray[np.generic]) -> NDArray[np.float64]:
    """Mean Dice (...) over the classes after label 0, as cardiac papers report it; NaN when every one is absent."""
    dice = dice_array(np.asarray(counts_K3)[..., 1:, :])
    present = ~np.isnan(dice)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, dice, 0.0).sum(-1) / present.sum(-1))


def image_f1(logits_BC: ArrayLike, tags_BC: ArrayLike) -> float:
    """Image-level F1 in [0,1] (operators.md A11, "cls score"): mean over images of 2tp/(2tp+fp+fn) of logits above 0
    against tags in {0,1}; an image without tags and without predictions counts 0, as scikit-learn has it."""
    predicted, true = np.asarray(logits_BC) > 0, np.asarray(tags_BC) > 0
    wrong = (predicted != true).sum(1)
    right = 2 * (predicted & true).sum(1)
    return float((right / np.maximum(right + wrong, 1)).mean())


def class_counts(counts: pl.DataFrame) -> pl.DataFrame:
    """Sums over images: eval, class, tp, fp, fn of the classes that occur in prediction or truth, sorted."""
    sums = counts.lazy().group_by("eval", "class").agg(_SUMS).filter(_TOTAL > 0)
    return sums.sort("eval", "class").collect()


def iou(counts: pl.DataFrame) -> pl.DataFrame:
    """Per-class table of any number of evals: eval, class, tp, fp, fn, iou in [0,1]; absent classes are out."""
    ratio = _ratio(pl.col("tp").cast(pl.Float64), pl.col("fp").cast(pl.Float64), pl.col("fn").cast(pl.Float64))
    return class_counts(counts).with_columns(iou=ratio)


def dice(counts: pl.DataFrame) -> pl.DataFrame:
    """Per-class table of any number of evals: eval, class, tp, fp, fn, dice in [0,1]; absent classes are out."""
    return iou(counts).with_columns(dice=2 * pl.col("iou") / (1 + pl.col("iou"))).drop("iou")


def mious(counts: pl.DataFrame, num_labels: int | None = None) -> pl.DataFrame:
    """Any number of evals: eval, miou in [0,1], classes, excluded, sorted; null mIoU where no class occurs.

    `excluded` counts the absent ones of `num_labels` labels, or of those up to the highest that occurs.
    """
    highest = pl.col("class").max() + 1 if num_labels is None else pl.lit(num_labels)
    scored = iou(counts).group_by("eval").agg(
        miou=pl.col("iou").mean(), classes=pl.len().cast(pl.Int64), highest=highest.cast(pl.Int64)
    )  # fmt: skip
    every = counts.select("eval").unique().join(scored, on="eval", how="left").sort("eval")
    empty_case = pl.lit(num_labels or 0, pl.Int64)
    return every.select(
        "eval", "miou", pl.col("classes").fill_null(0),
        excluded=(pl.col("highest") - pl.col("classes")).fill_null(empty_case),
    )  # fmt: skip


def miou(counts: pl.DataFrame, num_labels: int | None = None) -> tuple[float, int]:
    """mIoU in [0,1] of one eval and how many classes it leaves out; (NaN, ...) when no class occurs.

    Raises ValueError when `counts` does not hold exactly one eval.
    """
    table = mious(counts, num_labels)
    if table.height != 1:
        raise ValueError(f"counts hold {table.height} evals, not one")
    value = table["miou"][0]
    return (float("nan") if value is None else float(value)), int(table["excluded"][0])


def miou_of(results: Results, eval_id: str) -> float:
    """mIoU in [0,1] of the eval `eval_id`; KeyError when the store has no counts of it."""
    counts = results.counts.filter(pl.col("eval") == eval_id)
    if counts.is_empty():
        raise KeyError(f"no counts of eval {eval_id}")
    return miou(counts)[0]


def all_background(counts: pl.DataFrame, *, has_background: bool = True) -> pl.DataFrame:
    """Counts, of the same evals and images, of a prediction that is background everywhere.

    Without a background class: the class with most true pixels in the split, the lowest of equals.
    """
    true_pixels = pl.col("tp") + pl.col("fn")
    truth = counts.select("eval", "image", "class", truth=true_pixels)
    if has_background:
        chosen = truth.select("eval").unique().with_columns(guess=pl.lit(0, pl.Int16))
    else:
        by_class = truth.group_by("eval", "class").agg(pl.col("truth").sum())
        order = by_class.sort(["eval", "truth", "class"], descending=[False, True, False])
        chosen = order.group_by("eval", maintain_order=True).agg(guess=pl.col("class").first())
    images = truth.group_by("eval", "image").agg(pixels=pl.col("truth").sum()).join(chosen, on="eval")
    wrong = truth.join(chosen, on="eval").filter((pl.col("class") != pl.col("guess")) & (pl.col("truth") > 0))
    guessed = images.join(
        truth, left_on=["eval", "image", "guess"], right_on=["eval", "image", "class"], how="left"
    ).with_columns(pl.col("truth").fill_null(0))
    zero = pl.lit(0, pl.Int64)
    rows = [
        guessed.select("eval", "image", pl.col("guess").alias("class"), tp="truth",
                       fp=pl.col("pixels") - pl.col("truth"), fn=zero),
        wrong.select("eval", "image", "class", tp=zero, fp=zero, fn="truth"),
    ]  # fmt: skip
    occurring = pl.concat(rows).filter(_TOTAL > 0)
    blank = images.filter(pl.col("pixels") == 0).select(
        "eval", "image", pl.lit(0, pl.Int16).alias("class"), tp=zero, fp=zero, fn=zero
    )
    return pl.concat([occurring, blank]).sort("eval", "image", "class")
