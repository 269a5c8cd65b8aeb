"""The folder that `harness.predict` writes: masks that say how they were made, overlays, scores, and what they hold.

A mask is written last of an image's files and carries, as text of the PNG, a digest of all that decided it: so a folder
is resumed image by image, and nothing that other words made is taken for ours.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from harness.datasets.io.colours import COLOURS, PALETTE
from harness.datasets.io.opening import stat_of
from harness.errors import BadInput, HarnessError, Problem
from harness.files import digest_of, plain_words, write_bytes, write_json
from harness.prediction.photos import Labels, Photo
from harness.prediction.predictor import Predicted

MASKS, OVERLAYS, SCORES = "masks", "overlays", "scores"
SERVER = "server"
"""Folder of what servers take (`layouts`)."""
MANIFEST, CLASSES, LEGEND = "made_by.json", "classes.txt", "legend.png"
MARK = "wsss-harness"
"""Name of the PNG's text."""
SWATCH = 18


@dataclass(frozen=True)
class Manifest:
    """A folder of results, and what its file says they were made by."""

    folder: Path
    identity: Mapping[str, Any]
    """All that decides the results but the image and its tags, in words that a reader knows."""
    parts: tuple[str, ...]
    """Names in the folder that are removed where other words made them."""

    def check(self, again: bool) -> None:
        """Raises BadInput where the folder holds what other words made, naming what differs, unless `again` has it made
        anew; and for a folder with files of somebody else."""
        found = self._found()
        if found is None and self.folder.is_dir() and any(self.folder.iterdir()):
            what = f"{self.folder} holds files that are none of this command's"
            raise BadInput(Problem("out", what, "name another folder, or an empty one"))
        differs = [] if found is None or again else _differences(found, dict(self.identity))
        if differs:
            what = f"{self.folder} holds masks of other words: {'; '.join(differs)}"
            raise BadInput(Problem("out", what, "name another folder, or again=true to make all of them anew"))

    def begin(self, files: Mapping[str, bytes]) -> None:
        """Make the folder with these files; what other words made is removed. Raises BadInput where it cannot be
        written."""
        try:
            if self._found() not in (None, dict(self.identity)):
                for name in self.parts:
                    shutil.rmtree(self.folder / name, ignore_errors=True)
            write_json(self.folder / MANIFEST, dict(self.identity))
            for name, content in files.items():
                write_bytes(self.folder / name, content)
        except OSError as error:
            fix = "name a folder that can be written with out=<folder>"
            raise BadInput(Problem("out", f"cannot write to {self.folder}: {plain_words(error)}", fix)) from error

    def _found(self) -> dict[str, Any] | None:
        """What an earlier call said of the masks here; None where there was none. A damaged one differs in all."""
        try:
            found = json.loads((self.folder / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Outputs:
    """What is written of each image, and where."""

    folder: Path
    identity: Mapping[str, Any]
    """Of its `Manifest`."""
    labels: Labels
    overlays: bool
    scores: bool

    @property
    def manifest(self) -> Manifest:
        """What its folder says of it."""
        return Manifest(self.folder, self.identity, (MASKS, OVERLAYS, SCORES, SERVER))

    def begin(self) -> None:
        """Make the folder, with names and colours of the labels. Raises BadInput as `Manifest.begin`."""
        names = names_file(self.labels.class_names)
        self.manifest.begin({CLASSES: names, LEGEND: encoded(legend(self.labels.class_names))})

    def mask(self, image_id: str) -> Path:
        """The file of an image's mask."""
        return self.folder / MASKS / f"{image_id}.png"

    def mark(self, photo: Photo, tags_C: NDArray[np.float32] | None) -> str:
        """Digest of all that decides a photo's mask. Raises BadInput where there is no such photo."""
        known = None if tags_C is None else tags_C.tolist()
        return digest_of([dict(self.identity), stat_of(photo.path), known])

    def done(self, image_id: str, mark: str) -> bool:
        """Whether all files of an image are there, made as they would be now."""
        others = [self._overlay(image_id)] * self.overlays + [self._scores(image_id)] * self.scores
        if not all(path.is_file() for path in others):
            return False
        return marked(self.mask(image_id), mark)

    def write(self, image_id: str, image_HW3: NDArray[np.uint8], predicted: Predicted, mark: str) -> None:
        """Write an image's files, each whole or not at all. Raises HarnessError where the disk is full."""
        try:
            if self.overlays:
                picture = overlay(image_HW3, predicted.labels_HW, self.labels.has_background)
                write_bytes(self._overlay(image_id), encoded(picture, "JPEG"), sync=False)
            if self.scores:
                buffer = io.BytesIO()
                np.savez_compressed(buffer, allow_pickle=False, **predicted.scores)
                write_bytes(self._scores(image_id), buffer.getvalue(), sync=False)
            write_bytes(self.mask(image_id), encoded(predicted.labels_HW, texts={MARK: mark}), sync=False)
        except OSError as error:
            what = f"the files of {image_id} could not be written: {plain_words(error)}"
            raise HarnessError(f"{what}; free space and run the same command again, it goes on from here") from error

    def _overlay(self, image_id: str) -> Path:
        return self.folder / OVERLAYS / f"{image_id}.jpg"

    def _scores(self, image_id: str) -> Path:
        return self.folder / SCORES / f"{image_id}.npz"


def marked(path: Path, mark: str) -> bool:
    """Whether a mask is there that says that it was made so."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(MARK) == mark
    except (OSError, SyntaxError):
        return False


def names_file(class_names: tuple[str, ...]) -> bytes:
    """A file of class names as `data.classes=` reads it: one a line, label 0 first."""
    return "".join(f"{name}\n" for name in class_names).encode()


def overlay(image_HW3: NDArray[np.uint8], labels_HW: NDArray[np.uint8], has_background: bool) -> NDArray[np.uint8]:
    """A photo under its labels' colours, half of each, borders between labels in full colour; background as it is."""
    coloured = PALETTE[labels_HW]
    border = ndimage.grey_dilation(labels_HW, (3, 3)) != ndimage.grey_erosion(labels_HW, (3, 3))
    # In place and in 16 bits: a large photo is not held several times in floating point.
    mixed = image_HW3.astype(np.uint16)
    mixed += coloured
    mixed //= 2
    shown = mixed.astype(np.uint8)
    shown[border] = coloured[border]
    if has_background:
        shown[labels_HW == 0] = image_HW3[labels_HW == 0]
    return shown


def legend(class_names: tuple[str, ...]) -> NDArray[np.uint8]:
    """A picture (h,w,3) of every label's colour, number and name."""
    lines = [f"{n} {name}" for n, name in enumerate(class_names)]
    canvas = Image.new("RGB", (8 * max(map(len, lines)) + 2 * SWATCH + 12, SWATCH * len(lines) + 8), "white")
    draw = ImageDraw.Draw(canvas)
    for n, line in enumerate(lines):
        top = 4 + SWATCH * n
        draw.rectangle((4, top, 4 + 2 * SWATCH - 8, top + SWATCH - 4), fill=tuple(COLOURS[n]), outline="black")
        draw.text((2 * SWATCH + 4, top + 1), line, "black")
    return np.asarray(canvas)


def encoded(
    pixels: NDArray[np.uint8], kind: str = "PNG", *, palette: bool = True, texts: Mapping[str, str] | None = None
) -> bytes:
    """The file of a picture (H,W,3) or of labels (H,W), with VOC's `palette` or grey; `texts` are those of a PNG."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.ndim == 2 and palette:
        image.putpalette(PALETTE.tobytes())
    info = PngInfo()
    for name, text in (texts or {}).items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"pnginfo": info} if kind == "PNG" else {"quality": 90}))
    return buffer.getvalue()


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two calls do not agree in, in words."""
    names = [name for name in dict.fromkeys([*now, *then]) if then.get(name) != now.get(name)]
    return [f"{name} was {_shown(then.get(name))}, is {_shown(now.get(name))}" for name in names]


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value}"[:60]
