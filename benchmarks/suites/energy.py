"""The dense energy next to the sum over all pairs, which has no faster plain form without a compiled lattice."""

from __future__ import annotations

import functools

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks import Case
from methods.parts.ops.energy import dense_energy_loss

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


def photo(i: int, size: int) -> Tensor:
    """A packaged photo of scikit-image, squeezed to a square: levels (3,size,size); noise has no like colours."""
    name = PHOTOS[i % len(PHOTOS)]
    image = Image.fromarray(getattr(skimage.data, name)()).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def cases(quick: bool) -> list[Case]:
    """Loss and gradient at the cards' size and at the lab tier's."""

    def case(size: int, images: int) -> Case:
        @functools.cache
        def inputs() -> tuple[Tensor, Tensor, Tensor]:
            rng = torch.Generator().manual_seed(0)
            pixels = torch.stack([photo(i, size) for i in range(images)])
            logits = 3 * torch.randn(images, 21, 5, 5, generator=rng)
            logits = F.interpolate(logits, size=(size // 16, size // 16), mode="bicubic")
            return logits, pixels, torch.zeros(images, size, size, dtype=torch.int64)

        def run(pairs: int | None) -> tuple[float, Tensor]:
            logits, pixels, label = inputs()
            logits = logits.detach().requires_grad_()
            loss = dense_energy_loss(logits, pixels, label, size=pairs)
            (gradient,) = torch.autograd.grad(loss, logits)
            return float(loss.detach()), gradient

        def agree(one: tuple[float, Tensor], other: tuple[float, Tensor]) -> str:
            value = abs(other[0] / one[0] - 1)
            slope = float((other[1] - one[1]).norm() / one[1].norm())
            assert value < 0.05, f"losses are {value:.1%} apart"
            assert slope < 0.25, f"gradients are {slope:.1%} apart"
            return f"loss within {value:.1%}, gradient within {slope:.1%} of the sum over all pairs"

        return Case(
            f"energy {size} px",
            lambda: run(size),
            lambda: run(None),
            lambda: agree(run(size), run(None)) if size <= 160 else "",
            agree=agree,
            prepare=inputs,
            unit=f"B={images}, 21 labels, forward and backward",
        )

    return [case(96, 2)] if quick else [case(160, 8), case(448, 2)]
