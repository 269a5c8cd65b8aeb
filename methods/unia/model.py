"""UniA's network: the shared ViT segmenter with an auxiliary head, uncertainty inference and an attention affinity.

Axes: B images, C classes, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.errors import BadInput, Problem
from methods.parts.bases.aux_segmenter import AuxViTSegmenter
from methods.parts.bases.aux_segmenter import Tokens as CamTokens
from methods.parts.nets.attention import between_patches
from methods.parts.nets.backbones import Encoder, encode
from methods.parts.nets.encoders import EXAMPLE
from methods.parts.ops.affinity import AffinityHead
from methods.unia.uncertainty import UncertaintyInference

AFFINITY_BLOCKS = 2
"""The affinity reads the attention of this many last blocks (unia.md 2.1)."""


@dataclass(frozen=True)
class Tokens(CamTokens):
    """What one forward leaves behind; `top_BND` is F, which classifier and decoder read."""

    log_var_BND: Tensor | None
    """s; None without uncertainty inference."""
    mean_BND: Tensor | None
    """mu, where it was asked for."""
    affinity_BNN: Tensor | None
    """A in (0,1), where it was asked for."""


class UniaNet(AuxViTSegmenter):
    """`AuxViTSegmenter` with a class token in self-attention, an uncertainty module and an affinity head.

    `uncertainty` None leaves the module out: tokens pass as they are. `attention_logits`: the affinity reads attention
    before its softmax. The LargeFOV decoder starts as PyTorch does, at a cross-entropy of ln K (unia.md 8.4). Raises
    BadInput for decoders and networks that do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        uncertainty: UncertaintyInference | None,
        attention_logits: bool,
        **sizes: Any,
    ):
        super().__init__(encoder, kaiming=False, **sizes)
        if not encoder.heads:
            found, fix = "the attention of this network cannot be read", f"for instance backbone={EXAMPLE}"
            raise BadInput(Problem("backbone.name", found, fix))
        self.attention_logits = attention_logits
        self.uncertainty = uncertainty
        self.affinity = AffinityHead(len(self.affinity_blocks) * encoder.heads)

    @property
    def affinity_blocks(self) -> tuple[int, ...]:
        """1-based blocks whose attention makes the affinity."""
        depth = self.encoder.depth
        return tuple(range(max(1, depth - AFFINITY_BLOCKS + 1), depth + 1))

    def read(
        self, images_B3HW: Tensor, *, with_affinity: bool, with_mean: bool, depth_LB: Tensor | None = None
    ) -> Tokens:
        """Everything that the losses read of these images, with gradient; only blocks whose attention is read give up
        the fused kernel. `depth_LB` is stochastic depth that was drawn already (`methods.parts.nets.depth`)."""
        encoded = encode(
            self.encoder,
            images_B3HW,
            tap=self.aux_block,
            attention=self.affinity_blocks if with_affinity else (),
            attention_logits=self.attention_logits,
            depth_LB=depth_LB,
        )
        assert encoded.tapped_BND is not None
        affinity_BNN = None
        if with_affinity:
            maps = [between_patches(a, self.encoder.with_class_token) for a in encoded.attention]
            affinity_BNN = self.affinity(maps)
        top_BND = self.encoder.norm(encoded.last_BND)
        log_var_BND = mean_BND = None
        if self.uncertainty is not None:
            top_BND, log_var_BND, mean_BND = self.uncertainty(top_BND, encoded.hw, with_mean=with_mean)
        skip_BSHW = encoded.skip_BSHW
        return Tokens(encoded.hw, encoded.tapped_BND, top_BND, log_var_BND, mean_BND, affinity_BNN, skip_BSHW=skip_BSHW)

    def features(
        self, images_B3HW: Tensor, depth_LB: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """F, the tokens (B,N,D) that classifier and decoder read, their grid, and the stride-4 map."""
        read = self.read(images_B3HW, with_affinity=False, with_mean=False, depth_LB=depth_LB)
        return read.top_BND, read.hw, read.skip_BSHW

    def cam_tokens(self, images_B3HW: Tensor) -> Tokens:
        """What both classifiers read of these images."""
        return self.read(images_B3HW, with_affinity=False, with_mean=False)
