"""BRNF's first density on features of a pretrained network: pixels of images that it has not seen are likelier under it
than under a diagonal Gaussian of each class, fitted by maximum likelihood to the same noisy features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.api.method import BuildInfo
from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from methods.brnf.density import flow_loss
from methods.brnf.flow_optimiser import FiniteAdam
from methods.brnf.knobs import BrnfConfig
from methods.brnf.method import Brnf
from methods.parts.views.augment import to_tensor_normalised

STEPS, PIXELS = 400, 2048


def features(method: Brnf, images: list[str], dataset) -> tuple[Tensor, Tensor]:
    """Flow inputs (N,D) of cells, and the label of the pixel in each cell's middle (N,), 255 aside."""
    a, labels = [], []
    for image_id in images:
        image = to_tensor_normalised(dataset.image(image_id)[:96, :96], *method.normalisation())[None]
        with torch.no_grad():
            side = method.net.maps(image)[2]
        cells = side.shape[2]
        stride = 96 // cells
        middle = dataset.mask(image_id)[stride // 2 : 96 : stride, stride // 2 : 96 : stride]
        rows = side.permute(0, 2, 3, 1).flatten(0, 2)
        a.append(torch.nn.functional.normalize(rows, dim=1) * method.dim**0.5)
        labels.append(torch.from_numpy(middle.astype(np.int64)).flatten())
    every, label = torch.cat(a), torch.cat(labels)
    return every[label != IGNORE], label[label != IGNORE]


def gaussian(train: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor) -> float:
    """Nats per dimension of held-out vectors under a diagonal Gaussian of their class."""
    total = 0.0
    for label in held_labels.unique().tolist():
        own, asked = train[labels == label].double(), held[held_labels == label].double()
        mean, variance = own.mean(0), own.var(0, unbiased=False)
        density = -0.5 * ((asked - mean).square() / variance + variance.log() + math.log(2 * math.pi))
        total += float(density.sum())
    return total / held.numel()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_pixels_are_likelier_than_under_diagonal_gaussians(seed: int) -> None:
    dataset = open_dataset("shapes", options={"n_train": "120", "n_val": "8", "n_test": "40"})
    torch.manual_seed(seed)
    info = BuildInfo(
        num_classes=dataset.num_classes, has_background=True, crop=96, iterations=STEPS, group=4, tier="smoke",
        variant="default", labels="tags", backbone="shapes_cnn", backbone_weights=None, decoder="largefov",
    )  # fmt: skip
    config = BrnfConfig(flow_lr=3e-3)
    method = Brnf(config, info).eval()
    density = method.f1.density
    train, labels = features(method, list(dataset.ids("train")), dataset)
    held, held_labels = features(method, list(dataset.ids("test")), dataset)
    known = torch.bincount(labels, minlength=info.num_labels) >= 50
    held, held_labels = held[known[held_labels]], held_labels[known[held_labels]]
    noisy = train + config.noise * torch.randn_like(train)
    held = held + config.noise * torch.randn_like(held)
    optimiser = FiniteAdam(density.parameters(), lr=config.flow_lr, betas=(0.5, 0.9))
    nobody = torch.zeros(PIXELS, info.num_labels, dtype=torch.bool)
    for step in range(STEPS):
        at = torch.randint(len(noisy), (PIXELS,))
        optimiser.param_groups[0]["lr"] = config.flow_lr * 0.01 ** (step / STEPS)
        optimiser.zero_grad()
        flow_loss(density.likelihood(*density.latent(noisy[at])), labels[at], nobody).backward()
        torch.nn.utils.clip_grad_norm_(density.parameters(), config.flow_clip)
        optimiser.step()
    with torch.no_grad():
        own = density.likelihood(*density.latent(held)).gather(1, held_labels[:, None])
    ours, theirs = float(own.mean()) / method.dim, gaussian(noisy, labels, held, held_labels)
    print(
        f"seed {seed}: flow {ours:.3f}, diagonal Gaussians {theirs:.3f} nats per dimension, {len(held)} held-out cells"
    )
    assert ours > theirs
