"""A dataset that shows when a method reads what it must not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset


class GuardedDataset(Dataset):
    """A dataset that refuses the masks of training images, as a weakly supervised method must do without them."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.name, self.family = inner.name, inner.family
        self.class_names, self.has_background = inner.class_names, inner.has_background
        self.train = frozenset(inner.ids("train"))
        self.known_tags = {i: inner.tags(i) for i in self.train}

    def splits(self) -> dict[str, bool]:
        """As the inner dataset."""
        return self.inner.splits()

    def ids(self, split: str) -> tuple[str, ...]:
        """As the inner dataset."""
        return self.inner.ids(split)

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """As the inner dataset."""
        return self.inner.image(image_id)

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """The mask, or AssertionError for an image of the training split."""
        assert image_id not in self.train, f"the mask of training image {image_id} was read"
        return self.inner.mask(image_id)

    def tags(self, image_id: str) -> NDArray[np.float32]:
        """As the inner dataset, read beforehand."""
        return self.known_tags[image_id] if image_id in self.train else self.inner.tags(image_id)

    def weak(self, image_id: str, kind: str) -> NDArray[np.uint8]:
        """Sparse labels pass; full masks only through `mask`."""
        return self.mask(image_id) if kind == "masks" else self.inner.weak(image_id, kind)

    def weak_fingerprint(self, ids: tuple[str, ...], kind: str) -> str:
        """As the inner dataset."""
        return self.inner.weak_fingerprint(ids, kind)

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        """As the inner dataset."""
        return self.inner.fingerprint(ids)
