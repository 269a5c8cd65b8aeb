"""The forward passes of an inference protocol: scales, mirrors and tiles of a batch of images, fused into one score
map per image. Axes: B images, K labels, H W pixels, h w tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.api.dataset import Dataset
from harness.api.inference import Inference, tile_starts
from harness.api.method import Method, Prediction

PIXELS = 1 << 22
"""Pixels of one forward pass; a larger image is passed alone."""
GRAIN = 16
"""Sides of the resized crop are multiples of this, and at least twice it."""

Hw = tuple[int, int]


@dataclass(frozen=True)
class Passes:
    """A network ready for forward passes: whose images, how large, where, with which weights."""

    dataset: Dataset
    method: Method
    crop: int
    device: str
    weights: str = "student"
    bf16: bool = False

    def ask(self, images_B3HW: Tensor, tags_BC: Tensor | None, want: frozenset[str]) -> Prediction:
        """What the network makes of normalised images: the one place where scoring, maps and pictures call it, so that
        all of them have the run's precision and none a gradient."""
        with torch.no_grad(), torch.autocast(torch.device(self.device).type, torch.bfloat16, self.bf16):
            return self.method.predict(images_B3HW, tags_BC, want=want, weights=self.weights)

    def squares(self, ids: Sequence[str], side: int) -> Tensor:
        """Images resized to (side,side) whatever their aspect (fsr.md section 4), normalised: (B,3,side,side)."""
        return normalised([resized(self.dataset.image(i), (side, side)) for i in ids], self.method, self.device)

    def fused(self, ids: Sequence[str], sizes: Sequence[Hw], how: Inference) -> Iterator[tuple[int, Tensor]]:
        """For each image its place in `ids` and its fused scores (K,H,W) float32 at its own size, without gradient.

        Images of one size go through the network together, so the order is another where sizes differ.
        """
        groups: dict[Hw | None, list[int]] = {}
        for n, size in enumerate(sizes):
            groups.setdefault(None if how.size == "crop" else size, []).append(n)
        for own, places in groups.items():
            step = len(places) if own is None else max(1, PIXELS // (2 * own[0] * own[1]))
            for at in range(0, len(places), step):
                some = places[at : at + step]
                yield from zip(some, self._group([ids[n] for n in some], [sizes[n] for n in some], how), strict=True)

    def _group(self, ids: Sequence[str], sizes: Sequence[Hw], how: Inference) -> list[Tensor]:
        """Fused scores of images of one size (of any sizes where they are resized to the crop)."""
        base = None if how.size == "crop" else self._base(ids, how)
        at: Hw | None = None
        fused: list[Tensor] = []
        for scale in how.scales:
            images = self._scaled(ids, base, scale, how)
            both = images if how.flip == "none" else torch.cat([images, images.flip(-1)])
            scores, real = self._scores(both, how)
            at = at or (math.ceil(scores.shape[2] * real[0]), math.ceil(scores.shape[3] * real[1]))
            here = []
            for b, size in enumerate(sizes):
                target = at if how.at == "map" else size
                one = resample(scores[b], real, target, how.corners)
                if how.flip != "none":
                    mirrored = resample(scores[len(ids) + b], real, target, how.corners).flip(-1)
                    one = torch.maximum(one, mirrored) if how.flip == "max" else one + mirrored
                    one = one / 2 if how.flip == "mean" else one
                here.append(one)
            rule = torch.maximum if how.fusion == "max" else torch.add
            fused = [rule(a, b) for a, b in zip(fused, here, strict=True)] if fused else here
        if how.fusion == "mean":
            fused = [f / len(how.scales) for f in fused]
        if how.at == "map":
            fused = [resample(f, (1.0, 1.0), size, how.corners) for f, size in zip(fused, sizes, strict=True)]
        return fused

    def _base(self, ids: Sequence[str], how: Inference) -> Tensor:
        """Images of one size as a batch, at their own size, with a long side of the crop, or as squares of it."""
        images = [self.dataset.image(i) for i in ids]
        if how.size == "long":
            h, w = images[0].shape[:2]
            share = self.crop / max(h, w)
            images = [resized(image, (max(1, round(h * share)), max(1, round(w * share)))) for image in images]
        batch = normalised(images, self.method, self.device)
        if how.size == "square":
            # As published: the normalised tensor, without the smoothing that a picture's own resizing has.
            return F.interpolate(batch, (self.crop, self.crop), mode="bilinear", align_corners=how.corners)
        return batch

    def _scaled(self, ids: Sequence[str], base: Tensor | None, scale: float, how: Inference) -> Tensor:
        if base is None:
            return self.squares(ids, max(2 * GRAIN, round(self.crop * scale / GRAIN) * GRAIN))
        if scale == 1.0:
            return base
        # The hair above keeps 1.1 x 10 at 11: floating point would have 10.999...
        size = [max(1, math.floor(side * scale + 1e-6)) for side in base.shape[2:]]
        return F.interpolate(base, size, mode="bilinear", align_corners=how.corners)

    def _scores(self, images_B3HW: Tensor, how: Inference) -> tuple[Tensor, tuple[float, float]]:
        """Scores (B,K,h,w) of the network, and the shares of h and w that show the image and no padding."""
        if how.size == "tiles":
            return self._tiled(images_B3HW, how), (1.0, 1.0)
        h, w = images_B3HW.shape[2:]
        stride = 1 if how.corners else int(self.method.describe().get("stride", GRAIN))
        down, right = -h % stride, -w % stride
        scores = self._network(F.pad(images_B3HW, (0, right, 0, down)) if down or right else images_B3HW, how)
        return scores, (h / (h + down), w / (w + right))

    def _tiled(self, images_B3HW: Tensor, how: Inference) -> Tensor:
        """Scores (B,K,H,W): those of overlapping squares, averaged where they overlap (agmm.md section 4)."""
        h, w = images_B3HW.shape[2:]
        tile = self.crop
        padded = F.pad(images_B3HW, (0, max(0, tile - w), 0, max(0, tile - h)))
        visits = padded.new_zeros(padded.shape[2:])
        total: Tensor | None = None
        for y in tile_starts(h, tile):
            for x in tile_starts(w, tile):
                here = (..., slice(y, y + tile), slice(x, x + tile))
                scores = self._network(padded[here], how)
                if total is None:
                    total = scores.new_zeros(*scores.shape[:2], *padded.shape[2:])
                total[here] += F.interpolate(scores, (tile, tile), mode="bilinear", align_corners=how.corners)
                visits[here] += 1
        assert total is not None
        return (total / visits)[..., :h, :w]

    def _network(self, images_B3HW: Tensor, how: Inference) -> Tensor:
        """Logits or probabilities (B,K,h,w) float32 at the network's resolution."""
        step = max(1, PIXELS // (images_B3HW.shape[2] * images_B3HW.shape[3]))
        want = frozenset({"segmentation"})
        parts = []
        for some in images_B3HW.split(step):
            found = self.ask(some, None, want).segmentation_BKhw
            assert found is not None
            parts.append(found.float())
        logits_BKhw = torch.cat(parts)
        return logits_BKhw.softmax(1) if how.of == "probabilities" else logits_BKhw


def normalised(images: Sequence[NDArray[np.uint8]], method: Method, device: str) -> Tensor:
    """Images of one size as a network sees them: float32 (B,3,H,W) on the device."""
    mean, std = method.normalisation()
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device).float() / 255
    shape = (1, 3, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)


def resample(maps_Khw: Tensor, real: tuple[float, float], size: Hw, corners: bool = False) -> Tensor:
    """Maps (K,h,w), of which the shares `real` from the top left show the image, at (K,*size), bilinear."""
    maps_1Khw = maps_Khw[None].float()
    if real == (1.0, 1.0):
        return F.interpolate(maps_1Khw, size, mode="bilinear", align_corners=corners)[0]
    # One interpolation from tokens to pixels, as without padding: its rows and columns end where the image does.
    y, x = (
        (torch.arange(n, device=maps_Khw.device) + 0.5) * (2 * share / n) - 1
        for n, share in zip(size, real, strict=True)
    )
    grid_1HW2 = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    return F.grid_sample(maps_1Khw, grid_1HW2, mode="bilinear", padding_mode="border", align_corners=False)[0]


def probabilities(scores_KHW: Tensor, how: Inference) -> Tensor:
    """Probabilities (K,H,W) of fused scores, summing to 1 at each pixel."""
    return scores_KHW.softmax(0) if how.of == "logits" else scores_KHW / scores_KHW.sum(0)


def resized(image_HW3: NDArray[np.uint8], size: Hw) -> NDArray[np.uint8]:
    """An image at another size (h,w), bilinear."""
    return np.asarray(Image.fromarray(image_HW3).resize((size[1], size[0]), Image.Resampling.BILINEAR))
