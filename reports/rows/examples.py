"""Which images are shown: chosen from stored counts, the same for all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from harness.scoring.metrics import iou
from reports.rows.ranking import Counts


@dataclass(frozen=True)
class Example:
    """An image, why it was chosen, and what every row scored on it: mean IoU of its classes, shares of 1.

    `mean` is over the evals that it was chosen by, `by_eval` holds further ones too."""

    image: str
    why: str
    mean: float
    by_eval: Mapping[str, float]


def choose(evals: Sequence[str], counts: Counts, further: Sequence[str] = ()) -> list[Example]:
    """The best, the median and the worst image by mean IoU over these evals, and the one where they differ most.

    The evals are of the same images, and `further` ones, which choose nothing. An image stands there once; of equals
    the first by name.
    """
    if not evals:
        return []
    table = per_image(evals, counts)
    spread = table.group_by("image").agg(
        mean=pl.col("iou").mean(), spread=pl.col("iou").max() - pl.col("iou").min()
    ).sort("mean", "image", descending=[True, False])  # fmt: skip
    order = spread["image"].to_list()
    picked = {order[0]: "best"}
    picked.setdefault(order[(len(order) - 1) // 2], "median")
    picked.setdefault(order[-1], "worst")
    if len(evals) > 1:
        wide = [i for i in spread.sort("spread", "image", descending=[True, False])["image"] if i not in picked]
        picked |= {wide[0]: "largest spread"} if wide else {}
    means = dict(spread.select("image", "mean").iter_rows())
    chosen = pl.col("image").is_in(list(picked))
    found = table.filter(chosen)
    if further:
        found = found.vstack(per_image(further, {e: counts[e].filter(chosen) for e in further}))
    scores: dict[str, dict[str, float]] = {}
    for name, image, value in found.select("eval", "image", "iou").iter_rows():
        scores.setdefault(image, {})[name] = value
    return [Example(image, why, means[image], scores[image]) for image, why in picked.items()]


def per_image(evals: Sequence[str], counts: Counts) -> pl.DataFrame:
    """Mean IoU in [0,1] of the classes that occur in each image: eval, image, iou."""
    stacked = pl.concat([counts[e] for e in evals])
    # The one definition of IoU, each image of an eval taken for an eval of its own.
    number = pl.struct("eval", "image").rank("dense").cast(pl.Utf8)
    parts = stacked.with_columns(part=number)
    names = parts.select("part", "eval", "image").unique()
    scored = iou(parts.select(pl.col("part").alias("eval"), "class", "tp", "fp", "fn"))
    means = scored.group_by("eval").agg(pl.col("iou").mean()).rename({"eval": "part"})
    return names.join(means, on="part").select("eval", "image", "iou")
