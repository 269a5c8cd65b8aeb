"""UniA's network: the shared ViT segmenter with an auxiliary head, uncertainty inference and an attention affinity.

Axes: B images, C classes, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import BadInput, Problem
from methods.parts.affinity import AffinityHead
from methods.parts.attention import between_patches
from methods.parts.backbones import Encoder, encode
from methods.parts.decoders import LargeFOV
from methods.parts.encoders import EXAMPLE
from methods.parts.vit_segmenter import ViTSegmenter, as_map, class_maps
from methods.unia.uncertainty import UncertaintyInference

AFFINITY_BLOCKS = 2
"""The affinity reads the attention of this many last blocks (unia.md 2.1)."""


@dataclass(frozen=True)
class Tokens:
    """What one forward leaves behind."""

    hw: tuple[int, int]
    aux_BND: Tensor
    """After the tapped block, before the final norm."""
    top_BND: Tensor
    """F: what classifier and decoder read."""
    log_var_BND: Tensor | None
    """s; None without uncertainty inference."""
    mean_BND: Tensor | None
    """mu, where it was asked for."""
    affinity_BNN: Tensor | None
    """A in (0,1), where it was asked for."""


class UniaNet(ViTSegmenter):
    """`ViTSegmenter` with a class token in self-attention, auxiliary classifier, uncertainty module and affinity head.

    `uncertainty` None leaves the module out: tokens pass as they are. `attention_logits`: the affinity reads attention
    before its softmax. The LargeFOV decoder starts as PyTorch does, at a cross-entropy of ln K (unia.md 8.4). Raises
    BadInput for decoders and networks that do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        num_labels: int,
        decoder: str,
        width: int,
        aux_block: int,
        uncertainty: UncertaintyInference | None,
        attention_logits: bool,
    ):
        super().__init__(encoder, num_classes=num_classes, num_labels=num_labels, decoder=decoder, width=width)
        if not encoder.heads:
            found, fix = "the attention of this network cannot be read", f"for instance backbone={EXAMPLE}"
            raise BadInput(Problem("backbone.name", found, fix))
        if isinstance(self.decoder, LargeFOV):
            self.decoder = LargeFOV(encoder.dim, num_labels, width, kaiming=False)
        self.aux_block, self.attention_logits = aux_block, attention_logits
        self.classifier_aux = class_maps(encoder.dim, num_classes)
        self.uncertainty = uncertainty
        self.affinity = AffinityHead(len(self.affinity_blocks) * encoder.heads)

    @property
    def affinity_blocks(self) -> tuple[int, ...]:
        """1-based blocks whose attention makes the affinity."""
        depth = self.encoder.depth
        return tuple(range(max(1, depth - AFFINITY_BLOCKS + 1), depth + 1))

    def read(self, images_B3HW: Tensor, *, with_affinity: bool, with_mean: bool) -> Tokens:
        """Everything that the losses read of these images, with gradient; only blocks whose attention is read give up
        the fused kernel."""
        encoded = encode(
            self.encoder,
            images_B3HW,
            tap=self.aux_block,
            attention=self.affinity_blocks if with_affinity else (),
            attention_logits=self.attention_logits,
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
        return Tokens(encoded.hw, encoded.tapped_BND, top_BND, log_var_BND, mean_BND, affinity_BNN)

    def tokens(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """F, the tokens (B,N,D) that classifier and decoder read, and their grid."""
        read = self.read(images_B3HW, with_affinity=False, with_mean=False)
        return read.top_BND, read.hw

    def aux_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,C,h,w) of the auxiliary head; the blocks behind it are not run."""
        encoded = encode(self.encoder, images_B3HW, tap=self.aux_block, stop_at_tap=True)
        return self.classifier_aux(as_map(encoded.last_BND, encoded.hw))

    def both_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,2C,h,w): auxiliary head, then top head."""
        return self.both_maps_of(self.read(images_B3HW, with_affinity=False, with_mean=False))

    def both_maps_of(self, tokens: Tokens) -> Tensor:
        """Raw class maps (B,2C,h,w) of tokens that were read already."""
        aux_BChw = self.classifier_aux(as_map(tokens.aux_BND, tokens.hw))
        return torch.cat([aux_BChw, self.top_maps(tokens.top_BND, tokens.hw)], dim=1)
