"""Any folder in VOC layout: JPEGImages/, a mask folder, ImageSets/Segmentation/{train,val,test}.txt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.base import IGNORE, Dataset
from harness.datasets.images import (
    ArrayCache,
    MaskFacts,
    SparseCache,
    attempt,
    image_size,
    mask_facts,
    merged,
    read_image,
    read_mask,
    some_of,
    verify_image,
)
from harness.datasets.layout import IMAGES, Layout, inspect
from harness.errors import BadInput, Problem, nearest

CACHE_BYTES = 256 << 20
"""Decoded pixels kept by one process: all of a few hundred photos, a share of a large dataset."""
SPARSE_BYTES = 128 << 20
"""Derived weak labels kept by one process: those of about ten thousand photos."""


def open(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Folder:
    """Open a VOC-layout folder: `root`, name of its mask folder, file of class names (design section 3).

    Looks at folders, lists and names only; the pixels are checked by `Folder.check`. Without a file of class names
    all masks are read. Raises BadInput with everything that is wrong.
    """
    layout = inspect(root, masks or "SegmentationClass", classes)
    if layout.class_names:
        return Folder(layout, layout.class_names)
    folder = Folder(layout, tuple(str(number) for number in range(IGNORE)))
    facts = folder.facts(image_id for split, has in layout.has_masks.items() if has for image_id in layout.lists[split])
    top = max((label for fact in facts.values() for label in fact.labels if label != IGNORE), default=-1)
    if top < 0:
        raise BadInput(
            Problem(
                str(layout.root / layout.mask_folder),
                "every pixel of every mask is 255 (ignore)",
                "choose another mask folder with data.masks=<folder>",
            )
        )
    return Folder(layout, tuple(str(number) for number in range(top + 1)))


class Folder(Dataset):
    """A VOC-layout folder on disk. Arrays that it returns are read-only: they are shared with its cache."""

    family = "voc"

    def __init__(self, layout: Layout, class_names: tuple[str, ...], cache_bytes: int = CACHE_BYTES):
        self.layout = layout
        self.name = f"folder:{layout.root.name}"
        """Told from other folders by the folder's own name; the fingerprints tell for sure."""
        self.class_names = class_names
        self.has_background = class_names[0] == "background"
        self._cache = ArrayCache(cache_bytes)
        self._sparse = SparseCache(SPARSE_BYTES)

    def splits(self) -> dict[str, bool]:
        """Each split that exists, and whether it has masks."""
        return dict(self.layout.has_masks)

    def ids(self, split: str) -> tuple[str, ...]:
        """Image ids of a split in list order. Raises BadInput where there is no such split."""
        if split not in self.layout.lists:
            raise BadInput(
                Problem("split", f"{self.layout.root} has no split {split}", nearest(split, self.layout.lists))
            )
        return self.layout.lists[split]

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """RGB image (H,W,3), read-only. Raises BadInput naming the file and the fix."""
        return self._cache.get(("image", image_id), lambda: read_image(self.image_path(image_id)))

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """Ground truth (H,W), read-only. Raises BadInput for a damaged file or an illegal label."""
        return self._cache.get(("mask", image_id), lambda: self._read_mask(image_id))

    def size(self, image_id: str) -> tuple[int, int]:
        """(H,W) of an image, from its header."""
        return image_size(self.image_path(image_id))

    def tags(self, image_id: str) -> NDArray[np.float32]:
        """Image-level labels (C,) in {0,1}: classes with at least one pixel in the mask."""
        offset = int(self.has_background)
        present = [label - offset for label in self._legal(image_id).labels if label >= offset and label != IGNORE]
        tags = np.zeros(self.num_classes, np.float32)
        tags[present] = 1.0
        return tags

    def weak(self, image_id: str, kind: str) -> NDArray[np.uint8]:
        """Sparse labels (H,W) derived from the mask, 255 = unlabelled, or the mask itself, which is read-only."""
        if kind == "masks":
            return self.mask(image_id)
        return self._sparse.get((kind, image_id), lambda: super(Folder, self).weak(image_id, kind))

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        """Digest of class names and of these images' ids, order and label values, wherever the folder lies."""
        labelled = [image_id for image_id in ids if self._entry(self.layout.masks, image_id) is not None]
        facts = self.facts(labelled)
        digest = hashlib.sha256(repr(self.class_names).encode())
        for image_id in ids:
            mask = facts[image_id].digest if image_id in facts else "no mask"
            digest.update(f"\n{image_id!r} {mask}".encode())
        return digest.hexdigest()

    def check(self, ids: tuple[str, ...]) -> None:
        """Decode these images and their masks, in threads, about a millisecond each.

        Raises BadInput with all that is wrong: damaged or cut-off files, colours instead of label numbers, labels
        outside the classes, a mask of another size than its image.
        """
        problems: list[Problem] = []
        for _, found in attempt(self._check, dict.fromkeys(ids)):
            problems += found
        if problems:
            raise BadInput(merged(problems))

    def facts(self, ids: Iterable[str]) -> dict[str, MaskFacts]:
        """Facts of many masks, read in threads. Raises BadInput with every unreadable one."""
        facts: dict[str, MaskFacts] = {}
        problems: list[Problem] = []
        for image_id, found in attempt(lambda image_id: mask_facts(self.mask_path(image_id)), ids):
            if isinstance(found, MaskFacts):
                facts[image_id] = found
            else:
                problems += found
        if problems:
            raise BadInput(merged(problems))
        return facts

    def image_path(self, image_id: str) -> Path:
        """File of an image. Raises BadInput for an id that is in no list."""
        file = self._entry(self.layout.images, image_id)
        assert file is not None  # every listed id has an image, or the folder does not open
        return self.layout.root / IMAGES / file

    def mask_path(self, image_id: str) -> Path:
        """File of a mask. Raises BadInput for an id that is in no list, or has no mask."""
        file = self._entry(self.layout.masks, image_id)
        folder = self.layout.root / self.layout.mask_folder
        if file is None:
            raise BadInput(
                Problem(str(folder / f"{image_id}.png"), "this image has no mask", "use a split that has masks")
            )
        return folder / file

    def _entry(self, files: Mapping[str, str], image_id: str) -> str | None:
        if image_id not in self.layout.images:
            raise BadInput(
                Problem(
                    "image id",
                    f"{image_id!r} is in no list of {self.layout.root}",
                    nearest(image_id, list(self.layout.images)[:1000]),
                )
            )
        return files.get(image_id)

    def _read_mask(self, image_id: str) -> NDArray[np.uint8]:
        self._legal(image_id)
        return read_mask(self.mask_path(image_id))

    def _legal(self, image_id: str) -> MaskFacts:
        path = self.mask_path(image_id)
        facts = mask_facts(path)
        illegal = [label for label in facts.labels if label >= self.num_labels and label != IGNORE]
        if illegal:
            names = some_of(self.class_names, 3)
            raise BadInput(
                Problem(
                    str(path),
                    f"label {some_of(map(str, illegal))}, but the {self.num_labels} classes ({names}) are "
                    f"labelled 0..{self.num_labels - 1}",
                    "correct the mask (255 = ignore), or name all classes in the file of class names (data.classes)",
                )
            )
        return facts

    def _check(self, image_id: str) -> list[Problem]:
        problems: list[Problem] = []
        size = truth = None
        try:
            size = verify_image(self.image_path(image_id))
        except BadInput as error:
            problems += error.problems
        if image_id in self.layout.masks:
            try:
                truth = self._legal(image_id).size
            except BadInput as error:
                problems += error.problems
        if size is not None and truth is not None and truth != size:
            problems.append(
                Problem(
                    str(self.mask_path(image_id)),
                    f"mask of {truth[1]}x{truth[0]} pixels, image of {size[1]}x{size[0]}",
                    "make both the same size; a turned mask hints at a photo with an EXIF rotation",
                )
            )
        return problems
