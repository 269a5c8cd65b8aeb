"""What image-level labels cannot teach: a class that every image shows, classes that are always together."""

from __future__ import annotations

import numpy as np

from harness.api.dataset import Dataset
from harness.datasets.io.images import some_of
from harness.errors import Problem

TOGETHER_FROM = 3
"""Images; classes that fewer show may be together by chance."""
_FIX = "add training images without it, or learn from points, scribbles, ... (labels=)"
_ALONE = "add training images that show one of them alone, join them to one class, or learn from points, scribbles, ..."


def tag_warnings(dataset: Dataset, ids: tuple[str, ...]) -> list[Problem]:
    """Warnings for `labels=tags` on these training images.

    A class that all of them show has no negatives: a classifier that always says yes is right. Classes that the very
    same images show cannot be told apart.
    """
    if not ids:
        return []
    tags_NC = np.stack([dataset.tags(image_id) for image_id in ids]) > 0
    names = dataset.class_names[int(dataset.has_background) :]
    shown_C = tags_NC.sum(0)
    everywhere = np.flatnonzero(shown_C == len(ids)).tolist()
    problems = []
    if everywhere:
        one = len(everywhere) == 1
        told = f"{'class' if one else 'classes'} {some_of((names[c] for c in everywhere), 8)} "
        found = f"{told}{'is' if one else 'are'} in all {len(ids)} training images: tags teach nothing of "
        found += f"{'it' if one else 'them'} (no negatives)"
        problems.append(Problem("labels=tags", found, _FIX))
    alike: dict[bytes, list[str]] = {}
    for c in np.flatnonzero((shown_C >= TOGETHER_FROM) & (shown_C < len(ids))).tolist():
        alike.setdefault(tags_NC[:, c].tobytes(), []).append(names[c])
    twins = [group for group in alike.values() if len(group) > 1]
    if twins:
        told = some_of((" and ".join(group[:4]) for group in twins), 4)
        problems.append(
            Problem("labels=tags", f"the same training images show {told}: tags cannot tell them apart", _ALONE)
        )
    return problems
