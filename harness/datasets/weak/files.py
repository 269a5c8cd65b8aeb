"""Sparse labels that lie beside a dataset: PNGs, ScribbleSup's XML, point JSON; read, checked, digested.

255 = unlabelled. AGMM writes the number of classes for that (21 for VOC, 19 for Cityscapes); both are read as 255, and
what is padding is told by the content mask alone (agmm.md 7).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.datasets.io.images import merged, packed, read_index, read_mask, some_of, unpacked
from harness.datasets.io.opening import plain_bytes
from harness.datasets.io.palettes import Palette, colours_of, judge_palettes
from harness.datasets.io.reading import read_many
from harness.datasets.weak import CLICKS
from harness.datasets.weak.drawn import MAX_XML_BYTES, Stroke, draw, parse_scribbles, read_points
from harness.datasets.weak.manifest import MANIFEST
from harness.datasets.weak.shorten import shorten
from harness.datasets.weak.shortened import shortened
from harness.errors import BadInput, Problem

MOST = {"points": 0.1, "clicks": 0.1, "scribbles": 0.5, "blocks": 0.75}
"""Share of an image that labels of a kind can cover: ten times what the field draws, and below any full mask with its
255 borders. So a file that writes 0 for "nothing" is told from one that means background."""
LACKING = 0.05
"""Share of images that a point JSON may leave out as having no points: 38 of VOC's 10,582 lack some (agmm.md 7)."""
TAILS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_leftImg8bit")
"""Ends of file names that are not part of an image id (agmm.md 7)."""
Sizes = Callable[[str], tuple[int, int]]


@dataclass
class Read:
    """What the labels of some images are: their digest, the images without a labelled pixel, all problems, and what is
    odd about them as a whole."""

    digest: str = ""
    blank: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


class WeakFiles(ABC):
    """Label files of one kind: which images they cover, and their pixels."""

    where: str
    """File or folder, for messages."""
    length: float = 1.0
    """Share of each stroke that is kept; scribbles only."""

    def __init__(self, kind: str, class_names: Sequence[str]):
        self.kind = kind
        self.class_names = tuple(class_names)

    @abstractmethod
    def covers(self, image_id: str) -> bool:
        """Whether an image has labels here."""

    @abstractmethod
    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Labels (H,W), 255 = unlabelled, of an image of that size. Raises BadInput naming the file."""

    def looked(self, image_id: str, size: Sizes) -> tuple[NDArray[np.uint8] | list[Problem], Palette | None]:
        """An image's labels, packed for the way between processes, or what is wrong with them; its file's palette."""
        try:
            return packed(self.read(image_id, size(image_id))), None
        except BadInput as error:
            return error.problems, None

    def absent(self, ids: Iterable[str]) -> list[Problem]:
        """A problem where some of these images have no labels."""
        names = [image_id for image_id in ids if not self.covers(image_id)]
        if not names:
            return []
        fix = f"add them; for labels derived from masks, move {self.where} away, or leave data.weak out"
        return [Problem(self.where, f"no labels for {len(names)} images: {some_of(names)}", fix)]

    def survey(self, ids: Iterable[str], size: Sizes) -> Read:
        """These images' labels, read on all cores; images that `covers` leaves out have none."""
        ids = list(ids)
        # An entry less in a point JSON is an image without points; a file less is a problem of `absent`.
        found = Read(blank=[] if self.absent(ids) else [image_id for image_id in ids if not self.covers(image_id)])
        digest = hashlib.sha256()
        here = [image_id for image_id in ids if self.covers(image_id)]
        held = list(read_many(partial(self.looked, size=size), here, what=f"reading {self.kind}"))
        palettes = [palette for _, palette in held if palette is not None]
        unfit, found.warnings = judge_palettes(palettes, self.class_names, self.where)
        for image_id, (label, _) in zip(here, held, strict=True):
            if isinstance(label, list):
                found.problems += label
                continue
            label_HW = unpacked(label)
            digest.update(f"{image_id!r} {label_HW.shape}".encode())
            digest.update(label_HW.tobytes())
            if not (label_HW != IGNORE).any():
                found.blank.append(image_id)
        if here and not found.problems and len(found.blank) == len(ids):
            fix = "255 is unlabelled: write the number of its class into each labelled pixel"
            found.problems.append(Problem(self.where, f"none of {len(ids)} images has a labelled pixel", fix))
        # Numbers of each file's own show in single files too, as labels that are none or too many.
        found.problems = unfit or found.problems
        found.digest = digest.hexdigest()
        return found

    def check(self, ids: Iterable[str], size: Sizes) -> str:
        """Digest of these images' labels. Raises BadInput with every missing and wrong one."""
        ids = list(ids)
        found = self.survey(ids, size)
        if problems := [*self.absent(ids), *found.problems]:
            raise BadInput(merged(problems))
        return found.digest


