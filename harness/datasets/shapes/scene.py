"""Pictures of `shapes`: scene, objects, occluders, camera and the exact mask, all from three integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.datasets.shapes.heads import centre, head
from harness.datasets.shapes.noise import line, noise
from harness.datasets.shapes.objects import (
    BIG_FUR,
    BOAT,
    CLASSES,
    SMALL_FUR,
    TRAIN,
    Colour,
    Pose,
    body,
    fur,
    paint,
    window,
)
from harness.datasets.shapes.stuff import KINDS, blob, stuff

SIDE = 96
SMALLEST = 48
"""Visible pixels below which an instance is void."""
OTHER, BODY, PART, CONTEXT, CLUTTER = range(5)
"""Values of the region map."""

SCENES: dict[str, tuple[tuple[str, ...], str]] = {
    "sea": (("sky",), "water"),
    "rail": (("foliage",), "gravel"),
    "meadow": (("sky", "foliage"), "grass"),
    "street": (("urban", "sky"), "asphalt"),
    "indoor": (("wall",), "floor"),
    "beach": (("sky",), "sand"),
}
CONTEXT_OF = {BOAT: "sea", TRAIN: "rail"}
FREE_SCENES = ("meadow", "street", "indoor", "beach")
FREE = np.array(
    [  # P(free scene given class), a row per class in label order
        (0.2, 0.2, 0.1, 0.5),
        (0.4, 0.4, 0.0, 0.2),
        (0.70, 0.10, 0.05, 0.15),
        (0.55, 0.15, 0.05, 0.25),
        (0.15, 0.60, 0.05, 0.20),
        (0.15, 0.65, 0.05, 0.15),
        (0.15, 0.15, 0.60, 0.10),
        (0.20, 0.15, 0.45, 0.20),
    ]
)
COOCCUR, FOREIGN_CONTEXT = 0.85, 0.08
COUNTS = (0.50, 0.35, 0.15)


@dataclass(frozen=True)
class Thing:
    """What is known of one object after painting; diagnostics, never shown to a method."""

    label: int
    visible: int
    """Pixels of its instance that nothing covers."""
    part_seen: float
    """Share of the part's pixels inside the frame that nothing covers (0 to 1); 0 where it lies outside."""


@dataclass(frozen=True)
class Scene:
    """A picture with its mask; instance and region maps and `things` are diagnostics."""

    image_HW3: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8]
    instance_HW: NDArray[np.uint8]
    """0 none, i+1 for `things[i]`."""
    region_HW: NDArray[np.uint8]
    place: str
    things: tuple[Thing, ...]


