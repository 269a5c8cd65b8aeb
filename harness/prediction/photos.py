"""Photos without truth as a dataset, so that a network sees them exactly as it sees images that are scored."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.api.dataset import Dataset
from harness.cli.run_words import WhichData
from harness.datasets import open_dataset, opener_of
from harness.datasets.acdc.volumes import read_images, volume_shape
from harness.datasets.disk.naming import Names
from harness.datasets.folder import BACKGROUND
from harness.datasets.io.class_files import class_names
from harness.datasets.io.images import IMAGE_SUFFIXES, OTHER_PICTURES, orientation_of, read_image, some_of
from harness.datasets.io.listing import field_id, read_ids
from harness.errors import BadInput, Problem
from harness.files import digest_of

VOLUMES = (".nii.gz", ".nii")
NO_IMAGES = ("_gt", "_4d")
"""Ends of the names of volumes that are none of single images: labels, and films."""
SUFFIXES = (*VOLUMES, *IMAGE_SUFFIXES, *OTHER_PICTURES)


@dataclass(frozen=True)
class Labels:
    """The label values that a network predicts."""

    class_names: tuple[str, ...]
    """Name of every label value, background first where there is one."""
    has_background: bool
    family: str = "voc"

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the C foreground classes."""
        return self.class_names[int(self.has_background) :]


@dataclass(frozen=True)
class Photo:
    """Where an image lies: a file, or a slice of a volume (from 1; 0 for a file that is the image)."""

    path: Path
    slice: int = 0

    def read(self) -> NDArray[np.uint8]:
        """RGB image (H,W,3), as datasets read it. Raises BadInput naming the file and the fix."""
        if not self.slice:
            return read_image(self.path)
        return np.repeat(_volume(self.path)[self.slice - 1][..., None], 3, 2)

    @property
    def turned(self) -> bool:
        """Whether it carries an orientation tag, which nobody applies."""
        return not self.slice and orientation_of(self.path) != 1


@lru_cache(maxsize=1)
def _volume(path: Path) -> NDArray[np.uint8]:
    return read_images(path)


class Photos(Dataset):
    """Images by id, none of which has a mask. `tags` are what is known of some of them; of others all may be there."""

    def __init__(
        self,
        labels: Labels,
        images: Mapping[str, NDArray[np.uint8]],
        tags: Mapping[str, NDArray[np.float32]] | None = None,
    ):
        self.name = "photos"
        self.family, self.class_names, self.has_background = labels.family, labels.class_names, labels.has_background
        self._images, self._tags = images, tags or {}

    def splits(self) -> dict[str, bool]:
        return {"test": False}

    def ids(self, split: str) -> tuple[str, ...]:
        return tuple(self._images)

    def image(self, image_id: str) -> NDArray[np.uint8]:
        return self._images[image_id]

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        raise BadInput(Problem(image_id, "a photo has no mask", "harness.evaluate scores datasets that have"))

    def tags(self, image_id: str) -> NDArray[np.float32]:
        return self._tags.get(image_id, np.ones(self.num_classes, np.float32))

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        return digest_of(list(ids))


def labels_of(data: WhichData) -> Labels:
    """The labels that `data=` and `data.classes=` name: of a file of names, of the dataset that lies in `data.root`, or
    of one that is known by its names alone. Raises BadInput with everything that is wrong."""
    family = "voc" if data.name == "folder" else data.name
    if data.classes:
        problems: list[Problem] = []
        names = class_names(Path(), "", data.classes, problems)
        if problems:
            raise BadInput(problems)
        return Labels(names, names[0] == BACKGROUND, family)
    try:
        dataset = open_dataset(data.name, root=data.root)
    except BadInput as e:
        if data.root is not None or [p.where for p in e.problems] != ["data.root"]:
            raise
        names = getattr(importlib.import_module(opener_of(data.name).entry.target.partition(":")[0]), "CLASSES", ())
        if not names:
            fix = "data.classes=<file with one name per line>, label 0 first; or data.root="
            raise BadInput(Problem("data.classes", f"{data.name} has no class names of its own", fix)) from e
        return Labels(names, names[0] == BACKGROUND, family)
    return Labels(dataset.class_names, dataset.has_background, dataset.family)


def listed(folder: Path, out: Path, ids: Path | None) -> dict[str, Photo]:
    """The images below a folder by id, their paths without suffix, sorted; of those that a list names, where there is
    one. Of volumes (NIfTI) every slice is an image. What lies in `out` is none of them.

    Raises BadInput where there are none, where two have one id, for ids that have none, and for damaged volumes.
    """
    found: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and (Path(place) / f).resolve() != out.resolve()]
        for name in files:
            suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), None)
            if suffix is None or name.startswith("."):
                continue
            stem = (Path(place) / name[: -len(suffix)]).relative_to(folder).as_posix()
            if suffix not in VOLUMES or not stem.endswith(NO_IMAGES):
                found.setdefault(stem, []).append(Path(place) / name)
    problems = []
    if not found:
        what = f"{folder} holds no images"
        problems.append(Problem("images", what, f"files that end in {', '.join(IMAGE_SUFFIXES + VOLUMES)}"))
    twice = [" and ".join(sorted(p.name for p in paths)) for paths in found.values() if len(paths) > 1]
    if twice:
        what = f"{len(twice)} names stand for two files, which would have one mask: {some_of(sorted(twice), 3)}"
        problems.append(Problem("images", what, "rename or remove one of each"))
    photos: dict[str, Photo] = {}
    for stem in sorted(found):
        path = found[stem][0]
        if not path.name.lower().endswith(VOLUMES):
            photos[stem] = Photo(path)
            continue
        try:
            count = volume_shape(path)[0]
        except BadInput as e:
            problems += e.problems
            continue
        photos |= {f"{stem}_slice{number:02d}": Photo(path, number) for number in range(1, count + 1)}
    if ids is not None and photos:
        photos = {image_id: photos[image_id] for image_id in _named(ids, photos, problems)}
    if problems:
        raise BadInput(problems)
    return photos


def _named(path: Path, found: Mapping[str, object], problems: list[Problem]) -> list[str]:
    """The photos of a list of ids, in its order."""
    if not path.is_file():
        problems.append(Problem("ids", f"{path} is no file", "a text file with one image id per line"))
        return []
    names = Names(found)
    meant = {image_id: names.of(image_id) for image_id in read_ids(path, path.parent, problems, field_id)}
    missing = [image_id for image_id, of in meant.items() if not of]
    unclear = [f"{image_id} ({' or '.join(of[:3])})" for image_id, of in meant.items() if len(of) > 1]
    for which, what in ((missing, "have no photo in images="), (unclear, "may be several photos")):
        if which:
            problems.append(
                Problem("ids", f"{len(which)} of {len(meant)} ids {what}: {some_of(which)}", "mend the list")
            )
    return [of[0] for of in meant.values() if len(of) == 1]


def smaller(image_HW3: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """An image of at most so many pixels, its aspect kept; one that has no more is returned as it is."""
    h, w = image_HW3.shape[:2]
    if h * w <= pixels:
        return image_HW3
    share = (pixels / (h * w)) ** 0.5
    size = (max(1, int(w * share)), max(1, int(h * share)))
    return np.asarray(Image.fromarray(image_HW3).resize(size, Image.Resampling.BILINEAR))
