"""COCO annotations to a label map. Nothing from the file reaches C code before its sizes are checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE

MAX_SIDE = 16384
"""Pixels; more is no photo."""


class Unreadable(ValueError):
    """What is wrong with one annotation, in words."""


class NoOutline(Unreadable):
    """An annotation whose outline covers no pixel: there is none, or it has fewer than three corners."""


def label_map(
    height: int, width: int, annotations: Sequence[Mapping[str, Any]], class_of: Mapping[int, int], known: str
) -> NDArray[np.uint8]:
    """Labels (H,W) of an image: 0 background, classes by `class_of` the category id, 255 where only a crowd lies.

    `known` says in words which categories there are. Where objects overlap the smaller one (by its `area`) lies on
    top, of equal ones the first. An object without an outline is not drawn; its box is 255 where no other object lies,
    as nobody knows its pixels. Raises Unreadable.
    """
    out = np.zeros((height, width), np.uint8)
    objects = []
    for place, annotation in enumerate(annotations):
        label = class_of.get(whole(annotation.get("category_id")))
        if label is None:
            raise Unreadable(f"category_id {annotation.get('category_id')!r} is none of {known}")
        try:
            pixels = decode(annotation.get("segmentation"), height, width)
        except NoOutline:
            out[_box(annotation.get("bbox"), height, width)] = IGNORE
            continue
        if annotation.get("iscrowd"):
            out[pixels] = IGNORE
        else:
            area = annotation.get("area")
            size = float(area) if _is_number(area) else float(pixels.sum())
            objects.append((size, place, label, pixels))
    for _, _, label, pixels in sorted(objects, key=lambda o: o[:2], reverse=True):
        out[pixels] = label
    return out


def incomplete(annotation: Mapping[str, Any]) -> str | None:
    """What of an annotation covers no pixel, in words: all of its outline, or single polygons beside good ones."""
    outline = annotation.get("segmentation")
    if not outline:
        return "no outline"
    degenerate = isinstance(outline, list) and any(map(_degenerate, outline))
    return "a polygon of fewer than three corners" if degenerate else None


def decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Pixels (H,W) of a segmentation: polygons, run lengths, or COCO's text form of them.

    Polygons of fewer than three corners cover nothing and are skipped. Raises Unreadable, and NoOutline where nothing
    is left.
    """
    if segmentation is None:
        raise NoOutline("no segmentation")
    if isinstance(segmentation, list):
        return _polygons(segmentation, height, width)
    if not isinstance(segmentation, Mapping):
        raise Unreadable(f"segmentation is {type(segmentation).__name__}, polygons or run lengths expected")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise Unreadable(f"run lengths for size {size}, the image has [{height}, {width}]")
    if isinstance(counts, str):
        counts = run_lengths(counts)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise Unreadable("run lengths that are no list of counts")
    if sum(counts) != height * width:
        raise Unreadable(f"run lengths cover {sum(counts)} pixels, the image has {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, np.asarray(counts, np.int64)).reshape(width, height).T


def run_lengths(text: str) -> list[int]:
    """Counts of COCO's text form. Raises Unreadable.

    Five bits a letter from '0' on, the sixth says that more follow; from the fourth count on differences to the one
    before last.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 50:
            raise Unreadable("run lengths in no text form of COCO")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise Unreadable("run lengths that are cut off")
    return counts


def _polygons(polygons: list[Any], height: int, width: int) -> NDArray[np.bool_]:
    from pycocotools import mask as coco

    polygons = [polygon for polygon in polygons if not _degenerate(polygon)]
    if not polygons:
        raise NoOutline("no polygon")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise Unreadable("a polygon that is no list of at least three x, y pairs")
        if not all(map(_is_number, polygon)):
            raise Unreadable("a polygon whose coordinates are not all numbers")
        xs, ys = polygon[::2], polygon[1::2]
        if min(xs) < -width or max(xs) > 2 * width or min(ys) < -height or max(ys) > 2 * height:
            raise Unreadable(f"a polygon far outside the image of {width}x{height} pixels")
    merged = coco.merge(coco.frPyObjects([[float(v) for v in polygon] for polygon in polygons], height, width))
    return np.asarray(coco.decode(merged), np.bool_)


def _degenerate(polygon: Any) -> bool:
    """Whether this is a list of at most two x, y pairs, as annotation tools write for a click or a line."""
    return isinstance(polygon, list) and len(polygon) in (0, 2, 4) and all(map(_is_number, polygon))


def _box(box: Any, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box [x, y, width, height] inside the image; none where there is no sound box."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return slice(0), slice(0)
    x, y, w, h = box
    rows = slice(max(0, math.floor(y)), max(0, min(height, math.ceil(y + h))))
    return rows, slice(max(0, math.floor(x)), max(0, min(width, math.ceil(x + w))))


def _is_number(value: Any) -> TypeGuard[float]:
    # Python's whole numbers can be too large for math.isfinite.
    return isinstance(value, (int, float)) and -1e15 < value < 1e15


def whole(value: Any) -> int:
    """A whole number from a file, 3.0 (as pandas writes it) too; -1 for anything else, True and False included."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
