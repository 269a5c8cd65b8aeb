"""The network of the single-stage ViT methods that follow fsr.md: encoder, 1x1 class maps, decoder.

Axes: B images, C classes, K labels, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from harness.errors import BadInput, Problem
from methods.parts.nets.backbones import Encoder, encode
from methods.parts.nets.decoders import DeepLabV2, LargeFOV, deeplabv2_rates
from methods.parts.nets.deeplab import DeepLabV3Plus, fitted_decoder

VERSION = 1
"""Raised when the network computes something else."""
LARGEFOV, DEEPLABV2, DEEPLAB = "largefov", "deeplabv2", "deeplabv3plus"
"""Decoders by command-line word."""


class SegmentationNet(nn.Module):
    """A network from normalised images to segmentation logits."""

    @abstractmethod
    def logits(self, images_B3HW: Tensor) -> Tensor:
        """Segmentation logits (B,K,h,w) at the network's own resolution."""


class ViTSegmenter(SegmentationNet):
    """Encoder, top classifier on globally max-pooled normalised patch tokens, decoder on the same.

    `num_classes` None leaves the classifier out (full supervision). `grid` (cells a side of a crop) is DeepLab's;
    `dropout` is DeepLabV3+'s, whose stride-4 map comes from the encoder, or from the tokens where it has none. Raises
    BadInput for DeepLabV2, whose rates are made for stride 8, on the tokens of a ViT.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int | None,
        num_labels: int,
        decoder: str,
        width: int,
        grid: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        if decoder not in (LARGEFOV, DEEPLAB) and not (decoder == DEEPLABV2 and encoder.depth == 0):
            raise BadInput(
                Problem(
                    "decoder",
                    f"{decoder} does not work on the tokens of a ViT",
                    f"decoder={LARGEFOV} or {DEEPLAB}",
                )
            )
        self.encoder = encoder
        if encoder.cls_token is not None and not encoder.with_class_token:
            encoder.cls_token.requires_grad_(False)  # not in self-attention then, fsr.md 2.2
        self.classifier_top = class_maps(encoder.dim, num_classes) if num_classes else None
        self.decoder: LargeFOV | DeepLabV2 | DeepLabV3Plus
        if decoder == LARGEFOV:
            self.decoder = LargeFOV(encoder.dim, num_labels, width)
        elif decoder == DEEPLABV2:
            self.decoder = DeepLabV2(encoder.dim, num_labels, deeplabv2_rates(grid))
        else:
            self.decoder = fitted_decoder(encoder, num_labels, width=width, grid=grid, dropout=dropout)

    def features(
        self, images_B3HW: Tensor, depth_LB: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """What `segment` reads: normalised patch tokens (B,N,D), their grid, the stride-4 map where there is one.
        `depth_LB` is stochastic depth that was drawn already (`methods.parts.nets.depth`)."""
        encoded = encode(self.encoder, images_B3HW, depth_LB=depth_LB)
        return self.encoder.norm(encoded.last_BND), encoded.hw, encoded.skip_BSHW

    def tokens(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised patch tokens (B,N,D) and their grid."""
        return self.features(images_B3HW)[:2]

    @property
    def top(self) -> nn.Conv2d:
        """The top classifier. Raises TypeError where there is none."""
        if self.classifier_top is None:
            raise TypeError("this network has no classifier")
        return self.classifier_top

    def top_maps(self, tokens_BND: Tensor, hw: tuple[int, int]) -> Tensor:
        """Raw class maps (B,C,h,w) of the top classifier."""
        return self.top(as_map(tokens_BND, hw))

    def logits(self, images_B3HW: Tensor) -> Tensor:
        """Segmentation logits (B,K,h,w) at the decoder's resolution: that of the tokens, or stride 4."""
        return self.segment(*self.features(images_B3HW))

    def segment(self, tokens_BND: Tensor, hw: tuple[int, int], skip_BSHW: Tensor | None) -> Tensor:
        """Decoder logits (B,K,h,w)."""
        deep_BDhw = as_map(tokens_BND, hw)
        if isinstance(self.decoder, DeepLabV3Plus):
            return self.decoder(deep_BDhw, skip_BSHW)
        return self.decoder(deep_BDhw)


def class_maps(dim: int, num_classes: int) -> nn.Conv2d:
    """A classifier that is also a CAM: 1x1 convolution without bias, D -> C (fsr.md 2.2)."""
    return nn.Conv2d(dim, num_classes, 1, bias=False)


def pooled_logits(classifier: nn.Conv2d, tokens_BND: Tensor) -> Tensor:
    """Class logits (B,C): the classifier on the maximum over tokens of each channel (fsr.md 2.2)."""
    return classifier(tokens_BND.amax(dim=1)[..., None, None]).flatten(1)


def as_map(tokens_BND: Tensor, hw: tuple[int, int]) -> Tensor:
    """Row-major tokens (B,N,D) as a map (B,D,h,w)."""
    return tokens_BND.transpose(1, 2).unflatten(2, hw)


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Run a block with the module in training or eval mode, then put it back."""
    before = module.training
    if before == training:
        yield
        return
    module.train(training)
    try:
        yield
    finally:
        module.train(before)
