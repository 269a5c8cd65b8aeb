"""AGMM's losses and their gradients, ours next to a restatement with the published structure."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Case
from benchmarks.reference import agmm as published
from methods.agmm.gaussian import centroids, presence_of, present_gaussian
from methods.agmm.losses import class_loss_of, present_gmm_losses, present_probs, separation_loss
from methods.parts.ops.cam import present_classes

LABELS = 21
STROKES = 3
"""Strokes of 3 pixels an image, as the field draws scribbles: about two classes and the background."""
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Found = tuple[dict[str, Tensor], Tensor, Tensor]


def losses(features: Tensor, logits: Tensor, label: Tensor, tags: Tensor, content: Tensor) -> dict[str, Tensor]:
    """The five terms as `agmm` computes them."""
    presence = presence_of(label, LABELS)
    index, real, _ = present_classes(presence)
    centres = centroids(features, label, LABELS)
    own = centres.gather(1, index[..., None].expand(-1, -1, centres.shape[2]))
    log_probs = logits.log_softmax(1)
    probs = present_probs(log_probs, index)
    maps = present_gaussian(
        features, own, real, content, variance="constant", sharpness=1.0, probs_BkHW=None, distance="l1",
        align_corners=False,
    )  # fmt: skip
    first, second = present_gmm_losses(
        probs, maps, label, index, real, content, labelled_BHW=label < LABELS, detach=None
    )
    return {
        "seg": F.nll_loss(log_probs, label, ignore_index=255),
        "cls": class_loss_of(log_probs, tags, content),
        "gmm_self": first,
        "gmm_label": second,
        "sep": separation_loss(centres, presence),
    }


def scribbled(images: int, size: int, channels: int, cells: int) -> Inputs:
    """Features, logits, labels, tags and content of a batch: strokes on 255, padding on a fifth of the images."""
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(images, channels, cells, cells, generator=rng).relu()
    logits = F.interpolate(torch.randn(images, LABELS, cells, cells, generator=rng), size, mode="bilinear")
    label = torch.full((images, size, size), 255)
    content = torch.ones(images, size, size, dtype=torch.bool)
    for i in range(images):
        for stroke in range(STROKES):
            top, left = (int(v) for v in torch.randint(0, size // 2, (2,), generator=rng))
            label[i, top : top + 3, left : left + size // 2] = 0 if stroke == 0 else 1 + (i + stroke) % (LABELS - 1)
        if i % 5 == 0:
            content[i, 4 * size // 5 :] = False
            label[i, 4 * size // 5 :] = 255
    return features, logits, label, presence_of(label, LABELS), content


def cases(quick: bool) -> list[Case]:
    """VOC's size: crops of 321 pixels, 81 cells a side, 256 channels; 16 images, or 2 where memory is short."""

    def case(images: int, size: int, cells: int, channels: int, goal: float) -> Case:
        inputs = functools.cache(lambda: scribbled(images, size, channels, cells))
        small = functools.cache(lambda: scribbled(3, 49, 16, 13))

        def run(one: object, given: Callable[[], Inputs] = inputs) -> Found:
            features, logits, *rest = given()
            features, logits = features.detach().requires_grad_(), logits.detach().requires_grad_()
            found = one(features, logits, *rest)  # type: ignore[operator]
            grads = torch.autograd.grad(torch.stack([v.sum() for v in found.values()]).sum(), (features, logits))
            return {k: v.detach() for k, v in found.items()}, *grads

        def agree(one: Found, other: Found) -> str:
            gap = max(float((one[0][k] - other[0][k]).abs()) for k in one[0])
            slopes = [float((a - b).norm() / a.norm()) for a, b in zip(one[1:], other[1:], strict=True)]
            assert gap < 1e-4, f"losses are {gap:.1e} apart"
            assert max(slopes) < 1e-3, f"gradients are {max(slopes):.1e} apart"
            return f"losses within {gap:.0e}, gradients within {max(slopes):.0e}"

        return Case(
            f"agmm losses {size} px, B={images}",
            lambda: run(published.losses),
            lambda: run(losses),
            lambda: agree(run(published.losses, small), run(losses, small)),
            agree=agree,
            prepare=inputs,
            unit=f"B={images}, {LABELS} labels, {channels} channels, {cells}x{cells} cells, forward and backward",
            goal=goal,
        )

    return [case(4, 97, 25, 64, 4.0)] if quick else [case(n, 321, 81, 256, 20.0) for n in (2, 16)]