def generator(*seed: int) -> np.random.Generator:
    """The random numbers of one picture: PCG64 over these integers, the same in any order and process."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def _place(rng: np.random.Generator, main: int) -> str:
    own = CONTEXT_OF.get(main)
    if own is not None and rng.random() < COOCCUR:
        return own
    if rng.random() < FOREIGN_CONTEXT:
        return str(rng.choice([name for name in CONTEXT_OF.values() if name != own]))
    return FREE_SCENES[rng.choice(4, p=FREE[main])]


def _kinds(rng: np.random.Generator, main: int, place: str) -> list[int]:
    """Classes of all objects, the main one first."""
    if place in FREE_SCENES:
        weights = FREE[:, FREE_SCENES.index(place)].copy()
        weights[[BOAT, TRAIN]] *= 0.15
        weights += 0.001
    else:
        weights = np.array([0.30 if CONTEXT_OF.get(k) == place else 0.04 for k in range(len(CLASSES))])
    weights /= weights.sum()
    further = int(rng.choice(3, p=COUNTS))
    return [main] + [main if rng.random() < 0.25 else int(rng.choice(8, p=weights)) for _ in range(further)]


def _backdrop(rng: np.random.Generator, place: str) -> tuple[Colour, NDArray[np.uint8]]:
    """Upper and lower stuff with a rough horizon, and the region map of it."""
    uppers, lower = SCENES[place]
    horizon = rng.uniform(0.22, 0.50) * SIDE + 1.6 * line(rng, SIDE)
    below = np.arange(SIDE, dtype=np.float32)[:, None] >= horizon[None, :]
    upper = uppers[rng.integers(len(uppers))]
    colour = np.where(below, stuff(rng, lower, SIDE, SIDE), stuff(rng, upper, SIDE, SIDE))
    region = np.where(below & (place in CONTEXT_OF.values()), CONTEXT, OTHER).astype(np.uint8)
    return colour, region


_Y = np.arange(SIDE, dtype=np.float32)[:, None]
_X = np.arange(SIDE, dtype=np.float32)[None, :]


def _clutter(rng: np.random.Generator, colour_3HW: Colour, region_HW: NDArray[np.uint8]) -> None:
    for _ in range(rng.poisson(0.6)):
        cx, cy = rng.uniform(0, SIDE, 2)
        shape = blob(rng, _Y, _X, cy, cx, rng.uniform(4, 11))
        if rng.random() < 0.5:
            fill = stuff(rng, KINDS[rng.integers(len(KINDS))], SIDE, SIDE, jitter=1.5)
        else:
            palette = BIG_FUR if rng.random() < 0.5 else SMALL_FUR
            plain = paint(rng) if rng.random() < 0.5 else fur(rng, palette)
            fill = np.broadcast_to(plain[:, None, None], colour_3HW.shape)
        np.copyto(colour_3HW, fill, where=shape)
        region_HW[shape] = CLUTTER


def _poses(rng: np.random.Generator, kinds: list[int]) -> list[tuple[float, int, Pose]]:
    """(depth, class, pose) of each object, far ones first; up to 6 tries each to keep clear of the others."""
    placed: list[tuple[float, int, Pose]] = []
    for k in kinds:
        d = rng.uniform()
        s = (12 + 18 * d) * (1.12 if len(kinds) == 1 else 0.92) * (0.9 if k == TRAIN else 1.0)
        best, best_gap = (0.0, 0.0), -np.inf
        for _ in range(6):
            x = rng.uniform(0.2, 0.8) * SIDE
            y = (0.34 + 0.34 * d + rng.uniform(-0.08, 0.14)) * SIDE
            gap = min((np.hypot(x - p.cx, 1.4 * (y - p.cy)) - 0.9 * (s + p.s) for _, _, p in placed), default=np.inf)
            if gap > best_gap:
                best, best_gap = (x, y), gap
            if gap > 0:
                break
        front = 1.0 if rng.random() < 0.5 else -1.0
        pose = Pose(*best, s, front, rng.normal(0, 0.10), rng.uniform(0.88, 1.18))
        placed.append((d, k, pose))
    return sorted(placed, key=lambda entry: entry[0])


def _occlude(
    rng: np.random.Generator,
    pose: Pose,
    head_uv: tuple[float, float],
    colour_3HW: Colour,
    region_HW: NDArray[np.uint8],
    instance_HW: NDArray[np.uint8],
) -> None:
    """Sometimes a blob of foliage or urban stuff over the object's part, or over its body."""
    x, y = pose.pixels(*head_uv)
    if rng.random() < 0.12:
        radius = 0.62 * pose.s
    elif rng.random() < 0.30:
        radius = rng.uniform(0.2, 0.42) * pose.s
        r, angle = np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        x += (-0.8 * pose.front + 0.5 * r * np.cos(angle)) * pose.s
        y += (0.5 + 0.3 * r * np.sin(angle)) * pose.s
    else:
        return
    shape = blob(rng, _Y, _X, y, x, radius)
    np.copyto(colour_3HW, stuff(rng, ("foliage", "urban")[rng.integers(2)], SIDE, SIDE), where=shape)
    region_HW[shape] = CLUTTER
    instance_HW[shape] = 0


