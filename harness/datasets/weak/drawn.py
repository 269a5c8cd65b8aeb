"""Sparse labels that are kept as coordinates: ScribbleSup's XML and the point JSON of VOC, drawn as the field does.

Axes: H W pixels. Coordinates are (x,y) in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from harness.api.vocabulary import IGNORE
from harness.datasets.io.opening import plain_bytes
from harness.errors import BadInput, Problem, nearest

STROKE = 3
"""Width of lines and diameter of dots, as TEL and GatedCRF rasterise (agmm.md 7)."""
MAX_XML_BYTES = 8 << 20
MAX_JSON_BYTES = 256 << 20
OTHER_NAMES = {
    "plane": "aeroplane",
    "bike": "bicycle",
    "table": "diningtable",
    "plant": "pottedplant",
    "monitor": "tvmonitor",
    "tv": "tvmonitor",
    "motorcycle": "motorbike",
}
"""Names of VOC's classes in ScribbleSup's files, where they differ (agmm.md 7)."""
_AGAIN = "download the annotations again"


@dataclass(frozen=True)
class Stroke:
    """A labelled line of at least one point."""

    label: int
    points: tuple[tuple[float, float], ...]


def draw(strokes: Sequence[Stroke], size: tuple[int, int], width: int = STROKE) -> NDArray[np.uint8]:
    """Label map (H,W), 255 = unlabelled: lines `width` pixels wide with discs at their points, later ones on top."""
    image = Image.new("L", (size[1], size[0]), IGNORE)
    pen = ImageDraw.Draw(image)
    r = width / 2
    for stroke in strokes:
        if len(stroke.points) > 1:
            pen.line(stroke.points, stroke.label, width, joint="curve")
        for x, y in stroke.points:
            pen.ellipse((x - r, y - r, x + r, y + r), stroke.label)
    return np.asarray(image)


def parse_scribbles(
    data: bytes, where: str, class_names: Sequence[str], size: tuple[int, int] | None = None
) -> list[Stroke]:
    """Strokes of one ScribbleSup XML file, maybe none: `polygon` elements with a `tag` and `point`s of X and Y.

    `size` (H,W) is the image's, for files that state their own. Raises BadInput naming `where`.
    """
    if len(data) > MAX_XML_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise BadInput(Problem(where, "no scribble file (too long, or it defines entities)", _AGAIN))
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInput(Problem(where, f"damaged XML ({error})", _AGAIN)) from error
    stated = root.find("size")
    if stated is not None and size is not None:
        found = tuple(stated.findtext(side, "").strip() for side in ("height", "width"))
        if found != (str(size[0]), str(size[1])):
            raise BadInput(
                Problem(where, f"for an image of {found[1]}x{found[0]} pixels, it has {size[1]}x{size[0]}", _AGAIN)
            )
    strokes = []
    for polygon in root.iter("polygon"):
        points = [(_number(p.findtext("X"), where), _number(p.findtext("Y"), where)) for p in polygon.iter("point")]
        if not points:
            raise BadInput(Problem(where, "a stroke without points", _AGAIN))
        strokes.append(Stroke(_label(polygon.findtext("tag"), where, class_names), tuple(points)))
    return strokes


def read_points(path: Path, num_labels: int) -> dict[str, list[Stroke]]:
    """Dots by image id of a JSON file `{id: [{"x":..,"y":..,"cls":..}, ..]}` (What's the Point; GatedCRF's files).

    `cls` is the label value. Raises BadInput naming the file and every image that is wrong.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise BadInput(Problem(str(path), "no JSON object of points by image id", _AGAIN))
    found: dict[str, list[Stroke]] = {}
    wrong: list[str] = []
    for image_id, dots in content.items():
        try:
            found[image_id] = [_dot(dot, num_labels) for dot in dots]
        except (KeyError, TypeError, ValueError):
            wrong.append(image_id)
    if wrong:
        shown = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        fix = f'points are {{"x": number, "y": number, "cls": 0..{num_labels - 1}}}'
        raise BadInput(Problem(str(path), f"{len(wrong)} images have points that are none: {shown}", fix))
    return found


def load_json(path: Path) -> Any:
    """The content of a JSON file. Raises BadInput for a file that is missing, too long, or no JSON."""
    try:
        data = plain_bytes(path, MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise BadInput(Problem(str(path), "more than 256 MiB of JSON", _AGAIN))
        return json.loads(data)
    except OSError as error:
        raise BadInput(
            Problem(str(path), f"cannot be read ({error.strerror})", "check path and permissions")
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(Problem(str(path), f"no JSON, or cut off ({error})"[:200], _AGAIN)) from error


def _dot(dot: Mapping[str, Any], num_labels: int) -> Stroke:
    x, y, label = dot["x"], dot["y"], dot["cls"]
    if type(label) is not int or not 0 <= label < num_labels:
        raise ValueError(label)
    return Stroke(label, ((_finite(x), _finite(y)),))


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e5:
        raise ValueError(value)
    return float(value)


def _number(text: str | None, where: str) -> float:
    try:
        return _finite(float(text or ""))
    except ValueError as error:
        raise BadInput(Problem(where, f"a coordinate {text!r}"[:80], _AGAIN)) from error


def _label(tag: str | None, where: str, class_names: Sequence[str]) -> int:
    name = (tag or "").strip()
    for candidate in (name, OTHER_NAMES.get(name, name)):
        if candidate in class_names:
            return list(class_names).index(candidate)
    raise BadInput(Problem(where, f"a stroke of class {name!r}"[:80], nearest(name, class_names)))
