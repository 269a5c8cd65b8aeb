"""A contact sheet of images with their sparse labels, to be looked at before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from harness.api.vocabulary import IGNORE
from harness.datasets.io.colours import PALETTE

TILE = (240, 320)
"""Height and width that a picture is shown in, pixels."""
COLUMNS = 5
GAP = 6
CAPTION = 14
SEEN = 7
"""Side in pixels, on the sheet, of a label that is one pixel: smaller ones are lost to the eye."""


def contact_sheet(
    pictures: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]], columns: int = COLUMNS, *, grow: bool
) -> NDArray[np.uint8]:
    """Pictures (caption, image (H,W,3), labels (H,W)) on one sheet (h,w,3), labels in colour over a pale image.

    `grow` is for labels that are dots; strokes and blocks are seen as they are.
    """
    tiles = [_tile(*picture, grow) for picture in pictures]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _tile(caption: str, image_HW3: NDArray[np.uint8], label_HW: NDArray[np.uint8], grow: bool) -> NDArray[np.uint8]:
    scale = min(TILE[0] / image_HW3.shape[0], TILE[1] / image_HW3.shape[1])
    h, w = (max(1, round(side * scale)) for side in label_HW.shape)
    small = np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).resize((w, h), Image.Resampling.BILINEAR))
    shown = _seen(label_HW, (h, w), grow)
    pale = (small * 0.45 + 140).astype(np.uint8)
    picture = np.where((shown == IGNORE)[..., None], pale, PALETTE[shown])
    out = np.full((TILE[0] + CAPTION + GAP, TILE[1] + GAP, 3), 255, np.uint8)
    out[CAPTION : CAPTION + h, :w] = picture
    canvas = Image.fromarray(out)
    ImageDraw.Draw(canvas).text((1, 1), caption[:50], (0, 0, 0))
    return np.asarray(canvas)


def _seen(label_HW: NDArray[np.uint8], size: tuple[int, int], grow: bool) -> NDArray[np.uint8]:
    """The labels at another size: every labelled pixel stays; `grow` widens each to `SEEN` pixels, nearest first."""
    (h, w), (height, width) = size, label_HW.shape
    rows, columns = np.arange(h) * height // h, np.arange(w) * width // w
    out = label_HW[rows][:, columns]  # enlarged, a pixel becomes a block: lines stay lines
    y, x = np.nonzero(label_HW != IGNORE)
    out[y * h // height, x * w // width] = label_HW[y, x]
    if not grow or not len(y):
        return out
    away, nearest = ndimage.distance_transform_cdt(out == IGNORE, "chessboard", return_indices=True)
    grown: NDArray[np.uint8] = np.where(away <= SEEN // 2, out[tuple(nearest)], np.uint8(IGNORE))
    return grown