class PngLabels(WeakFiles):
    """Index PNGs, one an image; `digests` are those of a manifest that lies beside them, by image id."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, str],
        kind: str,
        class_names: Sequence[str],
        digests: Mapping[str, str] | None = None,
    ):
        super().__init__(kind, class_names)
        self.where, self.folder, self.files = str(folder), folder, files
        self.digests = None if digests is None else {stem_of(image_id): text for image_id, text in digests.items()}

    def covers(self, image_id: str) -> bool:
        return stem_of(image_id) in self.files

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        return self._sound(image_id, read_mask(self._path(image_id)), size)

    def looked(self, image_id: str, size: Sizes) -> tuple[NDArray[np.uint8] | list[Problem], Palette | None]:
        palette = None
        try:
            label_HW, colours = read_index(self._path(image_id))
            if colours:
                held = tuple(np.flatnonzero(np.bincount(label_HW.ravel())).tolist())
                palette = Palette(held, colours_of(held, colours))
            return packed(self._sound(image_id, label_HW, size(image_id))), palette
        except BadInput as error:
            return error.problems, palette

    def _path(self, image_id: str) -> Path:
        return self.folder / self.files[stem_of(image_id)]

    def _sound(self, image_id: str, label_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        path = self._path(image_id)
        if self.digests is not None:
            listed = self.digests.get(stem_of(image_id))
            if listed != hashlib.sha256(plain_bytes(path)).hexdigest():
                found = f"is not in {MANIFEST}" if listed is None else f"differs from what {MANIFEST} says of it"
                fix = f"write the labels anew (weak-labels), or remove {self.folder / MANIFEST} if this file is meant"
                raise BadInput(Problem(str(path), found, fix))
        label_HW = checked(label_HW, str(path), size, self.kind, len(self.class_names))
        return shortened(label_HW, self.length) if self.length < 1.0 else label_HW


class XmlScribbles(WeakFiles):
    """ScribbleSup's XML files, one an image, in a folder or a zip archive."""

    def __init__(self, source: Path, files: dict[str, str], kind: str, class_names: Sequence[str]):
        super().__init__(kind, class_names)
        self.where, self.source, self.files = str(source), source, files
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def covers(self, image_id: str) -> bool:
        return image_id in self.files

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        name = self.files[image_id]
        where = str(self.source / name)
        strokes = parse_scribbles(self._bytes(name, where), where, self.class_names, size)
        if self.length < 1.0:
            strokes = [Stroke(one.label, tuple(map(tuple, shorten(one.points, self.length)))) for one in strokes]
        return checked(draw(strokes, size), where, size, self.kind, len(self.class_names))

    def _bytes(self, name: str, where: str) -> bytes:
        try:
            if self.source.is_dir():
                return plain_bytes(self.source / name, MAX_XML_BYTES + 1)
            with self._archive().open(name) as file:
                return file.read(MAX_XML_BYTES + 1)
        # Damaged archives raise almost any class; all mean the same here.
        except Exception as error:
            raise BadInput(Problem(where, f"cannot be read ({error})", "download the annotations again")) from error

    def _archive(self) -> zipfile.ZipFile:
        """The archive, whose directory is parsed once a process: a forked one would share its place in the file."""
        if self._open is None or self._open[0] != os.getpid():
            # Given a file, not a name, the archive leaves closing to the last reader, whichever thread that is.
            self._open = (os.getpid(), zipfile.ZipFile(self.source.open("rb")))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


