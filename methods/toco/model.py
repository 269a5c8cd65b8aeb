"""ToCo's network: the ViT segmenter with an auxiliary classifier, a class token and a projection head.

Axes: B images, D channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from methods.parts.bases.aux_segmenter import AuxViTSegmenter, Tokens
from methods.parts.nets.backbones import Encoded, Encoder, encode
from methods.parts.nets.projector import Projector


class TocoNet(AuxViTSegmenter):
    """`AuxViTSegmenter` with a projection head, on an encoder that runs its class token."""

    def __init__(self, encoder: Encoder, *, projector: Projector, **sizes: Any):
        super().__init__(encoder, **sizes)
        self.projector = projector

    def read(self, images_B3HW: Tensor, depth_LB: Tensor | None = None) -> tuple[Tokens, Tensor]:
        """Patch tokens and the normalised class token (B,D). `depth_LB` here and below is stochastic depth that was
        drawn already (`methods.parts.nets.depth`)."""
        encoded = encode(self.encoder, images_B3HW, tap=self.aux_block, depth_LB=depth_LB)
        return self.tokens_of(encoded), self._class_token(encoded)

    def class_tokens(self, images_B3HW: Tensor, depth_LB: Tensor | None = None) -> Tensor:
        """Normalised class tokens (B,D)."""
        return self._class_token(encode(self.encoder, images_B3HW, depth_LB=depth_LB))

    def _class_token(self, encoded: Encoded) -> Tensor:
        assert encoded.class_BD is not None
        return self.encoder.norm(encoded.class_BD)
