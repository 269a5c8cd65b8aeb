"""SIPE's head next to its published form: products of every cell, label and cell."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Case
from benchmarks.reference.sipe_head import head as plain_head
from benchmarks.structure import largest
from methods.parts.ops.prototypes import (
    background_cam,
    class_prototypes,
    consistency_loss,
    normalise,
    prototype_maps,
    structure_seeds,
)

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
Found = tuple[Tensor, Tensor, Tensor]


def head(maps_BChw: Tensor, deep_BDhw: Tensor, hierarchical_BDhw: Tensor, valid_BKhw: Tensor) -> Tensor:
    """Loss L_GSC, as `methods.sipe` computes it behind its backbone."""
    cam = background_cam(maps_BChw, valid_BKhw)
    seeds, _ = structure_seeds(cam, deep_BDhw, valid_BKhw)
    similar = prototype_maps(hierarchical_BDhw, class_prototypes(hierarchical_BDhw, seeds))
    return consistency_loss(cam, normalise(similar))


def cases(quick: bool) -> list[Case]:
    """A ResNet-50's maps of 512-pixel crops, loss and gradient, with the labels of VOC and of COCO."""

    def case(images: int, classes: int, cells: int, dims: tuple[int, int], goal: float | None) -> Case:
        @functools.cache
        def inputs() -> Inputs:
            rng = torch.Generator().manual_seed(0)
            coarse = [torch.randn(images, d, cells // 4, cells // 4, generator=rng) for d in (classes, *dims)]
            smooth = [F.interpolate(x, (cells, cells), mode="bicubic") for x in coarse]
            tags = torch.zeros(images, classes)
            tags[torch.arange(images), torch.arange(images) % classes] = 1
            tags[0, classes - 1] = 1
            valid = torch.cat([torch.ones(images, 1), tags], dim=1)[:, :, None, None].expand(-1, -1, cells, cells)
            content = torch.ones(cells, cells)
            content[: cells // 5] = 0
            return smooth[0], smooth[1].relu(), smooth[2], valid * content

        def run(which: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Found:
            maps, deep, hierarchical, valid = inputs()
            learned = [x.detach().requires_grad_() for x in (maps, hierarchical)]
            loss = which(learned[0], deep.detach().requires_grad_(), learned[1], valid)
            return (loss.detach(), *torch.autograd.grad(loss, learned))

        def agree(one: Found, other: Found) -> str:
            loss = abs(float(other[0] / one[0]) - 1)
            slope = max(float((b - a).norm() / a.norm()) for a, b in zip(one[1:], other[1:], strict=True))
            assert loss < 1e-5, f"losses are {loss:.1e} apart"
            assert slope < 1e-4, f"gradients are {slope:.1e} apart"
            return f"loss to {loss:.0e}, gradients to {slope:.0e}"

        def equal() -> str:
            shape = largest(lambda: run(plain_head))
            assert torch.Size(shape).numel() == images * (classes + 1) * max(cells**2, dims[1]) * cells**2, shape
            return f"the reference fills {'x'.join(map(str, shape))}"

        return Case(
            f"head {classes} classes",
            lambda: run(plain_head),
            lambda: run(head),
            equal,
            goal,
            agree=agree,
            prepare=inputs,
            unit=f"B={images}, {cells}x{cells} cells, forward and backward",
            images=images,
        )

    if quick:
        return [case(2, 20, 16, (256, 96), None)]
    return [case(4, 20, 32, (2048, 768), 12.0), case(1, 80, 32, (2048, 768), None)]