class JsonPoints(WeakFiles):
    """Point annotations of all images in one or two JSON files."""

    def __init__(self, paths: Sequence[Path], kind: str, class_names: Sequence[str]):
        super().__init__(kind, class_names)
        self.where = str(paths[0])
        self.dots: dict[str, list[Stroke]] = {}
        for path in paths:
            for image_id, dots in read_points(path, len(class_names)).items():
                self.dots.setdefault(image_id, []).extend(dots)

    def covers(self, image_id: str) -> bool:
        return image_id in self.dots

    def absent(self, ids: Iterable[str]) -> list[Problem]:
        """As of files, but an image without a point may be left out: only where many are, something is wrong."""
        ids = list(ids)
        lacking = sum(not self.covers(image_id) for image_id in ids)
        return super().absent(ids) if lacking > LACKING * len(ids) else []

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        dots = self.dots.get(image_id, [])
        outside = [dot for dot in dots if not _inside(dot, size)]
        if outside:
            found = f"{len(outside)} points lie outside the {size[1]}x{size[0]} pixels of the image"
            raise BadInput(Problem(f"{self.where}, {image_id}", found, "take the points of this very image"))
        return draw(dots, size)


def checked(
    label_HW: NDArray[np.uint8], where: str, size: tuple[int, int], kind: str, num_labels: int
) -> NDArray[np.uint8]:
    """Sparse labels of a file with AGMM's value for unlabelled turned into 255.

    Raises BadInput for another size than the image's, labels above the classes, and more labelled pixels than the
    kind can have. No labelled pixel is no fault of one file: the field's sets have such images.
    """
    if label_HW.shape != size:
        found = f"labels of {label_HW.shape[1]}x{label_HW.shape[0]} pixels, image of {size[1]}x{size[0]}"
        raise BadInput(Problem(where, found, "make both the same size"))
    counts = np.bincount(label_HW.ravel(), minlength=256)
    illegal = [int(v) for v in np.flatnonzero(counts) if num_labels < v < IGNORE]
    if illegal:
        found = f"label {some_of(map(str, illegal))}, but there are {num_labels} classes"
        raise BadInput(Problem(where, found, f"labels are 0..{num_labels - 1}; unlabelled is 255 or {num_labels}"))
    number = CLICKS.fullmatch(kind)
    labelled, most = int(counts[:num_labels].sum()), MOST["clicks" if number else kind]
    # Of a tiny image even the clicks that were asked for are a large share.
    if labelled > max(most * label_HW.size, int(number[1]) if number else 0):
        share = f"{100 * labelled / label_HW.size:.0f} %"
        found = f"{share} of the pixels are labelled, {kind} label {100 * most:.0f} % at most"
        fix = "write 255 where nothing is labelled (0 is a label, not nothing); full masks are labels=masks"
        raise BadInput(Problem(where, found, fix))
    return np.where(label_HW == num_labels, np.uint8(IGNORE), label_HW)


def key_of(stem: str) -> str:
    """The image id in a file name: slashes were written as ~, and the field's ends are cut."""
    for tail in TAILS:
        stem = stem.removesuffix(tail)
    return stem


def stem_of(image_id: str) -> str:
    """The id as a file name without its suffix."""
    return key_of(image_id.replace("/", "~"))


def _inside(dot: Stroke, size: tuple[int, int]) -> bool:
    return all(0 <= x < size[1] and 0 <= y < size[0] for x, y in dot.points)
