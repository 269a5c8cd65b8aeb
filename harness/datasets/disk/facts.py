"""What is known of an image or a mask without keeping its pixels, remembered while the file stays as it is.

Remembered by the process, and for large datasets in a file of the user's cache folder, so that only the first plan
reads every pixel.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.api.classes import Choice
from harness.datasets.io.images import read_index, verify_image
from harness.datasets.io.opening import Stamp, stat_of
from harness.datasets.io.palettes import Colours, colours_of
from harness.errors import BadInput
from harness.files import file_digest, write_json

F = TypeVar("F", bound="ImageFacts | MaskFacts")
FORMAT = 4
"""Raised when what is remembered, or how it is found, changes."""


@dataclass(frozen=True)
class ImageFacts:
    """(H,W) of the stored pixels, digest of what they are decoded from, and the EXIF orientation (1 = as stored)."""

    size: tuple[int, int]
    digest: str
    orientation: int = 1


@dataclass(frozen=True)
class MaskFacts:
    """(H,W), label values that occur (255 included), pixels of each, digest of size and pixels."""

    size: tuple[int, int]
    labels: tuple[int, ...]
    pixels: tuple[int, ...]
    digest: str
    colours: Colours = ()
    """Palette colour of each label that occurs; () for grey masks."""


def image_facts(path: str | Path) -> ImageFacts:
    """Facts of an image whose bytes decode to the last one. Raises BadInput as `read_image` does."""

    def read() -> ImageFacts:
        size, orientation = verify_image(path)
        # Of the file: the pixels of a JPEG differ by a hair from decoder to decoder, and machines share keys.
        return ImageFacts(size, file_digest(Path(path)), orientation)

    return remembered(path, "", ImageFacts, read)


def mask_facts(path: str | Path) -> MaskFacts:
    """Facts of an index PNG. Raises BadInput as `read_mask` does."""

    def read() -> MaskFacts:
        mask_HW, palette = read_index(path)
        return facts_of(mask_HW, palette)

    return remembered(path, "", MaskFacts, read)


def facts_of(mask_HW: NDArray[np.uint8], palette: bytes = b"") -> MaskFacts:
    """Facts of a mask in memory; `palette` holds three bytes a label."""
    pixels_HW = np.ascontiguousarray(mask_HW)
    counts = Image.fromarray(pixels_HW).histogram()
    labels = [label for label in range(256) if counts[label]]
    size = (int(mask_HW.shape[0]), int(mask_HW.shape[1]))
    digest = hashlib.sha256(f"{size[0]}x{size[1]}:".encode())
    digest.update(pixels_HW.data)
    return MaskFacts(
        size,
        tuple(labels),
        tuple(counts[label] for label in labels),
        digest.hexdigest(),
        colours_of(labels, palette),
    )


def chosen(mask: MaskFacts, choice: Choice) -> MaskFacts:
    """Facts of a mask once its labels are those of a choice; the digest stays that of the file."""
    found: dict[int, tuple[int, tuple[int, int, int] | None]] = {}
    for at, label in enumerate(mask.labels):
        new = int(choice.table[label])
        pixels, colour = found.get(new, (0, mask.colours[at] if mask.colours else None))
        found[new] = (pixels + mask.pixels[at], colour)
    labels = tuple(sorted(found))
    colours = tuple(c for label in labels if (c := found[label][1]) is not None)
    return MaskFacts(mask.size, labels, tuple(found[label][0] for label in labels), mask.digest, colours)


def remembered(path: str | Path, part: str, kind: type[F], read: Callable[[], F]) -> F:
    """What `read` finds in a file, or in a part of it, called once while the file's times and size stay."""
    name, stamp = str(path), stat_of(path)
    known = _known.get((name, part))
    if known is not None and known[0] == stamp and isinstance(known[1], kind):
        return known[1]
    found = read()
    _known[name, part] = (stamp, found)
    return found


def known(path: str | Path, part: str, kind: type[F]) -> F | None:
    """What is remembered of a file as it is now; None where it was never read or has changed."""
    found = _known.get((str(path), part))
    if found is None or not isinstance(found[1], kind):
        return None
    try:
        return found[1] if found[0] == stat_of(path) else None
    except BadInput:
        return None


def remember(path: str | Path, part: str, facts: ImageFacts | MaskFacts) -> None:
    """Keep what another process found in a file."""
    if known(path, part, type(facts)) is None:
        _known[str(path), part] = (stat_of(path), facts)


def forget(root: Path) -> None:
    """Drop what is remembered of the files below a folder, so that this process reads them again."""
    _loaded.add(str(root))
    below = f"{root}{os.sep}"
    for key in [key for key in _known if key[0].startswith(below)]:
        del _known[key]


def cache_folder() -> Path:
    """Where facts of large datasets are kept: `$WSSS_CACHE`, else `wsss-harness` in the user's cache folder."""
    given = os.environ.get("WSSS_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsss-harness"


def load(root: Path) -> int:
    """Take in, once, what earlier processes kept of a dataset; returns how many facts. A spoilt file counts as none."""
    if str(root) in _loaded:
        return 0
    _loaded.add(str(root))
    try:
        rows = json.loads(_kept(root).read_text(encoding="utf-8"))
        if rows["format"] != FORMAT or rows["root"] != str(root):
            return 0
        facts = {}
        for kind, make in (("images", _image_of), ("masks", _mask_of)):
            for name, part, content, inode, size, *values in rows[kind]:
                facts[str(root / name), str(part)] = ((int(content), int(inode), int(size)), make(values))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        return 0
    for key, value in facts.items():
        _known.setdefault(key, value)
    return len(facts)


def save(root: Path) -> Path | None:
    """Keep what is remembered of the files below a folder for later processes; None where that cannot be written."""
    below = f"{root}{os.sep}"
    rows: dict[str, Any] = {"format": FORMAT, "root": str(root), "images": [], "masks": []}
    for (name, part), (stamp, facts) in _known.items():
        if name.startswith(below):
            kind = "images" if isinstance(facts, ImageFacts) else "masks"
            rows[kind].append([name[len(below) :], part, *stamp, *astuple(facts)])
    target = _kept(root)
    try:
        write_json(target, rows)
    except OSError:
        return None
    return target


def _kept(root: Path) -> Path:
    return cache_folder() / f"facts-{hashlib.sha256(str(root).encode()).hexdigest()[:20]}.json"


def _image_of(values: list[Any]) -> ImageFacts:
    (height, width), digest, orientation = values
    return ImageFacts((int(height), int(width)), str(digest), int(orientation))


def _mask_of(values: list[Any]) -> MaskFacts:
    (height, width), labels, pixels, digest, colours = values
    return MaskFacts(
        (int(height), int(width)),
        tuple(map(int, labels)),
        tuple(map(int, pixels)),
        str(digest),
        tuple((int(r), int(g), int(b)) for r, g, b in colours),
    )


_loaded: set[str] = set()
_known: dict[tuple[str, str], tuple[Stamp, ImageFacts | MaskFacts]] = {}
