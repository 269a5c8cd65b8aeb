"""A method of two small networks, registered by the tests: the second learns from maps that the first wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api.dataset import Sample
from harness.api.images import ImageInfo, ImageInput, Maps
from harness.api.method import Batch, BuildInfo, Method, OptimizerPlan, Prediction, Progress, StepOutput, Views
from harness.api.recipe import PerImage, Recipe, RecipeInfo, Train
from harness.api.registry import registry
from harness.api.spec import MethodConfig, MethodSpec, Preset, knob
from methods.parts.views.warp import Warp

STRIDE = 8
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    """One knob for each stage, and one for all."""

    lr: float = knob(0.05, "learning rate of the first network", source="test", stage="train")
    power: float = knob(1.0, "exponent of the maps that are written", source="test", stage="write-cams")
    seed_threshold: float = knob(0.4, "background score of the seeds", source="test", stage="train-segmenter")
    momentum: float = knob(0.5, "of both optimisers", source="test")


def preset(family: str, tier: str, variant: str) -> Preset:
    return Preset(
        backbone="shapes_vit", decoder="largefov", crop=48, batch=4, group=2, iterations=6, card_iterations=6,
        networks={"segmenter": {"iterations": 4, "crop": 32, "backbone": "shapes_cnn"}},
    )  # fmt: skip


def recipe(config: ToyConfig, info: RecipeInfo) -> Recipe:
    return Recipe(
        (
            Train(),
            PerImage(name="write-cams", makes="cams", does="recipe_toys:raw_maps", networks=("network",)),
            Train(
                name="train-segmenter", network="segmenter", build="recipe_toys:build_segmenter", extra={"seed": "cams"}
            ),
        ),
        {"cam": "cams", "segmentation": "segmenter"},
    )


METHOD = MethodSpec(
    name="twostage",
    config=ToyConfig,
    preset="recipe_toys:preset",
    build="recipe_toys:build",
    recipe="recipe_toys:recipe",
    labels=("tags",),
    targets=("cam", "segmentation"),
    title="two networks",
)


@contextmanager
def registered() -> Iterator[None]:
    """The method under its name, for as long as the block lasts."""
    known = registry()
    known.add("twostage", "recipe_toys:METHOD", "a test")
    try:
        yield
    finally:
        known._entries.pop("twostage")
        known._specs.pop("twostage", None)


@dataclass(frozen=True)
class Cut:
    """A random square of the image, mirrored or not, and what travels with it at the network's stride."""

    crop: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        height, width = sample.image_HW3.shape[:2]
        top, left = (int(rng.integers(0, n - self.crop + 1)) for n in (height, width))
        image = sample.image_HW3[top : top + self.crop, left : left + self.crop]
        warp = Warp.whole((height, width)).cut(top, left, self.crop, self.crop)
        if rng.random() < 0.5:
            image, warp = image[:, ::-1], warp.mirrored()
        view = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
        return Views({"view1": (view - 0.5) / 0.25}, extra=warp(sample.extra, (self.crop // STRIDE,) * 2))


class Small(Method):
    """One convolution."""

    def __init__(self, config: ToyConfig, info: BuildInfo, channels: int):
        super().__init__()
        self.config, self.info = config, info
        self.conv = nn.Conv2d(3, channels, STRIDE, STRIDE)

    def transform(self) -> Cut:
        return Cut(self.info.crop)

    def optimizers(self) -> list[OptimizerPlan]:
        sgd = torch.optim.SGD(self.parameters(), lr=self.config.lr, momentum=self.config.momentum)
        return [OptimizerPlan(sgd, lambda step: 1 - step / self.info.iterations)]

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return MEAN, STD

    def describe(self) -> dict[str, object]:
        return {"crop": self.info.crop, "steps": self.info.iterations, "backbone": self.info.backbone}


class First(Small):
    """Learns tags; its maps are its CAM."""

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        scores_BC = self.conv(group.views["view1"]).mean((2, 3))
        return StepOutput({"cls": F.multilabel_soft_margin_loss(scores_BC, group.tags_BC)})

    def cam_logits(self, images_B3HW: Tensor) -> Tensor:
        return self.conv(images_B3HW)

    def predict(
        self, images_B3HW: Tensor, tags_BC: Tensor | None = None, *, want: frozenset[str], weights: str = "student"
    ) -> Prediction:
        raise AssertionError("its maps are read from files")


class Second(Small):
    """Learns the seeds that travel with the images."""

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        seed_BChw = group.extra["seed"]
        score_Bhw, cls_Bhw = seed_BChw.max(1)
        label_Bhw = torch.where(score_Bhw > self.config.seed_threshold, cls_Bhw + 1, 0)
        return StepOutput({"seg": F.cross_entropy(self.conv(group.views["view1"]), label_Bhw)})

    def predict(
        self, images_B3HW: Tensor, tags_BC: Tensor | None = None, *, want: frozenset[str], weights: str = "student"
    ) -> Prediction:
        assert want == {"segmentation"}
        return Prediction(segmentation_BKhw=self.conv(images_B3HW))


def build(config: ToyConfig, info: BuildInfo) -> First:
    assert (info.stage, info.crop, info.backbone) == ("train", 48, "shapes_vit")
    return First(config, info, info.num_classes)


def build_segmenter(config: ToyConfig, info: BuildInfo) -> Second:
    assert (info.stage, info.crop, info.backbone) == ("train-segmenter", 32, "shapes_cnn")
    return Second(config, info, info.num_labels)


class RawMaps:
    """Maps of an image at two scales, not normalised."""

    def __init__(self, config: ToyConfig, info: ImageInfo):
        self.config, self.network = config, info.networks["network"]

    def __call__(self, image: ImageInput) -> Maps:
        pixels = torch.from_numpy(image.image_HW3).permute(2, 0, 1)[None].float() / 255
        present = np.flatnonzero(image.tags_C > 0)
        scales = []
        for share in (1.0, 0.5):
            view = F.interpolate((pixels - 0.5) / 0.25, scale_factor=share, mode="bilinear") if share < 1 else pixels
            maps = self.network.cam_logits(view)[0, present].relu() ** self.config.power
            scales.append(maps.numpy())
        return Maps(present.astype(np.int16), {"cam": scales})


def raw_maps(config: ToyConfig, info: ImageInfo) -> RawMaps:
    assert not info.networks["network"].training
    return RawMaps(config, info)
