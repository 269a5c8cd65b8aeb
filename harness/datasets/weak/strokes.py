"""Points, scribbles, clicks and blocks, drawn from a mask and its instances (synthetic.md 2). 255 = unlabelled.

Axes: H W pixels. Every function draws only from the generator that it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.datasets.weak.shorten import middle

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Pixel = tuple[int, int]
Curve = Callable[[Mask, np.random.Generator], list[Pixel]]
BLOCKS_A_SIDE = 10
"""Blocks are cells of a grid of this many a side, the block annotation of Lin, Upchurch and Bala (ICCV 2019)."""
BLOCK_SHARE = 0.1
"""Share of the blocks that are labelled."""
LONG = 0.5
"""A middle line of this share of the longer side of a piece's box is one."""
KEPT = 0.5
"""A grid that keeps this share of a piece shows its shape."""

_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The eight neighbours (dy,dx) clockwise from the upper one: P2 to P9 of Zhang and Suen 1984."""


def _thinning_table() -> NDArray[np.bool_]:
    """(2,256): whether a pixel with this neighbourhood goes, in the first and in the second half step."""
    table = np.zeros((2, 256), bool)
    for code in range(256):
        p = [(code >> i) & 1 for i in range(8)]
        rises = sum(p[i] == 0 and p[(i + 1) % 8] == 1 for i in range(8))
        if 2 <= sum(p) <= 6 and rises == 1:
            up, right, down, left = p[0], p[2], p[4], p[6]
            table[0, code] = up * right * down == 0 and right * down * left == 0
            table[1, code] = up * right * left == 0 and up * down * left == 0
    return table


_GOES = _thinning_table()


def thin(mask_HW: Mask) -> Mask:
    """Skeleton of a mask by Zhang-Suen thinning; the frame counts as outside."""
    pixels = np.pad(mask_HW, 1).astype(np.uint8)
    inner = pixels[1:-1, 1:-1]
    h, w = mask_HW.shape
    views = [pixels[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in _RING]
    unchanged = 0
    half = 0
    while unchanged < 2:
        code = views[0].copy()
        for i in range(1, 8):
            code |= views[i] << i
        goes = _GOES[half][code] & (inner > 0)
        unchanged = 0 if goes.any() else unchanged + 1
        inner[goes] = 0
        half = 1 - half
    return inner.astype(bool)


def _shortest_paths(
    pixels: set[tuple[int, int]], start: tuple[int, int]
) -> tuple[tuple[int, int], dict[tuple[int, int], tuple[int, int]]]:
    """The pixel farthest from `start` (8-connected steps), and the predecessor of each pixel."""
    before = {start: start}
    queue = deque([start])
    last = start
    while queue:
        last = queue.popleft()
        for dy, dx in _RING:
            neighbour = (last[0] + dy, last[1] + dx)
            if neighbour in pixels and neighbour not in before:
                before[neighbour] = last
                queue.append(neighbour)
    return last, before


def longest_path(skeleton_HW: Mask) -> list[tuple[int, int]]:
    """Pixels (y,x) of the longest shortest path of the largest component, by two sweeps; [] for no pixels."""
    parts, count = scipy.ndimage.label(skeleton_HW, np.ones((3, 3)))
    if not count:
        return []
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    pixels = {(int(y), int(x)) for y, x in np.argwhere(parts == largest)}
    end, _ = _shortest_paths(pixels, min(pixels))
    other, before = _shortest_paths(pixels, end)
    path = [other]
    while path[-1] != end:
        path.append(before[path[-1]])
    return path


def _stretch(rng: np.random.Generator, path: list[tuple[int, int]]) -> NDArray[np.int64]:
    """A random contiguous 50 to 90 % of the path, (n,2), at least one pixel."""
    length = max(1, round(rng.uniform(0.5, 0.9) * len(path)))
    start = int(rng.integers(len(path) - length + 1))
    return np.array(path[start : start + length], np.int64)


def erode(mask_HW: Mask) -> Mask:
    """The mask without the pixels that have one of their four neighbours outside; so is the frame."""
    p = np.pad(mask_HW, 1)
    return p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]


@dataclass(frozen=True)
class Instance:
    """One object, or one piece of stuff: its label, its bounding box, and its pixels inside the box."""

    label: int
    box: tuple[slice, slice]
    pixels_hw: Mask


def numbered(mask_HW: Labels, instance_HW: Labels) -> list[Instance]:
    """The instances of a map of instance numbers (from 1 on, in order), without void pixels; hidden ones left out."""
    found = []
    for number in range(1, int(instance_HW.max()) + 1):
        pixels = (instance_HW == number) & (mask_HW != IGNORE)
        if pixels.any():
            box = _bounds(pixels)
            found.append(Instance(int(mask_HW[pixels][0]), box, pixels[box]))
    return found


def _bounds(mask_HW: Mask) -> tuple[slice, slice]:
    """The bounding box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def depths(pixels_hw: Mask, deepest: int) -> NDArray[np.int64]:
    """1 + how many erosions each pixel survives, at most `deepest`; 0 outside."""
    distance = scipy.ndimage.distance_transform_cdt(np.pad(pixels_hw, 1), "taxicab")[1:-1, 1:-1]
    return np.minimum(distance, deepest).astype(np.int64)


