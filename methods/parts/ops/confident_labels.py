"""Labels of an image where two background scores agree, 255 where they do not: what an affinity network learns from
(irn.md 2.3, sipe.md 2.5). Axes: n labels that occur, H W pixels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.vocabulary import IGNORE

VERSION = 1


class LabelCrf(Protocol):
    """A dense CRF that starts from hard labels: the harness's presets with a certainty of labels are some."""

    def relabel(self, image_HW3: NDArray[np.uint8], index_HW: NDArray[np.integer], labels: int) -> NDArray[np.integer]:
        """Label indices (H,W) below `labels` after the CRF over an RGB image."""


@torch.no_grad()
def confident_labels(
    cam_nHW: Tensor,
    labels_n: Tensor,
    *,
    fg: float = 0.3,
    bg: float = 0.05,
    image: NDArray[np.uint8] | None = None,
    crf: LabelCrf | None = None,
) -> Tensor:
    """Label values int64 (H,W) of CAMs (n,H,W) in [0,1], without background, of the labels `labels_n` (irn.md 2.3).

    A class where it beats background score `fg`, 0 where none beats `bg`, 255 between; a tie goes to background.
    With `crf` both label maps pass it over `image` (H,W,3) uint8 first; background and all of `labels_n` take part,
    also where they occur nowhere. Raises ValueError for bg above fg, and for a CRF without image.
    """
    if bg > fg:
        raise ValueError(f"bg {bg} lies above fg {fg}")
    if not len(cam_nHW):
        return torch.zeros(cam_nHW.shape[1:], dtype=torch.int64, device=cam_nHW.device)
    score_HW, best_HW = cam_nHW.max(dim=0)
    index_2HW = torch.stack([(best_HW + 1).masked_fill(score_HW <= limit, 0) for limit in (fg, bg)])
    values = torch.cat([labels_n.new_zeros(1), labels_n]).to(cam_nHW.device, torch.int64)
    return _agreed(index_2HW, values, image, crf)


@torch.no_grad()
def self_background_labels(
    maps_nHW: Tensor,
    labels_n: Tensor,
    *,
    background_factor: float = 0.5,
    image: NDArray[np.uint8] | None = None,
    crf: LabelCrf | None = None,
) -> Tensor:
    """As `confident_labels`, of maps that have their own background as map 0, label 0 (sipe.md 2.5).

    A class where it beats the background map, 0 where none beats `background_factor` times it, 255 between.
    Raises ValueError where map 0 is not of label 0, and as `confident_labels`.
    """
    if not len(labels_n) or int(labels_n[0]) != 0:
        raise ValueError(f"labels {labels_n.tolist()}: the first map has to be that of label 0")
    weakened = torch.cat([maps_nHW[:1] * background_factor, maps_nHW[1:]])
    index_2HW = torch.stack([maps_nHW.argmax(dim=0), weakened.argmax(dim=0)])
    return _agreed(index_2HW, labels_n.to(maps_nHW.device, torch.int64), image, crf)


def _agreed(index_2HW: Tensor, values_n: Tensor, image: NDArray[np.uint8] | None, crf: LabelCrf | None) -> Tensor:
    if crf is not None:
        if image is None:
            raise ValueError("a CRF needs the image that the maps are of")
        found = [crf.relabel(image, one.cpu().numpy(), len(values_n)) for one in index_2HW]
        index_2HW = torch.from_numpy(np.stack(found).astype(np.int64)).to(index_2HW.device)
    strict_HW, loose_HW = values_n[index_2HW]
    unsure_HW = (strict_HW == 0) & (loose_HW != 0)
    return strict_HW.masked_fill(unsure_HW, IGNORE)
