"""Pretraining of the tiny `shapes` backbones on pictures of abstract glyphs, and the check of their accuracy.

Pictures are handed in by the caller (`harness.datasets.shapes.glyphs:pictures`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from methods.parts.nets.shapes_nets import (
    NETWORKS,
    PRETEXT_PREFIX,
    SHAPES_MEAN,
    SHAPES_STD,
)

SCRIPT_VERSION = 1
FRESH = 480
"""Pictures of split 1 on which accuracy is measured."""


class Pictures(Protocol):
    """The first `n` pictures (n,H,W,3) uint8 of a split of a pretext set, and their labels (n,) int64."""

    def __call__(
        self, name: str, n: int, *, seed: int = 0, split: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one backbone is pretrained."""

    pretext: str
    classes: int
    pictures: int
    pool: Literal["mean", "top"]
    """Pooling of class maps: mean over all cells, or over the highest 20 % of each class."""
    iterations: int = 900
    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 30
    power: float = 0.9
    clip: float = 5.0


RECIPES = {
    "shapes_cnn": Recipe(pretext="G64", classes=64, pictures=12_000, pool="mean"),
    "shapes_vit": Recipe(pretext="G16", classes=16, pictures=8_000, pool="top"),
}


def pool_maps(maps_BChw: Tensor, pool: Literal["mean", "top"]) -> Tensor:
    """Class maps to logits (B,C): the mean over all cells, or over the highest 20 % of each class."""
    cells = maps_BChw.flatten(2)
    if pool == "top":
        cells = cells.topk(max(1, round(0.2 * cells.shape[2])), dim=2).values
    return cells.mean(2)


def to_input(pictures_BHW3: NDArray[np.uint8]) -> Tensor:
    """Normalised float32 images (B,3,H,W)."""
    images = torch.from_numpy(np.ascontiguousarray(pictures_BHW3)).permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(SHAPES_MEAN)[:, None, None]) / torch.tensor(SHAPES_STD)[:, None, None]


def _logits(backbone: nn.Module, classifier_CD: Tensor, images_B3HW: Tensor, recipe: Recipe) -> Tensor:
    maps = F.conv2d(backbone(images_B3HW)["stride8"], classifier_CD[:, :, None, None])
    return pool_maps(maps, recipe.pool)


@torch.no_grad()
def accuracy(
    backbone: nn.Module, classifier_CD: Tensor, recipe: Recipe, pictures: Pictures, *, n: int = FRESH, seed: int = 0
) -> float:
    """Percent of `n` fresh pictures (split 1) whose class is found, in eval mode."""
    images, labels = pictures(recipe.pretext, n, seed=seed, split=1)
    backbone.eval()
    found = [
        _logits(backbone, classifier_CD, to_input(chunk), recipe).argmax(1).numpy()
        for chunk in np.array_split(images, max(1, n // 120))
    ]
    return 100 * float((np.concatenate(found) == labels).mean())


def pretrain(
    name: str,
    pictures: Pictures,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Train `shapes_cnn` or `shapes_vit` from scratch; minutes on one core.

    Returns the tensors of the file (the backbone's, and the classifier under `pretext.`) and its metadata.
    """
    recipe = recipe or RECIPES[name]
    images_all, labels_all = pictures(recipe.pretext, recipe.pictures, seed=seed)
    log(f"{name}: {len(labels_all)} pictures of {recipe.pretext}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = NETWORKS[name]()
        classifier = nn.Parameter(torch.randn(recipe.classes, backbone.dim) * backbone.dim**-0.5)
    parameters = [*backbone.parameters(), classifier]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    rng = np.random.default_rng([seed, 1])
    backbone.train().to(memory_format=torch.channels_last)
    for step in range(recipe.iterations):
        warm = min(1.0, (step + 1) / recipe.warmup)
        optimizer.param_groups[0]["lr"] = recipe.lr * warm * (1 - step / recipe.iterations) ** recipe.power
        chosen = rng.integers(len(labels_all), size=recipe.batch)
        batch = images_all[chosen]
        mirrored = rng.random(recipe.batch) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        logits = _logits(backbone, classifier, to_input(batch), recipe)
        loss = F.cross_entropy(logits, torch.from_numpy(labels_all[chosen]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        if step % 100 == 99:
            log(f"{name}: step {step + 1} of {recipe.iterations}, loss {loss.item():.3f}")
    backbone.to(memory_format=torch.contiguous_format)
    score = accuracy(backbone, classifier.detach(), recipe, pictures, seed=seed)
    tensors = {key: value.contiguous() for key, value in backbone.state_dict().items()}
    tensors[PRETEXT_PREFIX + "classifier"] = classifier.detach()
    metadata = {
        "pretraining": "glyphs",
        "network": name,
        "script_version": str(SCRIPT_VERSION),
        "pretext": recipe.pretext,
        "pictures": str(recipe.pictures),
        "iterations": str(recipe.iterations),
        "seed": str(seed),
        "accuracy": f"{score:.2f}",
        "accuracy_pictures": str(FRESH),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
    }
    return tensors, metadata


def save(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a weights file in place of an older one; a crash leaves the older one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(to_bytes(tensors, metadata=dict(metadata)))
    unfinished.replace(path)
