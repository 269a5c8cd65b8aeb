"""Sparse labels that lie beside a dataset: found under the names that the field uses, read, checked, digested.

255 = unlabelled. AGMM writes the number of classes for that (21 for VOC, 19 for Cityscapes); both are read as 255, and
what is padding is told by the content mask alone (agmm.md 7).
"""

from __future__ import annotations

import hashlib
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.images import attempt, merged, read_mask, some_of
from harness.datasets.labels import IGNORE
from harness.datasets.listing import files_of
from harness.datasets.weak import CLICKS
from harness.datasets.weak.drawn import MAX_XML_BYTES, Stroke, draw, parse_scribbles, read_points
from harness.errors import BadInput, Problem

FOLDERS: dict[str, tuple[str, ...]] = {
    "points": ("point/segcls", "point", "points"),
    "scribbles": ("scribble/seginst", "scribble", "scribbles", "Scribble", "pascal_2012", "scribble_annotation"),
    "blocks": ("block", "blocks", "sparse_label/block10"),
}
"""Folders below a dataset's root, in order; clicks lie in `20clicks`, `random_20clicks` or `clicks20`."""
POINT_FILES = ("voc_whats_the_point.json", "voc_whats_the_point_bg_from_scribbles.json")
SCRIBBLE_ZIP = "voc_scribbles.zip"
TAILS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_leftImg8bit")
"""Ends of file names that are not part of an image id (agmm.md 7)."""


def folders(kind: str) -> tuple[str, ...]:
    """Where label files of a kind may lie below the root, ours first."""
    number = CLICKS.fullmatch(kind)
    named = (f"{number[1]}clicks", f"random_{number[1]}clicks", kind) if number else FOLDERS.get(kind, (kind,))
    return (f"weak/{kind}", *named)


class WeakFiles(ABC):
    """Label files of one kind: which images they cover, and their pixels."""

    where: str
    """File or folder, for messages."""

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)

    @abstractmethod
    def covers(self, image_id: str) -> bool:
        """Whether an image has labels here."""

    @abstractmethod
    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Labels (H,W), 255 = unlabelled, of an image of that size. Raises BadInput naming the file."""

    def absent(self, ids: Iterable[str]) -> list[Problem]:
        """A problem where some of these images have no labels."""
        names = [image_id for image_id in ids if not self.covers(image_id)]
        if not names:
            return []
        fix = "add them, take the ids out of train.txt, or move the folder away to have labels derived from masks"
        return [Problem(self.where, f"no labels for {len(names)} images: {some_of(names)}", fix)]

    def check(self, ids: Iterable[str], size: Callable[[str], tuple[int, int]]) -> str:
        """Digest of these images' labels, read in threads. Raises BadInput with every missing and wrong one."""
        ids = list(ids)
        problems = self.absent(ids)
        digest = hashlib.sha256()
        here = [image_id for image_id in ids if self.covers(image_id)]
        for image_id, found in attempt(lambda i: self.read(i, size(i)), here):
            if isinstance(found, np.ndarray):
                digest.update(f"{image_id!r} {found.shape}".encode())
                digest.update(found.tobytes())
            else:
                problems += found
        if problems:
            raise BadInput(merged(problems))
        return digest.hexdigest()


class PngLabels(WeakFiles):
    """Index PNGs, one an image."""

    def __init__(self, folder: Path, files: dict[str, str], class_names: Sequence[str]):
        super().__init__(class_names)
        self.where, self.folder, self.files = str(folder), folder, files

    def covers(self, image_id: str) -> bool:
        return _stem(image_id) in self.files

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        path = self.folder / self.files[_stem(image_id)]
        return checked(read_mask(path), str(path), size, len(self.class_names))


class XmlScribbles(WeakFiles):
    """ScribbleSup's XML files, one an image, in a folder or a zip archive."""

    def __init__(self, source: Path, files: dict[str, str], class_names: Sequence[str]):
        super().__init__(class_names)
        self.where, self.source, self.files = str(source), source, files

    def covers(self, image_id: str) -> bool:
        return image_id in self.files

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        name = self.files[image_id]
        where = str(self.source / name)
        strokes = parse_scribbles(self._bytes(name, where), where, self.class_names, size)
        return checked(draw(strokes, size), where, size, len(self.class_names))

    def _bytes(self, name: str, where: str) -> bytes:
        try:
            if self.source.is_dir():
                return (self.source / name).read_bytes()
            with zipfile.ZipFile(self.source) as archive, archive.open(name) as file:
                return file.read(MAX_XML_BYTES + 1)
        # Damaged archives raise almost any class; all mean the same here.
        except Exception as error:
            raise BadInput(Problem(where, f"cannot be read ({error})", "download the annotations again")) from error


