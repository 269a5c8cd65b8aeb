"""Datasets that lie on disk as an image and a mask a picture: reading, tags, fingerprints, checking."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api.classes import choose
from harness.api.vocabulary import IGNORE
from harness.datasets.disk import facts
from harness.datasets.disk.facts import ImageFacts, MaskFacts
from harness.datasets.disk.labelled import LabelledDataset
from harness.datasets.disk.layout import Layout, told_apart
from harness.datasets.disk.looking import illegal_labels, look, recall
from harness.datasets.disk.together import judge_together
from harness.datasets.io.images import image_size, merged, read_image, read_mask
from harness.datasets.io.palettes import palette_of
from harness.errors import BadInput, Problem, nearest

CACHE_BYTES = 256 << 20
"""Decoded pixels kept by one process: all of a few hundred photos, a share of a large dataset."""


class FileDataset(LabelledDataset):
    """Images and masks on disk. Arrays that it returns are read-only: they are shared with its cache."""

    def __init__(
        self,
        layout: Layout,
        class_names: tuple[str, ...],
        *,
        name: str,
        family: str,
        has_background: bool,
        complete: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ):
        super().__init__(layout, cache_bytes)
        self.name = name
        self.family = family
        self.class_names = class_names
        self.file_names = class_names
        self.has_background = has_background
        self.complete = complete
        """Whether it is meant to hold every class: one that is scored but in no training image is then an error."""
        self._ids = frozenset(image_id for ids in layout.lists.values() for image_id in ids)

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
        return self._cache.get(("image", image_id), lambda: self.read_image(image_id))

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """Ground truth (H,W), read-only. Raises BadInput for a damaged file or an illegal label."""

        def read() -> NDArray[np.uint8]:
            self.legal_facts(image_id)
            return self.chosen(self.read_mask(image_id))

        return self._cache.get(("mask", image_id), read)

    def size(self, image_id: str) -> tuple[int, int]:
        """(H,W) of an image, from its header."""
        return image_size(self.image_part(image_id)[0])

    def tags(self, image_id: str) -> NDArray[np.float32]:
        """Image-level labels (C,) in {0,1}: of `data.tags`, else classes with at least one pixel in the mask."""
        if image_id in self.given_tags:
            return self.given_tags[image_id].copy()
        offset = int(self.has_background)
        labels = self.legal_facts(image_id).labels
        tags = np.zeros(self.num_classes, np.float32)
        tags[[label - offset for label in labels if label >= offset and label != IGNORE]] = 1.0
        return tags

    def use_classes(self, keep: str | None = None, drop: str | None = None) -> None:
        """Score and train on some classes; pixels of the others become 255. Raises BadInput as `choose`."""
        self.choice = choose(self.file_names, self.has_background, keep, drop)
        self.class_names = tuple(self.file_names[label] for label in self.choice.kept)

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        """Digest of class names and of these images' ids, order and label values, wherever the folder lies."""
        for image_id in ids:
            self._listed(image_id)
        masks = self.facts(image_id for image_id in ids if image_id in self.layout.masks)
        digest = hashlib.sha256(repr(self.class_names).encode())
        if self.choice is not None:
            digest.update(f"\nkept {self.choice.kept}".encode())
        for image_id in ids:
            mask = masks[image_id].digest if image_id in masks else "no mask"
            digest.update(f"\n{image_id!r} {mask}".encode())
            if image_id in self.given_tags:
                digest.update(f" tags {self.given_tags[image_id].tolist()}".encode())
        return digest.hexdigest()

    def image_fingerprint(self, ids: tuple[str, ...]) -> str:
        """Digest of these images' files, in order, wherever the folder lies; known files are not read again.

        Raises BadInput with every damaged image.
        """
        found, digest = self.image_digests(ids), hashlib.sha256()
        for image_id in ids:
            digest.update(f"\n{image_id!r} {found.get(image_id, 'no image')}".encode())
        return digest.hexdigest()

    def image_digests(self, ids: tuple[str, ...]) -> dict[str, str]:
        """Digest of each of these images' files, without those that have none. Raises BadInput with every damaged
        image."""
        looked = look(self, ids)
        if looked.errors:
            raise BadInput(merged(looked.errors))
        return {image_id: seen.image.digest for image_id, seen in looked.seen.items() if seen.image is not None}

    def check(self, ids: tuple[str, ...]) -> None:
        """Decode these images and their masks on all cores, some milliseconds each; known files are not read again.

        Raises BadInput with all that is wrong: damaged or cut-off files, colours instead of label numbers, labels
        outside the classes, a mask of another size than its image, classes that no training image shows.
        """
        looked = look(self, ids)
        errors = [*merged(looked.errors), *judge_together(self, looked.seen)[0]]
        if errors:
            raise BadInput(errors)

    def warnings(self, ids: tuple[str, ...]) -> list[Problem]:
        """What is odd about these pictures as a whole, though they can be trained on; `check` tells that of files."""
        return judge_together(self, look(self, ids).seen)[1]

    def palette(self, ids: tuple[str, ...]) -> dict[int, tuple[int, int, int]]:
        """The colour that each label has in all of these masks that have it; {} where they are grey."""
        found: dict[int, set[tuple[int, int, int]]] = {}
        for mask in self.facts(i for i in ids if i in self.layout.masks).values():
            for label, colour in palette_of(mask).items():
                found.setdefault(label, set()).add(colour)
        return {label: next(iter(told)) for label, told in found.items() if len(told) == 1}

    def facts(self, ids: Iterable[str]) -> dict[str, MaskFacts]:
        """Facts of many masks. Raises BadInput with every wrong one."""
        looked = look(self, ids, images=False)
        if looked.errors:
            raise BadInput(merged(looked.errors))
        return {image_id: seen.mask for image_id, seen in looked.seen.items() if seen.mask is not None}

    def image_path(self, image_id: str) -> Path:
        """File of an image. Raises BadInput for an id that is in no list."""
        return self.image_part(image_id)[0]

    def mask_path(self, image_id: str) -> Path:
        """File of a mask. Raises BadInput for an id that is in no list, or has no mask."""
        return self.mask_part(image_id)[0]

    def image_part(self, image_id: str) -> tuple[Path, str]:
        """File of an image, and the part of it that is the image (empty: all of it)."""
        self._listed(image_id)
        if image_id not in self.layout.images:
            raise BadInput(Problem(image_id, "this id has no image", "add it"))
        return self.layout.root / self.layout.images[image_id], ""

    def mask_part(self, image_id: str) -> tuple[Path, str]:
        """File of a mask, and the part of it that is the mask (empty: all of it)."""
        self._listed(image_id)
        if image_id not in self.layout.masks:
            folder = self.layout.root / self.layout.mask_folder
            raise BadInput(
                Problem(str(folder / f"{image_id}.png"), "this image has no mask", "use a split that has masks")
            )
        return self.layout.root / self.layout.masks[image_id], ""

    def image_facts(self, image_id: str) -> ImageFacts:
        """Facts of an image, every byte of which decodes. Raises BadInput naming the file and the fix."""
        return facts.image_facts(self.image_part(image_id)[0])

    def mask_facts(self, image_id: str) -> MaskFacts:
        """Facts of a mask. Raises BadInput naming the file and the fix."""
        return facts.mask_facts(self.mask_part(image_id)[0])

    def judge_mask(self, image_id: str, mask: MaskFacts) -> tuple[list[Problem], list[Problem]]:
        """Errors and warnings on the labels of a mask."""
        return illegal_labels(self.mask_part(image_id)[0], mask, self.file_names)

    def legal_facts(self, image_id: str) -> MaskFacts:
        """Facts of a mask whose labels are legal. Raises BadInput."""
        recall(self)
        mask = self.mask_facts(image_id)
        errors, _ = self.judge_mask(image_id, mask)
        if errors:
            raise BadInput(errors)
        return mask if self.choice is None else facts.chosen(mask, self.choice)

    def read_image(self, image_id: str) -> NDArray[np.uint8]:
        """RGB pixels (H,W,3) of an image file."""
        return read_image(self.image_part(image_id)[0])

    def read_mask(self, image_id: str) -> NDArray[np.uint8]:
        """Label values (H,W) of a mask file."""
        return read_mask(self.mask_part(image_id)[0])

    def _listed(self, image_id: str) -> None:
        if image_id not in self.layout.images and image_id not in self._ids:
            raise BadInput(
                Problem(
                    "image id",
                    f"{image_id!r} is in no list of {self.layout.root}",
                    nearest(image_id, list(self.layout.images)[:1000]),
                )
            )


class KnownDataset(FileDataset):
    """A dataset of the field, with classes of its own. A part of it, or another list, is named `<family>:<folder>`, so
    that no table takes it for the whole."""

    has_background = True

    def __init__(self, layout: Layout, official: bool):
        super().__init__(
            layout,
            layout.class_names,
            name=told_apart(self.family, layout.root, official),
            family=self.family,
            has_background=self.has_background,
            complete=official,
        )
