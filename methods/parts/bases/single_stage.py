"""What the single-stage ViT methods share as `Method`s: network, optimiser, CAMs, pseudo labels, prediction.

Axes: B images, C classes, K labels, H W pixels, h w tokens a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.api.fitting import FITTED_TIERS, fit_widths
from harness.api.method import Batch, BuildInfo, Method, OptimizerPlan, Prediction, Progress, Transform
from harness.api.vocabulary import IGNORE
from methods.parts.bases.schedules import NO_DECAY, cosine_adamw
from methods.parts.knobs import SegmenterKnobs, TagSegmenterKnobs
from methods.parts.nets.backbones import Encoder, build_encoder
from methods.parts.nets.deeplab import CARD_DROPOUT, absorb_stats
from methods.parts.nets.map_encoder import build_token_source
from methods.parts.nets.pyramids import OUTPUT_STRIDE
from methods.parts.nets.vit_segmenter import DEEPLABV2, ViTSegmenter, mode
from methods.parts.ops.cam import PresentClasses, Tags, multi_scale_cam, present_classes
from methods.parts.ops.losses import balanced_segmentation_loss, cross_entropy_ignore
from methods.parts.ops.pixels import denormalise, normalisation_of
from methods.parts.ops.pseudo import pseudo_labels, refined_scores
from methods.parts.views.crop_views import CropViews
from methods.parts.views.device_views import PIXELS, DeviceViews

VERSION = 1
"""Raised when anything here computes something else."""
Named = tuple[str, nn.Parameter]
UNDECAYED = (*NO_DECAY, "position_table")
DEEPLABV2_STRIDE = 8
HEADS = ("classifier_", "decoder.", "projector.")
"""Starts of the names of parameters that learn `head_lr_scale` times faster."""


def decoder_dropout(tier: str) -> float:
    """Channel dropout of DeepLabV3+: the card's at tier paper; hundreds of steps on narrow decoders go without."""
    return 0.0 if tier in FITTED_TIERS else CARD_DROPOUT


def decoder_stride(decoder: str) -> int:
    """Output stride that a decoder wants of networks that can be dilated, pixels."""
    return DEEPLABV2_STRIDE if decoder == DEEPLABV2 else OUTPUT_STRIDE


