"""One interface for every dataset. Labels: 0 background, 1..C classes, 255 ignore; without background 0..C-1."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api.contract import Contract
from harness.api.vocabulary import IGNORE
from harness.errors import BadInput, Problem


@dataclass(frozen=True)
class Sample:
    """One image with the weak labels that a method may read."""

    image_id: str
    image_HW3: NDArray[np.uint8]
    tags_C: NDArray[np.float32]
    """1.0 for each foreground class that the image holds."""
    label_HW: NDArray[np.uint8] | None = None
    """Sparse labels or the full mask, 255 = unlabelled; None for methods that read tags only."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What travels with the image, by name, from earlier stages or from files: maps (K,h,w) of floating point at any
    resolution, label maps (H,W) of uint8, vectors (n,)."""


class Dataset(metaclass=Contract):
    """Images, masks and weak labels by id. Ids are unique over all splits. Instances are picklable and cheap to
    copy into loader processes."""

    name: str
    family: str
    """Whose presets it takes: voc, coco, cityscapes, acdc or shapes."""
    class_names: tuple[str, ...]
    """Name of every label value, background first where there is one."""
    has_background: bool

    @property
    def num_labels(self) -> int:
        """K: label values, background included."""
        return len(self.class_names)

    @property
    def num_classes(self) -> int:
        """C: foreground classes."""
        return self.num_labels - int(self.has_background)

    @abstractmethod
    def splits(self) -> dict[str, bool]:
        """Each split (`train`, `val`, `test`) that exists, and whether it has masks."""

    @abstractmethod
    def ids(self, split: str) -> tuple[str, ...]:
        """Image ids of a split in list order."""

    def quoted_train(self) -> tuple[str, ...]:
        """Training images on which papers score maps and masks, where masks of them are there: all of `train`, as
        written here. Scores of them are reported and choose nothing."""
        return self.ids("train") if self.splits().get("train") else ()

    @abstractmethod
    def image(self, image_id: str) -> NDArray[np.uint8]:
        """RGB image (H,W,3). Raises BadInput naming the file and the fix."""

    @abstractmethod
    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """Ground truth (H,W). Raises BadInput naming the file and the fix."""

    def tags(self, image_id: str) -> NDArray[np.float32]:
        """Image-level labels (C,) in {0,1}: classes with at least one pixel in the mask."""
        present = np.unique(self.mask(image_id))
        offset = int(self.has_background)
        tags = np.zeros(self.num_classes, np.float32)
        ids = present[(present != IGNORE) & (present >= offset)].astype(np.int64) - offset
        tags[ids] = 1.0
        return tags

    def weak(self, image_id: str, kind: str) -> NDArray[np.uint8]:
        """Sparse labels (H,W) of `kind` (points, scribbles, clicks20, ...), 255 = unlabelled, or the mask.

        As written here there are masks alone; `harness.datasets.weak.deriving` makes the others from them.
        Raises BadInput where the dataset has none of that kind.
        """
        if kind == "masks":
            return self.mask(image_id)
        raise BadInput(Problem("labels", f"{self.name} has no {kind}", "labels=tags or labels=masks"))

    def weak_fingerprint(self, ids: tuple[str, ...], kind: str) -> str:
        """What decides these images' weak labels besides `fingerprint`: the version that derives them, or the
        digest of their files. Raises BadInput with every file that is missing or wrong, before anything is trained.
        """
        raise BadInput(Problem("labels", f"{self.name} has no {kind}", "labels=tags or labels=masks"))

    def use_labels(self, weak: str | None = None, tags: str | None = None, pseudo: str | None = None) -> None:
        """Take sparse labels from below the folder `weak`, tags from the file or folder `tags`, pseudo masks from the
        folder `pseudo`.

        Raises BadInput where that is not there, or where labels come with the dataset, as written here.
        """
        given = {"data.weak": weak, "data.tags": tags, "data.pseudo": pseudo}
        raise BadInput(
            [
                Problem(w, f"{self.name} makes its own labels", f"leave {w} out")
                for w, v in given.items()
                if v is not None
            ]
        )

    def use_classes(self, keep: str | None = None, drop: str | None = None) -> None:
        """Score and train on the classes that `keep` names, or on all but those of `drop`; the others become 255.

        Raises BadInput for unknown names, and where a dataset has no such choice, as written here.
        """
        given = {"data.keep": keep, "data.drop": drop}
        told = f"{self.name} has no choice of classes"
        raise BadInput([Problem(w, told, f"leave {w} out") for w, v in given.items() if v is not None])

    @abstractmethod
    def fingerprint(self, ids: tuple[str, ...]) -> str:
        """Digest of these images' ids, order and labels; equal data gives an equal digest wherever it lies."""

    def image_fingerprint(self, ids: tuple[str, ...]) -> str:
        """Digest of what these images' pixels are read from; empty where `fingerprint` decides them, as of generated
        pictures. As written here all pixels are read. Raises BadInput where an image cannot be read.
        """
        digest = hashlib.sha256()
        for image_id in ids:
            image_HW3 = np.ascontiguousarray(self.image(image_id))
            digest.update(f"\n{image_id!r} {image_HW3.shape} ".encode())
            digest.update(image_HW3.data)
        return digest.hexdigest()

    def check(self, ids: tuple[str, ...]) -> None:
        """Read what can be read cheaply of these images before training. Raises BadInput with all problems."""

    def warnings(self, ids: tuple[str, ...]) -> list[Problem]:
        """What a plan should say of these images though they can be trained on and scored; nothing as written here."""
        return []

    def palette(self, ids: tuple[str, ...]) -> dict[int, tuple[int, int, int]]:
        """The colour (R,G,B) of each label in these images' mask files; {} where they have none, as written here."""
        return {}

    def group_of(self, image_id: str) -> str:
        """What an image must not be parted from by a carved split: the patient of a slice; else the image itself."""
        return image_id

    def size(self, image_id: str) -> tuple[int, int]:
        """(H,W) of an image, pixels."""
        shape = self.image(image_id).shape
        return int(shape[0]), int(shape[1])
