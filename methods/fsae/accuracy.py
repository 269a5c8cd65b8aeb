"""How much of an image FSAE's teacher labels after training, and how much of that is right, where masks exist
(fsae.md 4).

Axes: H W pixels of the training size, h w the grid of class maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE
from methods.fsae.method import Fsae
from methods.parts.views.augment import resize, to_tensor_normalised

MASKS = ("mask", "mask_fg", "ring_kept", "mask_exp")
"""Confident pixels, those of foreground, the kept ring, and all that is learned from."""


class Chosen(NamedTuple):
    """Of one kind of chosen pixels."""

    share: float
    """Of all pixels whose truth is known."""
    accuracy: float
    """Share of the chosen ones whose label is the truth's; NaN where none is chosen."""


@torch.no_grad()
def chosen_accuracy(method: Fsae, dataset: Dataset, ids: Iterable[str]) -> dict[str, Chosen]:
    """Share and accuracy of the labels that the trained teacher chooses on these images, resized to the training size,
    against their masks, nearest at the grid; by the names of `MASKS`.

    Raises BadInput for an image without a mask.
    """
    crop, device = method.info.crop, next(method.parameters()).device
    known, counts = 0, {name: [0, 0] for name in MASKS}
    for image_id in ids:
        image = resize(dataset.image(image_id), (crop, crop))
        view_13HW = to_tensor_normalised(image, *method.normalisation())[None].to(device)
        tags_1C = torch.from_numpy(dataset.tags(image_id))[None].to(device)
        labels = method.teacher_labels(view_13HW, tags_1C)
        grid = labels.label.shape[-2:]
        truth_hw = torch.from_numpy(resize(dataset.mask(image_id), (grid[0], grid[1]), "nearest").astype(np.int64))
        told_hw = truth_hw != IGNORE
        right_hw = (labels.label[0].cpu() == truth_hw) & told_hw
        known += int(told_hw.sum())
        for name, count in counts.items():
            chosen_hw = getattr(labels, name)[0].cpu() & told_hw
            count[0] += int(chosen_hw.sum())
            count[1] += int((chosen_hw & right_hw).sum())
    return {name: Chosen(n / max(1, known), right / n if n else float("nan")) for name, (n, right) in counts.items()}
