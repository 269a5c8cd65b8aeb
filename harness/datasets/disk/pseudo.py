"""A folder of anybody's pseudo masks as labels to train on: `data.pseudo`, labels=pseudo. 255 = no label.

Index PNGs, one for each training image, in the numbers of the dataset's own masks. Their facts are read, and what they
hold is held against sizes, classes and tags before anything is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api.classes import Choice
from harness.api.vocabulary import IGNORE
from harness.datasets.disk import facts
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.looking import illegal_labels
from harness.datasets.io.images import merged, read_mask, some_of
from harness.datasets.io.palettes import judge_palettes, misplaced
from harness.datasets.io.reading import read_many
from harness.datasets.weak.files import Read, Sizes, WeakFiles, stem_of
from harness.datasets.weak.finding import label_files
from harness.errors import BadInput, Problem

PSEUDO = "pseudo"
WORD = "data.pseudo"
ASTRAY = 0.5
"""Share of the pixels of classes that may be of classes which the image's tags do not name: masks of another numbering
have nearly all of them there, those of a segmenter few."""


class PseudoMasks(WeakFiles):
    """Pseudo masks by image id. Names are those of the label values in files."""

    def __init__(self, folder: Path, class_names: Sequence[str]):
        super().__init__(PSEUDO, class_names)
        if not folder.is_dir():
            raise BadInput(Problem(WORD, f"{folder} is no folder", f"{WORD}=<folder of index PNGs, <id>.png>"))
        self.where, self.folder, self.files = str(folder), folder, label_files(folder, ".png")
        if not self.files:
            raise BadInput(Problem(WORD, f"no PNG in {folder}", f"{WORD}=<folder of index PNGs, <id>.png>"))

    def covers(self, image_id: str) -> bool:
        return stem_of(image_id) in self.files

    def path(self, image_id: str) -> Path:
        """File of an image's mask."""
        return self.folder / self.files[stem_of(image_id)]

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        self.facts(image_id, size)
        return read_mask(self.path(image_id))

    def facts(self, image_id: str, size: tuple[int, int]) -> MaskFacts:
        """Facts of a mask. Raises BadInput for a damaged one, another size and labels that are none."""
        path = self.path(image_id)
        mask = facts.mask_facts(path)
        problems = illegal_labels(path, mask, self.class_names, _NUMBERED)[0]
        if mask.size != size:
            found = f"pseudo mask of {mask.size[1]}x{mask.size[0]} pixels, image of {size[1]}x{size[0]}"
            fix = "write masks at the images' own size (nearest neighbour), or take the folder made of these images"
            problems = [Problem(str(path), found, fix), *problems]
        if problems:
            raise BadInput(problems)
        return mask

    def absent(self, ids: Iterable[str]) -> list[Problem]:
        """A problem where some of these images have no mask."""
        names = [image_id for image_id in ids if not self.covers(image_id)]
        if not names:
            return []
        fix = "write masks of all training images (VOC: of train_aug, not of train alone)"
        return [Problem(self.where, f"no pseudo mask for {len(names)} training images: {some_of(names)}", fix)]

    def survey(self, ids: Iterable[str], size: Sizes) -> Read:
        """These images' masks, read on all cores without keeping a pixel; images that have none are left out."""
        here = [image_id for image_id in ids if self.covers(image_id)]
        found, digest = Read(), hashlib.sha256()
        masks: list[MaskFacts] = []
        looked = read_many(partial(_attempted, self, size), here, what="reading pseudo masks")
        for image_id, mask in zip(here, looked, strict=True):
            if isinstance(mask, list):
                found.problems += mask
                continue
            facts.remember(self.path(image_id), "", mask)
            masks.append(mask)
            digest.update(f"{image_id!r} {mask.digest}".encode())
            if mask.labels == (IGNORE,):
                found.blank.append(image_id)
        unfit, found.warnings = judge_palettes(masks, self.class_names, self.where)
        found.problems = unfit or found.problems
        if here and not found.problems and len(found.blank) == len(here):
            fix = "255 is no label: write the number of its class into each labelled pixel"
            found.problems.append(Problem(self.where, f"none of {len(here)} masks has a labelled pixel", fix))
        found.digest = digest.hexdigest()
        return found

    def judge_numbers(
        self,
        ids: Iterable[str],
        tags: Callable[[str], NDArray[np.float32]],
        colours: Mapping[int, tuple[int, int, int]],
        *,
        has_background: bool,
        choice: Choice | None = None,
    ) -> list[Problem]:
        """A problem where masks, which are sound, have another numbering than the dataset's own.

        Their palettes give labels the dataset's `colours` of others, or most pixels of classes are of classes that
        their image does not hold by its `tags`.
        """
        offset = int(has_background)
        astray = total = 0
        example = ""
        wrong: list[Problem] = []
        names = self.class_names if choice is None else tuple(self.class_names[label] for label in choice.kept)
        for image_id in ids:
            mask = facts.mask_facts(self.path(image_id))
            mask = mask if choice is None else facts.chosen(mask, choice)
            if told := misplaced(mask, colours, names):
                wrong.append(Problem(str(self.path(image_id)), told, _NUMBERED))
            present = tags(image_id)
            for label, pixels in zip(mask.labels, mask.pixels, strict=True):
                if label == IGNORE or label < offset:
                    continue
                total += pixels
                if not present[label - offset]:
                    astray += pixels
                    held = some_of(str(c + offset) for c in np.flatnonzero(present)) or "no class"
                    example = example or f"{image_id} shows {label}, and its tags are {held}"
        if wrong:
            return merged(wrong)
        if total and astray > ASTRAY * total:
            found = f"{100 * astray / total:.0f} % of the pixels of classes are of classes that the tags exclude"
            return [Problem(self.where, f"{found} ({example}): masks of another numbering", _NUMBERED)]
        return []


_NUMBERED = (
    "number pseudo masks as the dataset's own masks are: background 0 where it has one, then the classes in their "
    "order; 255 = no label"
)


def _attempted(files: PseudoMasks, size: Sizes, image_id: str) -> MaskFacts | list[Problem]:
    try:
        return files.facts(image_id, size(image_id))
    except BadInput as error:
        return error.problems
