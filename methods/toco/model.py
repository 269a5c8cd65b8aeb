"""ToCo's network: the shared ViT segmenter with a class token, an auxiliary classifier and a projection head.

Axes: B images, C classes, h w tokens a side, N patch tokens, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.parts.backbones import Encoded, Encoder, encode
from methods.parts.decoders import LargeFOV
from methods.parts.projector import Projector
from methods.parts.vit_segmenter import ViTSegmenter, as_map, class_maps


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of a forward: tapped for the auxiliary classifier (no norm), and the last ones, normalised."""

    hw: tuple[int, int]
    aux_BND: Tensor
    top_BND: Tensor


class TocoNet(ViTSegmenter):
    """`ViTSegmenter` with auxiliary classifier and projection head, on an encoder that runs its class token.

    `kaiming` false starts the LargeFOV decoder as PyTorch does (operators.md A9).
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
        projector: Projector,
        kaiming: bool,
    ):
        super().__init__(encoder, num_classes=num_classes, num_labels=num_labels, decoder=decoder, width=width)
        self.aux_block = aux_block
        self.classifier_aux = class_maps(encoder.dim, num_classes)
        self.projector = projector
        if not kaiming and isinstance(self.decoder, LargeFOV):
            for module in self.decoder.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()

    def read(self, images_B3HW: Tensor) -> tuple[Tokens, Tensor]:
        """Patch tokens and the normalised class token (B,D)."""
        encoded = encode(self.encoder, images_B3HW, tap=self.aux_block)
        assert encoded.tapped_BND is not None
        tokens = Tokens(encoded.hw, encoded.tapped_BND, self.encoder.norm(encoded.last_BND))
        return tokens, self._class_token(encoded)

    def class_tokens(self, images_B3HW: Tensor) -> Tensor:
        """Normalised class tokens (B,D)."""
        return self._class_token(encode(self.encoder, images_B3HW))

    def aux_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,C,h,w) of the auxiliary classifier; the blocks behind it are not run."""
        encoded = encode(self.encoder, images_B3HW, tap=self.aux_block, stop_at_tap=True)
        return self.classifier_aux(as_map(encoded.last_BND, encoded.hw))

    def both_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,2C,h,w): auxiliary classifier, then top classifier."""
        return self.both_maps_of(self.read(images_B3HW)[0])

    def both_maps_of(self, tokens: Tokens) -> Tensor:
        """Raw class maps (B,2C,h,w) of tokens that were read already."""
        aux_BChw = self.classifier_aux(as_map(tokens.aux_BND, tokens.hw))
        return torch.cat([aux_BChw, self.top_maps(tokens.top_BND, tokens.hw)], dim=1)

    def _class_token(self, encoded: Encoded) -> Tensor:
        assert encoded.class_BD is not None
        return self.encoder.norm(encoded.class_BD)
