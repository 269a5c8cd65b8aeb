"""Floating-point operations of a ViT encoder's passes in one training step, counted on tensors without memory.

`python -m benchmarks.flops` prints what the published step and ours spend on ViT-B at 448 pixels, two images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch

from benchmarks.floor import products_of

VIT_B = "vit_base_patch16_224"
SIDE, IMAGES, LOCAL, LOCAL_SIDE = 448, 2, 8, 96


@dataclass(frozen=True)
class Pass:
    """One pass of the encoder, class token included."""

    images: int
    side: int
    """Pixels."""
    gradient: bool = False
    """Whether its backward pass runs too."""
    blocks: int | None = None
    """Blocks that are run; None: all."""


def encoder_flops(passes: Sequence[Pass], name: str = VIT_B) -> int:
    """Operations of all passes together, matrix products and convolutions only (one multiply-add is two)."""
    with torch.device("meta"):
        vit: Any = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    for block in vit.blocks:
        block.attn.fused_attn = False

    def run(one: Pass) -> Callable[[], None]:
        def call() -> None:
            with torch.set_grad_enabled(one.gradient):
                x = vit._pos_embed(vit.patch_embed(torch.empty(one.images, 3, one.side, one.side, device="meta")))
                x = vit.blocks[: one.blocks](x)
                if one.gradient:
                    x.sum().backward()

        return call

    return sum(products_of(run(one)).flops for one in passes)


def cam_passes(scales: Sequence[float], *, blocks: int | None = None, reuse: bool = False) -> list[Pass]:
    """Passes of images and mirrors over scales; `reuse`: the training forward's map serves scale 1."""
    return [Pass(IMAGES if reuse and scale == 1 else 2 * IMAGES, int(scale * SIDE), blocks=blocks) for scale in scales]


def toco(*, published: bool) -> list[Pass]:
    """ToCo's step once every term is on (toco.md 2.8); the published teacher's graph is built and thrown away."""
    cams = cam_passes((1.0, 0.5, 1.5), reuse=not published)
    main_and_student = [IMAGES, 2 * IMAGES] if published else [2 * IMAGES]
    teacher = [Pass(2 * IMAGES, SIDE)] if published else []
    trained = [Pass(n, SIDE, gradient=True) for n in main_and_student]
    return [*cams, *teacher, *trained, Pass(LOCAL * IMAGES, LOCAL_SIDE, gradient=True)]


def unia(*, published: bool) -> list[Pass]:
    """UniA's step on VOC (unia.md 2.8 i): the trained pass and four scales of CAM."""
    return [Pass(IMAGES, SIDE, gradient=True), *cam_passes((1.0, 0.5, 0.75, 1.5), reuse=not published)]


STEPS = {"toco": toco, "unia": unia}


def table() -> list[tuple[str, float, float]]:
    """Method, published and our TFLOP a step."""
    return [
        (name, encoder_flops(step(published=True)) / 1e12, encoder_flops(step(published=False)) / 1e12)
        for name, step in STEPS.items()
    ]


def show() -> None:
    """Print the table."""
    print(f"encoder only, {VIT_B}, {SIDE} px, {IMAGES} images: TFLOP a step")
    for name, theirs, ours in table():
        print(f"{name:6}  published {theirs:.2f}  ours {ours:.2f}  ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    show()