def points(
    mask_HW: Labels,
    instances: Sequence[Instance],
    rng: np.random.Generator,
    *,
    jitter: float = 0.0,
    deepest: int = 4,
    diameter: int = 1,
    background: int = 1,
) -> Labels:
    """One dot per instance, by preference deep inside, and `background` dots on label 0.

    The chance of a pixel is its depth squared (`depths`). A dot is a disc of `diameter` pixels, cut to its label.
    `jitter` is the standard deviation in pixels of a sloppy hand: the label stays, its place moves.
    """
    out = np.full(mask_HW.shape, IGNORE, np.uint8)
    dots: list[tuple[int, int, int]] = []
    for instance in instances:
        inside = instance.pixels_hw
        chance = (depths(inside, deepest)[inside] ** 2).astype(np.float64)
        y, x = np.argwhere(inside)[rng.choice(len(chance), p=chance / chance.sum())]
        dots.append((int(y) + instance.box[0].start, int(x) + instance.box[1].start, instance.label))
    free = mask_HW == 0
    inner = erode(free)
    candidates = np.argwhere(inner if inner.any() else free)
    for _ in range(background if len(candidates) else 0):
        y, x = candidates[rng.integers(len(candidates))]
        dots.append((int(y), int(x), 0))
    for y, x, label in dots:
        if jitter:
            dy, dx = np.rint(rng.normal(0, jitter, 2)).astype(int)
            y, x = np.clip((y + dy, x + dx), 0, np.array(mask_HW.shape) - 1)
        if diameter == 1:
            out[y, x] = label
        else:
            _brush(out, np.array([[y, x]]), mask_HW == label, label, diameter)
    return out