class JsonPoints(WeakFiles):
    """Point annotations of all images in one or two JSON files."""

    def __init__(self, paths: Sequence[Path], class_names: Sequence[str]):
        super().__init__(class_names)
        self.where = str(paths[0])
        self.dots: dict[str, list[Stroke]] = {}
        for path in paths:
            for image_id, dots in read_points(path, len(class_names)).items():
                self.dots.setdefault(image_id, []).extend(dots)

    def covers(self, image_id: str) -> bool:
        return image_id in self.dots

    def read(self, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        outside = [dot for dot in self.dots[image_id] if not _inside(dot, size)]
        if outside:
            found = f"{len(outside)} points of {image_id} lie outside its {size[1]}x{size[0]} pixels"
            raise BadInput(Problem(self.where, found, "take the points of this very image"))
        return draw(self.dots[image_id], size)


def find(root: Path, kind: str, class_names: Sequence[str]) -> WeakFiles | None:
    """The label files of a kind below `root`, or None where there are none.

    Raises BadInput where a folder of that name cannot be used.
    """
    for name in folders(kind):
        folder = root / name
        if folder.is_dir():
            found = _in_folder(folder, class_names)
            if found is not None:
                return found
    if kind == "points":
        paths = [root / name for name in POINT_FILES if (root / name).is_file()]
        return JsonPoints(paths, class_names) if paths else None
    if kind == "scribbles" and (root / SCRIBBLE_ZIP).is_file():
        return XmlScribbles(root / SCRIBBLE_ZIP, _in_zip(root / SCRIBBLE_ZIP), class_names)
    return None


def checked(label_HW: NDArray[np.uint8], where: str, size: tuple[int, int], num_labels: int) -> NDArray[np.uint8]:
    """Sparse labels of a file with AGMM's value for unlabelled turned into 255.

    Raises BadInput for another size than the image's, labels above the classes, and files without an unlabelled or
    without a labelled pixel.
    """
    if label_HW.shape != size:
        found = f"labels of {label_HW.shape[1]}x{label_HW.shape[0]} pixels, image of {size[1]}x{size[0]}"
        raise BadInput(Problem(where, found, "make both the same size"))
    values = np.flatnonzero(np.bincount(label_HW.ravel(), minlength=256))
    illegal = [int(v) for v in values if num_labels < v < IGNORE]
    if illegal:
        found = f"label {some_of(map(str, illegal))}, but there are {num_labels} classes"
        raise BadInput(Problem(where, found, f"labels are 0..{num_labels - 1}; unlabelled is 255 or {num_labels}"))
    if values.max() < num_labels:
        found = "every pixel is labelled: no sparse labels"
        raise BadInput(Problem(where, found, "write 255 where nothing is labelled (0 is a class), or labels=masks"))
    if values.min() >= num_labels:
        raise BadInput(Problem(where, "no pixel is labelled", "take the id out of train.txt"))
    return np.where(label_HW == num_labels, np.uint8(IGNORE), label_HW)


def _in_folder(folder: Path, class_names: Sequence[str]) -> WeakFiles | None:
    problems: list[Problem] = []
    for suffix, kind in ((".png", PngLabels), (".xml", XmlScribbles)):
        files = files_of(folder, (suffix,), problems, "allow reading it", _key)
        if problems:
            raise BadInput(problems)
        if files:
            return kind(folder, files, class_names)
    return None


def _in_zip(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:
        raise BadInput(Problem(str(path), f"no zip archive ({error})", "download the annotations again")) from error
    return {Path(name).stem: name for name in names if name.endswith(".xml")}


def _key(stem: str) -> str:
    """The image id in a file name: slashes were written as ~, and the field's ends are cut."""
    for tail in TAILS:
        stem = stem.removesuffix(tail)
    return stem


def _stem(image_id: str) -> str:
    """The id as a file name; of ids in folders, as Cityscapes has them, also the last part is one."""
    return _key(image_id.replace("/", "~"))


def _inside(dot: Stroke, size: tuple[int, int]) -> bool:
    return all(0 <= x < size[1] and 0 <= y < size[0] for x, y in dot.points)
