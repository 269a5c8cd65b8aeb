"""Weak labels of `shapes`: points, scribbles, clicks, drawn from mask and instances. 255 = unlabelled."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harness.datasets.base import IGNORE

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

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
    parts, count = ndimage.label(skeleton_HW, np.ones((3, 3)))
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


def _crop(mask_HW: Mask) -> tuple[slice, slice]:
    """The bounding box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _instances(mask_HW: Labels, instance_HW: Labels) -> list[tuple[int, Mask]]:
    """(label, pixels that are not void) of every visible instance, in painting order."""
    found = []
    for number in range(1, int(instance_HW.max()) + 1):
        pixels = (instance_HW == number) & (mask_HW != IGNORE)
        if pixels.any():
            found.append((int(mask_HW[pixels][0]), pixels))
    return found


def points(mask_HW: Labels, instance_HW: Labels, rng: np.random.Generator, jitter: float = 0.0) -> Labels:
    """One pixel per visible instance, deep inside by preference, and one of the background.

    `jitter` is the standard deviation in pixels of a sloppy hand: the label stays, its place moves.
    """
    out = np.full(mask_HW.shape, IGNORE, np.uint8)
    clicks: list[tuple[int, int, int]] = []
    for label, pixels in _instances(mask_HW, instance_HW):
        depth, rest = pixels.astype(np.int64), pixels
        for _ in range(3):
            rest = erode(rest)
            depth += rest
        chance = (depth[pixels] ** 2).astype(np.float64)
        y, x = np.argwhere(pixels)[rng.choice(len(chance), p=chance / chance.sum())]
        clicks.append((int(y), int(x), label))
    background = mask_HW == 0
    inside = erode(background)
    candidates = np.argwhere(inside if inside.any() else background)
    if len(candidates):
        y, x = candidates[rng.integers(len(candidates))]
        clicks.append((int(y), int(x), 0))
    for y, x, label in clicks:
        if jitter:
            dy, dx = np.rint(rng.normal(0, jitter, 2)).astype(int)
            y, x = np.clip((y + dy, x + dx), 0, np.array(mask_HW.shape) - 1)
        out[y, x] = label
    return out


def _brush(out: Labels, stroke_n2: NDArray[np.int64], pixels_HW: Mask, label: int) -> None:
    """Draw a stroke 2 pixels wide, cut to `pixels_HW`."""
    h, w = out.shape
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x = np.minimum(stroke_n2[:, 0] + dy, h - 1), np.minimum(stroke_n2[:, 1] + dx, w - 1)
        keep = pixels_HW[y, x]
        out[y[keep], x[keep]] = label


def scribbles(mask_HW: Labels, instance_HW: Labels, rng: np.random.Generator) -> Labels:
    """A stroke along the middle line of each visible instance, and two on the background."""
    out = np.full(mask_HW.shape, IGNORE, np.uint8)
    for label, pixels in _instances(mask_HW, instance_HW):
        box = _crop(pixels)
        inner = erode(pixels[box])
        inner = inner if inner.any() else pixels[box]
        path = longest_path(thin(inner)) or longest_path(inner)  # thinning can eat a 2x2 square whole
        _brush(out[box], _stretch(rng, path), pixels[box], label)
    background = mask_HW == 0
    half = background[::2, ::2] & background[1::2, ::2] & background[::2, 1::2] & background[1::2, 1::2]
    skeleton = thin(erode(half))
    for _ in range(2):
        path = longest_path(skeleton)
        if not path:
            break
        stroke = _stretch(rng, path)
        _brush(out, 2 * stroke, background, 0)
        for y, x in stroke:
            skeleton[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = False
    return out


def clicks(mask_HW: Labels, number: int, rng: np.random.Generator) -> Labels:
    """`number` distinct pixels (all, where there are fewer) drawn uniformly from those that are not void."""
    out = np.full(mask_HW.size, IGNORE, np.uint8)
    candidates = np.flatnonzero(mask_HW != IGNORE)
    chosen = rng.choice(candidates, min(number, len(candidates)), replace=False)
    out[chosen] = mask_HW.ravel()[chosen]
    return out.reshape(mask_HW.shape)