def _brush(out: Labels, stroke_n2: NDArray[np.int64], pixels_HW: Mask, label: int, width: int) -> None:
    """Draw a stroke `width` pixels wide, cut to `pixels_HW`."""
    h, w = out.shape
    low = -((width - 1) // 2)
    radius = (width / 2) ** 2 + 0.25
    reach = [(dy, dx) for dy in range(low, low + width) for dx in range(low, low + width)]
    for dy, dx in reach:
        if width > 2 and dy * dy + dx * dx > radius:
            continue
        y, x = np.clip(stroke_n2[:, 0] + dy, 0, h - 1), np.clip(stroke_n2[:, 1] + dx, 0, w - 1)
        keep = pixels_HW[y, x]
        out[y[keep], x[keep]] = label


def coarse(pixels_hw: Mask, factor: int) -> Mask:
    """Cells of `factor` x `factor` pixels that lie wholly inside; what is left over at the far sides is dropped."""
    h, w = (n // factor * factor for n in pixels_hw.shape)
    cells = pixels_hw[:h, :w].reshape(h // factor, factor, w // factor, factor)
    return np.logical_and.reduce(cells, axis=(1, 3))


def scribbles(
    mask_HW: Labels,
    instances: Sequence[Instance],
    rng: np.random.Generator,
    *,
    width: int = 2,
    largest: int | None = None,
    background: int = 2,
    length: float = 1.0,
    curve: Curve | None = None,
) -> Labels:
    """A stroke along the middle line of each instance, and `background` of them on label 0, `width` pixels wide.

    Middle lines of instances longer than `largest` pixels are found on a coarser grid, that of the background on half
    of it at most; its strokes keep apart. The middle `length` (share) of each is drawn. `curve` finds other paths.
    """
    out = np.full(mask_HW.shape, IGNORE, np.uint8)
    background_factor = 2 if largest is None else max(2, -(-max(mask_HW.shape) // largest))

    def drawn(onto: Labels, stroke: NDArray[np.int64], factor: int, pixels: Mask, label: int) -> None:
        _brush(onto, _fine(stroke[list(middle(range(len(stroke)), length))], factor, width), pixels, label, width)

    for instance in instances:
        pixels = instance.pixels_hw
        factor = 1 if largest is None else -(-max(pixels.shape) // largest)
        path, factor = (curve(pixels, rng), 1) if curve else _middle_line(pixels, factor)
        drawn(out[instance.box], _stretch(rng, path), factor, pixels, instance.label)
    free = mask_HW == 0
    left = free.copy() if curve else thin(erode(coarse(free, background_factor)))
    for _ in range(background):
        path, factor = (curve(left, rng), 1) if curve else (longest_path(left), background_factor)
        if not path:
            break
        stroke = _stretch(rng, path)
        drawn(out, stroke, factor, free, 0)
        for y, x in stroke:
            left[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = False
    return out


def _fine(stroke_n2: NDArray[np.int64], factor: int, width: int) -> NDArray[np.int64]:
    """A stroke on cells of `factor` pixels as pixels, with further ones between where a brush would leave gaps."""
    corner = (factor - 1) // 2
    if factor <= width:
        return factor * stroke_n2 + corner
    n = len(stroke_n2)
    at = np.arange((n - 1) * factor + 1) / factor
    places = [np.interp(at, np.arange(n), factor * stroke_n2[:, axis] + corner) for axis in (0, 1)]
    return np.rint(np.stack(places, 1)).astype(np.int64)


def _middle_line(pixels_hw: Mask, factor: int) -> tuple[list[Pixel], int]:
    """The longest path of the skeleton on a grid of `factor` pixels a cell, or on finer ones where that one loses it.

    Cells that lie wholly inside, and erosion, lose what is thin: a bicycle keeps a speck of its frame. A path that is
    short against the piece is then looked for on half the cells, down to pixels; the longest is taken.
    """
    if factor == 1:
        return _pixel_line(pixels_hw), 1
    inner = erode(coarse(pixels_hw, factor))
    path = _skeleton_line(inner)
    kept = int(inner.sum()) * factor**2
    # A disc's middle line is short on any grid; it keeps its area, which says so without a look at finer ones.
    if len(path) * factor >= LONG * max(pixels_hw.shape) or kept >= KEPT * int(pixels_hw.sum()):
        return path, factor
    finer, cells = _middle_line(pixels_hw, factor // 2)
    return (finer, cells) if len(finer) * cells > len(path) * factor else (path, factor)


def _pixel_line(pixels_hw: Mask) -> list[Pixel]:
    inner = erode(pixels_hw)
    return _skeleton_line(inner if inner.any() else pixels_hw)


def _skeleton_line(inner_hw: Mask) -> list[Pixel]:
    return longest_path(thin(inner_hw)) or longest_path(inner_hw)  # thinning can eat a 2x2 square whole


def clicks(mask_HW: Labels, number: int, rng: np.random.Generator) -> Labels:
    """`number` distinct pixels (all, where there are fewer) drawn uniformly from those that are not void."""
    out = np.full(mask_HW.size, IGNORE, np.uint8)
    candidates = np.flatnonzero(mask_HW != IGNORE)
    chosen = rng.choice(candidates, min(number, len(candidates)), replace=False)
    out[chosen] = mask_HW.ravel()[chosen]
    return out.reshape(mask_HW.shape)


def blocks(mask_HW: Labels, share: float, rng: np.random.Generator, side: int = BLOCKS_A_SIDE) -> Labels:
    """The mask inside a share of the cells of a grid of `side` x `side`, drawn at random; at least one cell."""
    chosen = np.zeros(side * side, bool)
    chosen[rng.choice(side * side, max(1, round(share * side * side)), replace=False)] = True
    rows, columns = (np.arange(n) * side // n for n in mask_HW.shape)
    return np.where(chosen.reshape(side, side)[rows][:, columns], mask_HW, np.uint8(IGNORE))
