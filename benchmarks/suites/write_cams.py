"""The stage `write-cams` next to the passes of its network alone: reading an image, scales and mirrors, half precision,
compression and writing are what stands beside them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import Case
from benchmarks.floor import products_of
from benchmarks.method_step import CLASSES, build_info
from benchmarks.suites.loading import photo
from harness.api.images import ImageInfo, ImageInput, Maps
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.datasets.io.image_files import file_of, read
from harness.datasets.io.images import read_image
from harness.engine.inference.passes import normalised, resized
from harness.engine.stages.fan_out import written_by
from harness.engine.stages.workers import predicted_maps
from harness.files import write_bytes
from harness.plan.knobs import typed_knobs
from methods.parts.bases.stage_cam import StageCam
from methods.parts.ops.map_fusion import mirrored_pairs, rescaled
from methods.parts.stages.write_cams import normalised as one_normalised
from methods.parts.stages.write_cams import writer

GOAL = 0.9
"""Share of the time in the network."""
PRESENT = (3, 14)


@dataclass(frozen=True)
class Size:
    """A method at one size, and the images that it is asked about."""

    method: str
    family: str
    tier: str
    backbone: str
    hw: tuple[int, int]
    images: int = 1


SIZES = {
    "irn voc": Size("irn", "voc", "paper", "resnet50", (375, 500)),
    "irn lab": Size("irn", "voc", "lab", "mobilenetv2_100", (213, 320)),
    "sipe lab": Size("sipe", "voc", "lab", "mobilenetv2_100", (213, 320)),
    "irn smoke": Size("irn", "shapes", "smoke", "shapes_cnn", (96, 96)),
    "cam lab": Size("cam", "voc", "lab", "vit_tiny_patch16_224", (213, 320), images=16),
}


class Stage:
    """A network, JPEGs in a folder of their own, and the stage's worker."""

    def __init__(self, size: Size) -> None:
        method = registry().choose(size.method)
        chosen = method.preset(size.family, size.tier, "default")
        info = build_info(chosen, tier=size.tier, backbone=size.backbone)
        torch.manual_seed(0)
        self.config = typed_knobs(method.spec, chosen.knobs)
        self.network: Any = resolve(method.spec.build)(self.config, info).eval()
        self.folder = Path(tempfile.mkdtemp(prefix="write-cams-"))
        self.tags_C = np.zeros(CLASSES, np.float32)
        self.tags_C[list(PRESENT)] = 1
        self.ids = [f"p{n}" for n in range(size.images)]
        for n, image_id in enumerate(self.ids):
            picture = Image.fromarray(photo(n)).resize(size.hw[::-1], Image.Resampling.BICUBIC)
            picture.save(self._photo(image_id), quality=90)
        about = ImageInfo(
            num_classes=CLASSES,
            has_background=True,
            crop=chosen.crop,
            variant="default",
            targets=("cam",),
            networks={"network": self.network},
        )
        self.worker = (writer if isinstance(self.network, StageCam) else predicted_maps)(self.config, about)
        self.passes = self._passes(chosen.crop)

    def _photo(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.jpg"

    def inputs(self) -> list[ImageInput]:
        """The images as the stage reads them."""
        return [ImageInput(i, read_image(self._photo(i)), self.tags_C) for i in self.ids]

    def _passes(self, crop: int) -> Callable[[], object]:
        """The network on what it is asked about, made beforehand."""
        network, inputs = self.network, self.inputs()
        tags_BC = torch.from_numpy(np.stack([i.tags_C for i in inputs]))
        if isinstance(network, StageCam):
            (one,) = inputs
            share = min(1.0, network.config.long_max * crop / max(one.image_HW3.shape[:2]))
            pixels = rescaled(one_normalised(one, network, "cpu"), share)
            pairs = list(mirrored_pairs(pixels, network.config.cam_scales))
            return lambda: [network.localised(pair, tags_BC) for pair in pairs]
        views: Tensor = normalised([resized(i.image_HW3, (crop, crop)) for i in inputs], network, "cpu")
        return lambda: network.predict(views, tags_BC, want=frozenset({"cam"}))

    @torch.no_grad()
    def alone(self) -> object:
        """The network's passes."""
        return self.passes()

    def write(self) -> None:
        """The images' files, from JPEGs."""
        inputs = self.inputs()
        found = written_by(self.worker, inputs, "cpu", bf16=False)
        for image_id, (suffix, content) in zip(self.ids, found, strict=True):
            write_bytes(file_of(self.folder, image_id, suffix), content, sync=False)

    def equal(self) -> str:
        """The files hold the worker's maps, in half precision, and cost the products of the passes and no others."""
        written, alone = products_of(self.write), products_of(self.alone)
        assert written.flops == alone.flops, f"{written.flops} and {alone.flops} operations"
        maps, most = read(self.folder, self.ids[0]), 0.0
        assert isinstance(maps, Maps)
        assert maps.classes[maps.classes >= 0].tolist() == list(PRESENT)
        with torch.no_grad():
            many = getattr(self.worker, "many", None)
            one = self.inputs()
            fresh = many(one)[0] if many is not None else self.worker(one[0])
        for ours, theirs in zip(maps.scales["cam"], fresh.scales["cam"], strict=True):
            most = max(most, float(np.abs(ours.astype(np.float32) - theirs.astype(np.float32)).max()))
        assert most == 0.0, f"written maps are {most:.1e} from those of the network"
        size = sum(file_of(self.folder, i, ".npz").stat().st_size for i in self.ids) / len(self.ids) / 1024
        return f"written maps are the network's in half precision, {size:.0f} KiB an image"


def cases(quick: bool) -> list[Case]:
    """VOC's size on a ResNet-50, and the sizes of tiers lab and smoke; quick: the last alone, which has no goal."""
    return [_case(name, size, quick) for name, size in SIZES.items() if not quick or size.tier == "smoke"]


def _case(name: str, size: Size, quick: bool) -> Case:
    @functools.cache
    def stage() -> Stage:
        return Stage(size)

    return Case(
        f"write-cams {name}",
        lambda: stage().alone(),
        lambda: stage().write(),
        lambda: stage().equal(),
        None if size.tier == "smoke" else GOAL,
        prepare=stage,
        unit=f"{size.backbone}, {size.hw[1]}x{size.hw[0]}",
        images=size.images,
    )
