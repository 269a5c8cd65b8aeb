"""From images to score maps and label maps: how the network sees an image that is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.engine.context import Artifact, Context
from harness.method import Method, Prediction

CHUNK = 16
"""Images per forward pass of scoring."""
MAPS = ("cam", "pseudo")
"""Targets that are score maps, cut by a threshold."""


def batches(ids: Sequence[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Consecutive chunks of ids."""
    for at in range(0, len(ids), size):
        yield list(ids[at : at + size])


def network_input(
    context: Context, method: Method, ids: Sequence[str], side: int | None = None
) -> tuple[Tensor, Tensor]:
    """Images resized to (side,side) whatever their aspect (fsr.md section 4) and normalised, and their tags.

    `side` is the run's crop unless given. Returns (B,3,side,side) float32 and (B,C) on the worker's device.
    """
    side = side or context.run.crop
    mean, std = method.normalisation()
    resized = [Image.fromarray(context.dataset.image(i)).resize((side, side), Image.Resampling.BILINEAR) for i in ids]
    pixels = torch.from_numpy(np.stack([np.asarray(r) for r in resized]))
    pixels = pixels.permute(0, 3, 1, 2).to(context.session.device).float() / 255
    shape = (1, 3, 1, 1)
    images = (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)
    tags = torch.from_numpy(np.stack([context.dataset.tags(i) for i in ids])).to(context.session.device)
    return images, tags


@dataclass(frozen=True)
class ScoreMaps:
    """Scores of the classes that an image's tags name, at network resolution."""

    classes: NDArray[np.int16]
    """Foreground class indices (0-based), n of them."""
    scores: Mapping[str, NDArray[np.float16]]
    """Per target (cam, pseudo): (n,h,w) in [0,1]."""

    @staticmethod
    def of(prediction: Prediction, tags_BC: Tensor) -> list[ScoreMaps]:
        """The maps of a batch, absent classes left out."""
        found = {"cam": prediction.cam_BCHW, "pseudo": prediction.pseudo_BCHW}
        out = []
        for b in range(len(tags_BC)):
            present = torch.nonzero(tags_BC[b] > 0).flatten()
            # Half precision everywhere, so that maps read from files score exactly like fresh ones.
            scores = {name: maps[b, present].half().cpu().numpy() for name, maps in found.items() if maps is not None}
            out.append(ScoreMaps(present.cpu().numpy().astype(np.int16), scores))
        return out

    @staticmethod
    def read(folder: Artifact, image_id: str) -> ScoreMaps:
        """Maps that the stage `write-cams` left."""
        with np.load(folder.path / f"{image_id.replace('/', '~')}.npz", allow_pickle=False) as f:
            return ScoreMaps(f["classes"], {k: f[k] for k in f.files if k != "classes"})

    def best(self, target: str, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Highest score (H,W) and its foreground class index at an image's own size; zeros where none is present."""
        if not len(self.classes):
            return np.zeros(size, np.float32), np.zeros(size, np.int64)
        maps = torch.from_numpy(self.scores[target]).float()[None]
        score, index = F.interpolate(maps, size, mode="bilinear", align_corners=False)[0].max(0)
        return score.numpy(), self.classes.astype(np.int64)[index.numpy()]


def predict(
    context: Context,
    method: Method,
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    wanted: frozenset[str],
    weights: str,
) -> tuple[list[ScoreMaps], list[NDArray[np.uint8]]]:
    """Score maps and segmentation label maps of a batch of images; what is not wanted stays empty.

    Segmentation logits are resized to the image, those of the two mirror images added, scales fused by the run's
    rule (fsr.md section 4). Raises ValueError for a target that the method does not make.
    """
    run = context.run
    images, tags = network_input(context, method, ids)
    plain = run.scales == (1.0,) and not run.flip
    first = wanted if plain else wanted - {"segmentation"}
    maps: list[ScoreMaps] = []
    logits: Tensor | None = None
    if first:
        prediction = method.predict(images, tags, want=first, weights=weights)
        maps = ScoreMaps.of(prediction, tags) if first & set(MAPS) else []
        logits = prediction.segmentation_BKhw
    if "segmentation" not in wanted:
        return maps, []
    if plain:
        assert logits is not None
        fused: list[Tensor] = [_resize(one, size) for one, size in zip(logits, sizes, strict=True)]
    else:
        fused = _fused_scales(context, method, ids, sizes, weights)
    return maps, [f.argmax(0).to(torch.uint8).cpu().numpy() for f in fused]


def _fused_scales(
    context: Context, method: Method, ids: Sequence[str], sizes: Sequence[tuple[int, int]], weights: str
) -> list[Tensor]:
    run = context.run
    fused: list[Tensor] = []
    for scale in run.scales:
        images, _ = network_input(context, method, ids, max(32, round(run.crop * scale / 16) * 16))
        straight = _logits(method, images, weights)
        mirrored = _logits(method, images.flip(-1), weights).flip(-1) if run.flip else None
        here = [_resize(m, size) for m, size in zip(straight, sizes, strict=True)]
        if mirrored is not None:
            here = [h + _resize(m, size) for h, m, size in zip(here, mirrored, sizes, strict=True)]
        rule = torch.maximum if run.fusion == "max" else torch.add
        fused = [rule(a, b) for a, b in zip(fused, here, strict=True)] if fused else here
    return fused


def _logits(method: Method, images: Tensor, weights: str) -> Tensor:
    found = method.predict(images, None, want=frozenset({"segmentation"}), weights=weights).segmentation_BKhw
    assert found is not None
    return found


def _resize(maps_Khw: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps_Khw[None].float(), size, mode="bilinear", align_corners=False)[0]
