"""The base of datasets whose sparse labels are made from their masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.datasets.weak.derive import check_derivable, derive, version
from harness.datasets.weak.scribbling import WHOLE, Scribbling


class DerivingDataset(Dataset):
    """A dataset with masks: points, scribbles, clicks and blocks are derived from them, the same ones each time."""

    scribbling: Scribbling = WHOLE
    """How its scribbles are drawn: `data.scribble_length`, `data.scribble_style`."""

    def use_scribbling(self, how: Scribbling) -> None:
        """Draw scribbles in this way."""
        self.scribbling = how

    def weak(self, image_id: str, kind: str) -> NDArray[np.uint8]:
        """Sparse labels (H,W) of `kind`, 255 = unlabelled, or the mask. Raises BadInput for an unknown kind."""
        return self.mask(image_id) if kind == "masks" else self.derived(image_id, kind)

    def derived(self, image_id: str, kind: str, seed: int = 0) -> NDArray[np.uint8]:
        """Sparse labels (H,W) made from the mask, 255 = unlabelled; `weak` gives those of seed 0.

        Raises BadInput for an unknown kind, or where the mask cannot be read.
        """
        return derive(
            self.mask(image_id), kind, image_id, has_background=self.has_background, seed=seed, how=self.scribbling
        )

    def weak_fingerprint(self, ids: tuple[str, ...], kind: str) -> str:
        """The version that derives labels of this kind, and how scribbles are drawn where that is not as usual.

        Raises BadInput for a kind that is not derived.
        """
        check_derivable(kind)
        how = self.scribbling.text if kind == "scribbles" else ""
        return " ".join(filter(None, (f"derived {version(kind)}", how)))
