"""A contact sheet of images with their sparse labels, to be looked at before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from harness.datasets.labels import IGNORE
from harness.datasets.voc import COLOURS

TILE = (240, 320)
"""Height and width that a picture is shown in, pixels."""
COLUMNS = 5
GAP = 6
CAPTION = 14
SEEN = 7
"""Side in pixels, on the sheet, of a label that is one pixel: smaller ones are lost to the eye."""


PAINT = np.array(COLOURS, np.uint8)
"""VOC's colour of every label value, (256,3)."""


def contact_sheet(
    pictures: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]], columns: int = COLUMNS
) -> NDArray[np.uint8]:
    """Pictures (caption, image (H,W,3), labels (H,W)) on one sheet (h,w,3), labels in colour over a pale image."""
    tiles = [_tile(*picture) for picture in pictures]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _tile(caption: str, image_HW3: NDArray[np.uint8], label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(TILE[0] / image_HW3.shape[0], TILE[1] / image_HW3.shape[1])
    h, w = (max(1, round(side * scale)) for side in label_HW.shape)
    small = np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).resize((w, h), Image.Resampling.BILINEAR))
    shown = _seen(label_HW, (h, w))
    pale = (small * 0.45 + 140).astype(np.uint8)
    picture = np.where((shown == IGNORE)[..., None], pale, PAINT[shown])
    out = np.full((TILE[0] + CAPTION + GAP, TILE[1] + GAP, 3), 255, np.uint8)
    out[CAPTION : CAPTION + h, :w] = picture
    canvas = Image.fromarray(out)
    ImageDraw.Draw(canvas).text((1, 1), caption[:50], (0, 0, 0))
    return np.asarray(canvas)


def _seen(label_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The labels at another size: every labelled pixel stays, single ones grown to `SEEN` pixels."""
    out = np.full(size, IGNORE, np.uint8)
    y, x = np.nonzero(label_HW != IGNORE)
    out[y * size[0] // label_HW.shape[0], x * size[1] // label_HW.shape[1]] = label_HW[y, x]
    sparse = len(y) < 0.02 * label_HW.size
    return ndimage.minimum_filter(out, SEEN) if sparse else out
