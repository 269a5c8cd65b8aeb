"""Backbones whose deep map stands for the tokens of a ViT, so that methods which ask for nothing but tokens take CNNs.

Axes: B images, D channels, h w cells of the deep map, N = h w.
"""

from __future__ import annotations

from timm.models import is_model_in_modules
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from harness.api.encoders import given_encoder
from harness.errors import BadInput, Problem
from methods.parts.nets.backbones import build_encoder
from methods.parts.nets.encoders import EXAMPLE, Encoder
from methods.parts.nets.pyramids import OUTPUT_STRIDE, VIT_MODULES, Pyramid, build_pyramid
from methods.parts.nets.shapes_nets import ShapesViT

VERSION = 1
"""Raised when an encoder computes something else."""


class MapEncoder(Encoder):
    """A pyramid backbone without blocks: its deep map, row by row, are the tokens, without position and norm."""

    cls_token = None
    with_class_token = False

    def __init__(self, pyramid: Pyramid):
        super().__init__()
        self.pyramid = pyramid
        self.dim, self.stride, self.skip_dim = pyramid.dim, pyramid.stride, pyramid.skip_dim
        self.mean, self.std = pyramid.mean, pyramid.std
        self.depth = self.heads = 0

    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.embed_with_skip(images_B3HW)[:2]

    def embed_with_skip(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        deep_BDhw, skip_BSHW = self.pyramid(images_B3HW)
        return deep_BDhw.flatten(2).transpose(1, 2), (int(deep_BDhw.shape[2]), int(deep_BDhw.shape[3])), skip_BSHW

    def position(self, h: int, w: int) -> Tensor:
        return next(self.parameters()).new_zeros(1, 1, 1)

    def class_position(self) -> Tensor:
        return next(self.parameters()).new_zeros(1, 1, self.dim)

    def run_block(
        self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool, depth_2B: Tensor | None = None
    ) -> Tensor:
        raise IndexError(f"block {i}: a network of maps has none")

    def attend(
        self,
        i: int,
        tokens_BND: Tensor,
        hw: tuple[int, int],
        class_token: bool,
        logits: bool,
        depth_2B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        raise IndexError(f"attention of block {i}: a network of maps has none")

    def norm(self, tokens_BND: Tensor) -> Tensor:
        return tokens_BND


def build_token_source(
    name: str,
    weights: str | None,
    *,
    crop: int,
    drop: float,
    class_token: bool = False,
    output_stride: int = OUTPUT_STRIDE,
) -> Encoder:
    """The encoder `name`: a plain ViT as `build_encoder` makes it, and any other network as its deep map.

    `output_stride` is asked of networks of stages that can be dilated. Words and errors as `build_encoder` and
    `build_pyramid`; raises BadInput too for a class token asked of a network that has no blocks.
    """
    own = given_encoder()
    plain = name == "shapes_vit" or is_model_in_modules(name.partition(".")[0], VIT_MODULES)
    if isinstance(own, Encoder | ShapesViT | VisionTransformer) or (own is None and plain):
        return build_encoder(name, weights, crop=crop, drop=drop, class_token=class_token)
    encoder = MapEncoder(build_pyramid(name, weights, crop=crop, drop=drop, output_stride=output_stride))
    if class_token:
        found = f"{name} has no class token that could run through blocks"
        raise BadInput(Problem("backbone.name", found, f"class_token=false, or for instance backbone={EXAMPLE}"))
    return encoder
