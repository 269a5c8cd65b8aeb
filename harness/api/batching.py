"""Views of single images to a group: stacked tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.method import Batch, Views


def collate(
    ids: Sequence[str],
    views: Sequence[Views],
    tags: Sequence[NDArray[np.float32]],
    tags_K: Sequence[NDArray[np.float32]] | None = None,
) -> Batch:
    """One group of images as stacked tensors; content is None where every pixel of the group is real.

    Pixels uint8 that are no finished view yet are padded right and below with 0, to the largest of the group.

    Raises ValueError where a transform labels or makes extra for some images of the group alone.
    """
    names = views[0].views.keys()
    stacked = {name: _stacked([view.views[name] for view in views]) for name in names}
    label = [view.label_HW for view in views if view.label_HW is not None]
    if label and len(label) != len(views):
        raise ValueError("a transform must label all images of a group, or none")
    content: Tensor | None = None
    if any(view.content_HW is not None for view in views):
        whole = torch.ones(next(iter(stacked.values())).shape[-2:], dtype=torch.bool)
        content = torch.stack([whole if view.content_HW is None else view.content_HW for view in views])
    return Batch(
        ids=tuple(ids),
        views=stacked,
        tags_BC=torch.from_numpy(np.stack(tags)),
        label_BHW=torch.stack(label) if label else None,
        content_BHW=content,
        extra=_stacked_extra(views),
        tags_BK=None if tags_K is None else torch.from_numpy(np.stack(tags_K)),
    )


def _stacked(views_3HW: Sequence[Tensor]) -> Tensor:
    if views_3HW[0].dtype != torch.uint8 or len({view.shape for view in views_3HW}) == 1:
        return torch.stack(list(views_3HW))
    height, width = (max(view.shape[axis] for view in views_3HW) for axis in (-2, -1))
    out = views_3HW[0].new_zeros(len(views_3HW), len(views_3HW[0]), height, width)
    for place, view in zip(out, views_3HW, strict=True):
        place[:, : view.shape[-2], : view.shape[-1]] = view
    return out


def _stacked_extra(views: Sequence[Views]) -> dict[str, Tensor]:
    names = views[0].extra.keys()
    for view in views:
        if view.extra.keys() != names or any(view.extra[n].shape != views[0].extra[n].shape for n in names):
            shapes = [{n: tuple(one.shape) for n, one in sorted(v.extra.items())} for v in (views[0], view)]
            raise ValueError(
                f"a transform must make equal extra of all images of a group, not {shapes[0]} and {shapes[1]}"
            )
    return {name: torch.stack([view.extra[name] for view in views]) for name in names}
