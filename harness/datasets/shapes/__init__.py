"""`shapes`: the embedded procedural dataset. Any picture, mask or weak label is made from three integers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.datasets.shapes.objects import CLASSES
from harness.datasets.shapes.scene import SIDE, generator, render
from harness.datasets.weak import strokes
from harness.datasets.weak.curves import curve
from harness.datasets.weak.derive import check_derivable
from harness.datasets.weak.deriving import DerivingDataset
from harness.datasets.weak.scribbling import WHOLE, Scribbling
from harness.errors import BadInput, Problem, nearest

GENERATOR_VERSION = 1
"""Raised when any picture, mask or weak label changes: it belongs into every fingerprint."""
SPLIT_NUMBERS = {"train": 0, "test": 1, "val": 2}
_WEAK_STREAM, _CLICK_STREAM, _TAG_STREAM = 7, 8, 9
_CACHED = 4096

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """Sizes and noise of the dataset; `data.<field>=...` on the command line."""

    n_train: int = 1000
    n_val: int = 200
    n_test: int = 400
    seed: int = 0
    """Dataset seed; other seeds give other pictures of the same distribution."""
    point_jitter: float = 0.0
    """Standard deviation in pixels by which points miss the place that they name."""
    tag_noise: float = 0.0
    """On train only: chance that each tag is missed (one stays), and that an image gets one absent class."""


def parse_options(options: Mapping[str, str]) -> Options:
    """Typed options from text. Raises BadInput with every unknown name and every bad value."""
    problems, values = [], {}
    types = {name: type(default) for name, default in vars(Options()).items()}
    for name, text in options.items():
        where = f"data.{name}"
        if name not in types:
            problems.append(Problem(where, "no such option of shapes", nearest(name, types)))
            continue
        try:
            value = types[name](text)
        except ValueError:
            kind = "a whole number" if types[name] is int else "a number"
            problems.append(Problem(where, f"{text!r} is not {kind}", f"for example {where}=1"))
            continue
        low, high = (1 if name == "n_train" else 0), {"tag_noise": 1.0, "point_jitter": SIDE}.get(name, 10**6)
        if not low <= value <= high:
            problems.append(Problem(where, f"{text} is outside [{low}, {high}]", "choose a value within"))
        values[name] = value
    if problems:
        raise BadInput(problems)
    return Options(**values)


@lru_cache(maxsize=_CACHED)
def _pictures(seed: int, split: int, index: int) -> tuple[Array, Array, Array]:
    """(image, mask, instances); kept in memory for the life of the process."""
    scene = render(seed, split, index)
    return scene.image_HW3, scene.mask_HW, scene.instance_HW


@lru_cache(maxsize=_CACHED)
def _sparse(seed: int, split: int, index: int, kind: str, jitter: float, how: Scribbling = WHOLE) -> Array:
    _, mask, instances = _pictures(seed, split, index)
    if kind.startswith("clicks"):
        return strokes.clicks(mask, int(kind[6:]), generator(seed, split, index, _CLICK_STREAM))
    rng = generator(seed, split, index, _WEAK_STREAM, ("points", "scribbles", "blocks").index(kind))
    if kind == "blocks":
        return strokes.blocks(mask, strokes.BLOCK_SHARE, rng)
    if kind == "points":
        return strokes.points(mask, strokes.numbered(mask, instances), rng, jitter=jitter)
    drawn = strokes.numbered(mask, instances)
    return strokes.scribbles(mask, drawn, rng, length=how.length, curve=curve if how.style == "curve" else None)


class Shapes(DerivingDataset):
    """Pictures of 96x96 pixels with eight classes, their masks and weak labels, rendered when asked for.

    Ids read `train/000012`: split and picture number. Picture i is the same whatever the size of its split.
    """

    name = "shapes"
    family = "shapes"
    class_names = ("background", *CLASSES)
    has_background = True

    def __init__(self, options: Options | None = None):
        self.options = options or Options()
        sizes = {"train": self.options.n_train, "val": self.options.n_val, "test": self.options.n_test}
        self._sizes = {split: n for split, n in sizes.items() if n}

    def splits(self) -> dict[str, bool]:
        return dict.fromkeys(self._sizes, True)

    def ids(self, split: str) -> tuple[str, ...]:
        if split not in self._sizes:
            raise BadInput(Problem("split", f"shapes has no split {split!r}", nearest(split, self._sizes)))
        return tuple(f"{split}/{i:06d}" for i in range(self._sizes[split]))

    def _address(self, image_id: str) -> tuple[int, int, int]:
        """(dataset seed, split number, index). Raises BadInput for an id that is not in the dataset."""
        split, _, number = image_id.partition("/")
        known = split in self._sizes and re.fullmatch(r"\d{6,}", number)
        if not known or int(number) >= self._sizes[split]:
            sizes = ", ".join(f"{name}/000000 to {name}/{n - 1:06d}" for name, n in self._sizes.items())
            raise BadInput(Problem("image", f"shapes has no image {image_id!r}", f"known: {sizes}"))
        return self.options.seed, SPLIT_NUMBERS[split], int(number)

    def image(self, image_id: str) -> Array:
        return _pictures(*self._address(image_id))[0].copy()

    def mask(self, image_id: str) -> Array:
        return _pictures(*self._address(image_id))[1].copy()

    def tags(self, image_id: str) -> NDArray[np.float32]:
        tags = super().tags(image_id)
        chance = self.options.tag_noise
        if not chance or not image_id.startswith("train/"):
            return tags
        rng = generator(*self._address(image_id), _TAG_STREAM)
        present, absent = np.flatnonzero(tags), np.flatnonzero(tags == 0)
        kept = rng.choice(present)
        missed = rng.random(len(present)) < chance
        tags[present[missed & (present != kept)]] = 0.0
        if rng.random() < chance and len(absent):
            tags[rng.choice(absent)] = 1.0
        return tags

    def weak(self, image_id: str, kind: str) -> Array:
        if kind == "masks":
            return self.mask(image_id)
        check_derivable(kind)
        how = self.scribbling if kind == "scribbles" else WHOLE
        return _sparse(*self._address(image_id), kind, self.options.point_jitter, how).copy()

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        for image_id in ids:
            self._address(image_id)
        o = self.options
        made_of = ["shapes", GENERATOR_VERSION, o.seed, o.point_jitter, o.tag_noise, ids]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def image_fingerprint(self, ids: tuple[str, ...]) -> str:
        return ""  # as those of the masks, their pixels come from the generator, whose version is in the fingerprint

    def derived(self, image_id: str, kind: str, seed: int = 0) -> Array:
        if seed:
            raise BadInput(Problem("seed", "labels of shapes follow its own seed", f"data.seed={seed}"))
        return self.weak(image_id, kind)

    def weak_fingerprint(self, ids: tuple[str, ...], kind: str) -> str:
        check_derivable(kind)
        # They come from the generator, whose version is in the fingerprint.
        return self.scribbling.text if kind == "scribbles" else ""

    def size(self, image_id: str) -> tuple[int, int]:
        self._address(image_id)
        return SIDE, SIDE


def open(
    *,
    root: str | None = None,
    masks: str | None = None,
    classes: str | None = None,
    n_train: str | None = None,
    n_val: str | None = None,
    n_test: str | None = None,
    seed: str | None = None,
    point_jitter: str | None = None,
    tag_noise: str | None = None,
) -> Shapes:
    """The dataset with these options as text (fields of `Options`); None leaves the default.

    Raises BadInput for bad values, and for words that name files: nothing of it lies on disk.
    """
    given = {"data.root": root, "data.masks": masks, "data.classes": classes}
    options = {
        "n_train": n_train,
        "n_val": n_val,
        "n_test": n_test,
        "seed": seed,
        "point_jitter": point_jitter,
        "tag_noise": tag_noise,
    }
    problems = [
        Problem(word, "shapes is made in memory and reads no files", f"leave {word} out")
        for word, value in given.items()
        if value is not None
    ]
    try:
        parsed = parse_options({name: text for name, text in options.items() if text is not None})
    except BadInput as error:
        raise BadInput(problems + error.problems) from None
    if problems:
        raise BadInput(problems)
    return Shapes(parsed)


__all__ = ["GENERATOR_VERSION", "IGNORE", "Options", "Shapes", "open", "parse_options"]