class Segmenter(Method):
    """A method whose network is a `ViTSegmenter`; subclasses give `step`, their targets and their views."""

    targets: tuple[str, ...] = ("segmentation",)
    view_names: tuple[str, ...] = ("view1",)
    any_backbone: bool = False
    """Whether a map is enough of the backbone, as any CNN has it; else its blocks are read, as a plain ViT has them."""
    net: ViTSegmenter

    def __init__(self, config: SegmenterKnobs, info: BuildInfo):
        super().__init__()
        words: dict[str, Any] = {"crop": info.crop, "drop": config.drop_path}
        words["class_token"] = self.with_class_token(config)
        if self.any_backbone:
            stride = decoder_stride(info.decoder)
            encoder = build_token_source(info.backbone, info.backbone_weights, output_stride=stride, **words)
        else:
            encoder = build_encoder(info.backbone, info.backbone_weights, **words)
        if getattr(config, "compile_blocks", False):
            encoder.compile_blocks()
        self.config = fit_widths(config, dim=encoder.dim, tier=info.tier)
        self.info = info
        self.net = self.network(encoder)

    def with_class_token(self, config: SegmenterKnobs) -> bool:
        """Whether the class token runs through the encoder's blocks, over a frozen position table: the knob, if any."""
        return bool(getattr(config, "class_token", False))

    def network(self, encoder: Encoder) -> ViTSegmenter:
        """The network of this method on a built encoder."""
        classes = self.info.num_classes if "cam" in self.targets else None
        return ViTSegmenter(
            encoder,
            num_classes=classes,
            num_labels=self.info.num_labels,
            **self.decoder_sizes(encoder),
        )

    def decoder_sizes(self, encoder: Encoder) -> dict[str, Any]:
        """What a `ViTSegmenter` is told of its decoder."""
        return {
            "decoder": self.info.decoder,
            "width": self.config.decoder_width,
            "grid": max(1, self.info.crop // encoder.stride),
            "dropout": decoder_dropout(self.info.tier),
        }

    def views(self) -> Transform:
        """The random crops of fsr.md 2.1, one per view name, made on the host."""
        mean, std = self.normalisation()
        return CropViews(names=self.view_names, crop=self.info.crop, knobs=self.config, mean=mean, std=std)

    def transform(self) -> Transform:
        """The method's views, of which the host draws alone where a knob `device_views` says so."""
        views = self.views()
        if not getattr(self.config, "device_views", False):
            return views
        assert isinstance(views, CropViews), "the knob is that of methods with these views"
        return DeviceViews(views)

    def on_device(self, group: Batch) -> Batch:
        """The group with its views."""
        transform = self.transform() if PIXELS in group.views else None
        return transform.finished(group) if isinstance(transform, DeviceViews) else group

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The network's own, or ImageNet's where the config says so (operators.md A1)."""
        encoder = self.net.encoder
        return normalisation_of(encoder.mean, encoder.std, imagenet=self.config.imagenet_normalisation)

    @property
    def warmup_steps(self) -> int:
        """Length of the warm-up: a share of T, at least one step unless it is switched off."""
        share = self.config.warmup * self.info.iterations
        return max(1, round(share)) if share else 0

    def optimizers(self) -> list[OptimizerPlan]:
        """AdamW on encoder and heads with warm-up and half-cosine (fsr.md section 3)."""
        config, total = self.config, self.info.iterations
        lr = config.lr * config.lr_factor
        body, heads = self.body_and_heads()
        plan = cosine_adamw(
            body,
            heads,
            lr=lr,
            head_lr=lr * config.head_lr_scale,
            weight_decay=config.weight_decay,
            total=total,
            warmup=self.warmup_steps,
            start_ratio=config.warmup_start,
            no_decay=UNDECAYED,
        )
        return [plan]

    def body_and_heads(self) -> tuple[list[Named], list[Named]]:
        """The network's parameters by name: those of the encoder, and those that learn faster."""
        named = list(self.net.named_parameters())
        return [(n, p) for n, p in named if not n.startswith(HEADS)], [(n, p) for n, p in named if n.startswith(HEADS)]

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """Running statistics of the decoder's batch norm, the teacher's as well."""
        for net in (self.net, self.teacher):
            if net is not None:
                absorb_stats(net, stats)

    def weights(self, name: str) -> Any:
        """The student's or the teacher's network. Raises ValueError for weights that this method has not."""
        net = {"student": self.net, "teacher": self.teacher}.get(name)
        if net is None:
            raise ValueError(f"{type(self).__name__} has no {name} weights")
        return net

    def check_targets(self, want: frozenset[str]) -> None:
        """Raises ValueError for a target that this method does not make."""
        missing = sorted(want - set(self.targets))
        if missing:
            raise ValueError(f"{type(self).__name__} makes {', '.join(self.targets)}, not {', '.join(missing)}")

    @torch.no_grad()
    def predict(
        self,
        images_B3HW: Tensor,
        tags_BC: Tensor | None = None,
        *,
        want: frozenset[str],
        weights: str = "student",
    ) -> Prediction:
        """Segmentation logits at the network's own resolution."""
        self.check_targets(want)
        net = self.weights(weights)
        with mode(net, training=False):
            logits = net.logits(images_B3HW).float() if "segmentation" in want else None
        return Prediction(segmentation_BKhw=logits)

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size."""
        encoder = self.net.encoder
        mean, std = self.normalisation()
        return {
            "dim": encoder.dim,
            "depth": encoder.depth,
            "stride": encoder.stride,
            "grid": self.info.crop // encoder.stride,
            "decoder_width": self.config.decoder_width,
            "warmup_steps": self.warmup_steps,
            "mean": list(mean),
            "std": list(std),
        }


class TagSegmenter(Segmenter):
    """A `Segmenter` that learns from tags: its top CAM makes the pseudo labels of its decoder."""

    targets = ("cam", "pseudo", "segmentation")
    cam_relu_first: bool = True
    """Whether class maps pass a ReLU before they are resized (A3): FSR's do, those of ToCo and AFA do not."""
    config: TagSegmenterKnobs

    @staticmethod
    def present(group: Batch) -> PresentClasses:
        """The classes that the group's images show, in as many slots as the host counted."""
        return present_classes(group.tags_BC, None if group.extents is None else group.extents.classes)

    def cam_logits(self, images_B3HW: Tensor) -> Tensor:
        """Class maps (B,C,h,w) of the top classifier, with gradient."""
        return self.net.top_maps(*self.net.tokens(images_B3HW))

    @torch.no_grad()
    def pseudo_mask(self, images_B3HW: Tensor, cam_BCHW: Tensor, tags_BC: Tags, content_BHW: Tensor | None) -> Tensor:
        """Pseudo labels int64 (B,H,W) of normalised images, as the decoder numbers them (A5)."""
        config = self.config
        label_BHW = pseudo_labels(
            denormalise(images_B3HW, *self.normalisation()),
            cam_BCHW,
            tags_BC,
            high=config.pseudo_high,
            low=config.pseudo_low,
            content_BHW=content_BHW,
            dilations=config.par_dilations,
            iterations=config.par_iterations,
        )
        return self.segmentation_ids(label_BHW)

    def segmentation_ids(self, label_BHW: Tensor) -> Tensor:
        """Label values of A5 as the decoder numbers them: without a background class, what A5 calls background
        becomes 255 and class ids start at 0."""
        if self.info.has_background:
            return label_BHW
        return torch.where((label_BHW == 0) | (label_BHW == IGNORE), IGNORE, label_BHW - 1)

    @torch.no_grad()
    def top_cam(
        self, net: ViTSegmenter, images_B3HW: Tensor, tags_BC: Tags | None, first_BChw: Tensor | None
    ) -> Tensor:
        """CAM (B,C,H,W) of the top classifier over scales and mirrors, in eval mode, absent classes 0 (A3).

        `first_BChw` is the raw map of these images at scale 1, where it is known.
        """
        scales = self.config.cam_scales
        with mode(net, training=False):
            return multi_scale_cam(
                lambda x: net.top_maps(*net.tokens(x)),
                images_B3HW,
                scales,
                relu_first=self.cam_relu_first,
                first_BChw=first_BChw if 1.0 in scales else None,
                tags_BC=tags_BC,
            )

    def segmentation_loss(self, logits_BKhw: Tensor, label_BHW: Tensor) -> Tensor:
        """A7; plain cross-entropy where there is no background to balance against."""
        if self.info.has_background:
            return balanced_segmentation_loss(logits_BKhw, label_BHW)
        return cross_entropy_ignore(logits_BKhw, label_BHW)

    @torch.no_grad()
    def predict(
        self,
        images_B3HW: Tensor,
        tags_BC: Tensor | None = None,
        *,
        want: frozenset[str],
        weights: str = "student",
    ) -> Prediction:
        """CAM (A3, mirrored too, knob `cam_scales`), its refinement by PAR, and segmentation logits."""
        self.check_targets(want)
        net = self.weights(weights)
        cam_BCHW = pseudo_BCHW = logits_BKhw = first_BChw = None
        with mode(net, training=False):
            if "segmentation" in want:
                tokens_BND, hw, skip_BSHW = net.features(images_B3HW)
                logits_BKhw = net.segment(tokens_BND, hw, skip_BSHW).float()
                first_BChw = net.top_maps(tokens_BND, hw)
            if want & {"cam", "pseudo"}:
                cam_BCHW = self.top_cam(net, images_B3HW, tags_BC, first_BChw)
        if cam_BCHW is not None and "pseudo" in want:
            pixels_B3HW = denormalise(images_B3HW, *self.normalisation())
            pseudo_BCHW = refined_scores(
                pixels_B3HW, cam_BCHW, tags_BC, self.config.par_iterations, self.config.par_dilations
            )
        return Prediction(cam_BCHW if "cam" in want else None, pseudo_BCHW, logits_BKhw)