def camera(rng: np.random.Generator, colour_3HW: Colour, *, ramp: bool = True) -> NDArray[np.uint8]:
    """Light ramp, gain, blur and sensor noise: (3,H,W) grey levels to an image (H,W,3) uint8."""
    _, h, w = colour_3HW.shape
    gain = np.exp(rng.normal(0, 0.13)) * (1 + rng.normal(0, 0.04, 3))
    out = colour_3HW * gain.astype(np.float32)[:, None, None]
    if ramp:
        ax, ay = rng.uniform(-0.25, 0.25, 2)
        across, down = np.linspace(-ax, ax, w), np.linspace(-ay, ay, h)
        out *= (1 + 0.6 * (across[None, :] + down[:, None])).astype(np.float32)
    out = np.pad(out, ((0, 0), (1, 1), (1, 1)), mode="edge")
    out = out[:, :-2] + 2 * out[:, 1:-1] + out[:, 2:]
    out = (out[:, :, :-2] + 2 * out[:, :, 1:-1] + out[:, :, 2:]) * np.float32(1 / 16)
    out += np.float32(5 * rng.uniform(0.4, 1.2)) * noise(rng, "fine", h, w)
    return np.ascontiguousarray(np.clip(out, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _borders(instance_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose right, left, upper or lower neighbour belongs to another instance."""
    border = np.zeros(instance_HW.shape, bool)
    down = instance_HW[1:] != instance_HW[:-1]
    across = instance_HW[:, 1:] != instance_HW[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return border


def _paint(
    rng: np.random.Generator,
    k: int,
    pose: Pose,
    number: int,
    colour_3HW: Colour,
    region_HW: NDArray[np.uint8],
    instance_HW: NDArray[np.uint8],
) -> tuple[tuple[float, float], int]:
    """Paint one object over what is there; returns its part's local centre and pixels inside the frame."""
    rows, columns, at = window(pose, SIDE)
    torso = body(rng, k, at)
    head_uv = centre(rng, k, torso.t)
    colours = torso.colour_3HW
    part = head(rng, k, at, head_uv, torso.t, colours)
    colours *= 1 - np.float32(0.16) * at.v  # lit from above
    whole = torso.mask | part
    np.copyto(colour_3HW[:, rows, columns], colours, where=whole)
    instance_HW[rows, columns][whole] = number
    region_HW[rows, columns][whole] = BODY
    region_HW[rows, columns][part] = PART
    return head_uv, int(part.sum())


def render(dataset_seed: int, split: int, index: int) -> Scene:
    """Picture `index` of a split (0 train, 1 test, 2 val); its main class is `index` mod 8."""
    rng = generator(dataset_seed, split, index)
    main = index % len(CLASSES)
    place = _place(rng, main)
    kinds = _kinds(rng, main, place)
    colour, region = _backdrop(rng, place)
    _clutter(rng, colour, region)
    instance = np.zeros((SIDE, SIDE), np.uint8)
    placed = _poses(rng, kinds)
    parts = [_paint(rng, k, pose, number, colour, region, instance) for number, (_, k, pose) in enumerate(placed, 1)]
    for (_, _, pose), (head_uv, _) in zip(placed, parts, strict=True):
        _occlude(rng, pose, head_uv, colour, region, instance)
    image = camera(rng, colour)
    visible = np.bincount(instance.ravel(), minlength=len(placed) + 1)[1:]
    seen = np.bincount(instance[region == PART], minlength=len(placed) + 1)[1:]
    things = tuple(
        Thing(k + 1, int(pixels), int(clear) / max(area, 1))
        for (_, k, _), pixels, clear, (_, area) in zip(placed, visible, seen, parts, strict=True)
    )
    labels = [0] + [thing.label if thing.visible >= SMALLEST else IGNORE for thing in things]
    mask = np.array(labels, np.uint8)[instance]
    mask[_borders(instance)] = IGNORE
    return Scene(image, mask, instance, region, place, things)
