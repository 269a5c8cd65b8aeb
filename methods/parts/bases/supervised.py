"""Methods whose one loss is cross-entropy on labelled pixels, on either decoder: the network of the row beside them.

Axes: B images, K labels, H W pixels, h w cells of the network's own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.api.fitting import fit_widths
from harness.api.method import Batch, BuildInfo, Method, Progress, StepOutput
from methods.parts.bases.single_stage import Segmenter, decoder_dropout
from methods.parts.bases.together import Drawn, DrawnTogether, StepsTogether
from methods.parts.knobs import SegmenterKnobs
from methods.parts.nets.deeplab import CARD_WIDTH, fitted_decoder, fitted_rates, take_stats
from methods.parts.nets.depth import draw_depth
from methods.parts.nets.pyramids import Pyramid, build_pyramid
from methods.parts.nets.vit_segmenter import DEEPLAB, SegmentationNet, ViTSegmenter
from methods.parts.ops.losses import cross_entropy_ignore, unlabelled_share

VERSION = 1
"""Raised when anything here computes something else."""


class DeepLabSegmenter(SegmentationNet):
    """A pyramid backbone and the DeepLabV3+ decoder."""

    def __init__(self, encoder: Pyramid, *, num_labels: int, width: int, grid: int, dropout: float):
        super().__init__()
        self.encoder = encoder
        self.decoder = fitted_decoder(encoder, num_labels, width=width, grid=grid, dropout=dropout)

    def logits(self, images_B3HW: Tensor) -> Tensor:
        """Segmentation logits (B,K,h,w) at about stride 4."""
        return self.decoder(*self.encoder(images_B3HW))


def deeplab_segmenter(config: SegmenterKnobs, info: BuildInfo) -> tuple[SegmenterKnobs, DeepLabSegmenter]:
    """Config fitted to the backbone, and the network. Raises BadInput where backbone, weights or crop do not fit."""
    encoder = build_pyramid(info.backbone, info.backbone_weights, crop=info.crop, drop=config.drop_path)
    config = fit_widths(config, dim=encoder.dim, tier=info.tier)
    net = DeepLabSegmenter(
        encoder,
        num_labels=info.num_labels,
        width=config.decoder_width,
        grid=max(1, info.crop // encoder.stride),
        dropout=decoder_dropout(info.tier),
    )
    return config, net


@dataclass(frozen=True)
class Read:
    """What the loss reads of images: tokens and the stride-4 map for the decoder, or logits."""

    tokens_BND: Tensor | None = None
    hw: tuple[int, int] | None = None
    skip_BSHW: Tensor | None = None
    logits_BKhw: Tensor | None = None


class Supervised(StepsTogether, Segmenter):
    """Cross-entropy on labelled pixels. Loss term: `seg`. Subclasses give their views and `wanted` labels."""

    any_backbone = True
    wanted: str = "masks"
    """A word for `labels` that it learns from, for its error message."""
    # Wider than in `Segmenter`: nothing here asks for tokens.
    net: ViTSegmenter | DeepLabSegmenter  # type: ignore[assignment]

    def __init__(self, config: SegmenterKnobs, info: BuildInfo):
        if info.decoder != DEEPLAB or self.with_class_token(config):
            super().__init__(config, info)
            return
        Method.__init__(self)
        self.info = info
        self.config, self.net = deeplab_segmenter(config, info)

    @property
    def takes_groups(self) -> bool:
        """On LargeFOV's network, whose encoder normalises no batch; `DeepLabSegmenter`'s normalises its group."""
        return isinstance(self.net, ViTSegmenter) and super().takes_groups

    def draw(self, group: Batch, progress: Progress) -> Drawn:
        """Stochastic depth."""
        assert isinstance(self.net, ViTSegmenter)
        return Drawn(depth={"view1": draw_depth(self.net.encoder, len(group.tags_BC), group.tags_BC)})

    def read(self, batch: Batch, progress: Progress, drawn: DrawnTogether) -> Read:
        """Tokens of all images. Raises ValueError for a batch without labels."""
        if batch.label_BHW is None:
            raise ValueError(f"{type(self).__name__} needs labels={self.wanted}")
        images = batch.views["view1"]
        if isinstance(self.net, ViTSegmenter):
            return Read(*self.net.features(images, drawn.depth.get("view1")))
        return Read(logits_BKhw=self.net.logits(images))

    def losses(self, group: Batch, read: Read, progress: Progress) -> StepOutput:
        """Mean cross-entropy over the labelled pixels of one group, 0 where there are none (agmm.md 2.4 L_seg).

        Logged beside it: the share of crops without a labelled pixel.
        """
        assert group.label_BHW is not None
        logits_BKhw = read.logits_BKhw
        if logits_BKhw is None:
            assert isinstance(self.net, ViTSegmenter)
            assert read.tokens_BND is not None
            assert read.hw is not None
            logits_BKhw = self.net.segment(read.tokens_BND, read.hw, read.skip_BSHW)
        losses = {"seg": cross_entropy_ignore(logits_BKhw, group.label_BHW)}
        return StepOutput(losses, take_stats(self.net), {"unlabelled_crops": unlabelled_share(group.label_BHW)})

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        described = super().describe()
        if isinstance(self.net, DeepLabSegmenter):
            described["decoder_width"] = min(CARD_WIDTH, self.config.decoder_width)
            described["rates"] = list(fitted_rates(max(1, self.info.crop // self.net.encoder.stride)))
        return described
