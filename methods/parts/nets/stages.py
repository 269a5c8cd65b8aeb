"""Backbones taken apart into five stages, the way multi-stage recipes read a ResNet: a stem and four layers.

Axes: B images, H W pixels, D channels, h w cells, N tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn

from harness.api.encoders import given_encoder
from harness.errors import BadInput, Problem
from methods.parts.nets.backbones import SHAPES_NAMES, Encoder, build_encoder, whole_patches
from methods.parts.nets.encoders import Floats3, ShapesEncoder
from methods.parts.nets.foreign import first_line
from methods.parts.nets.pyramids import VIT_MODULES, ShapesPyramid, build_pyramid
from methods.parts.nets.shapes_nets import ShapesCNN, ShapesViT
from methods.parts.nets.timm_nets import REFUSED, check_name, create

VERSION = 1
"""Raised when a backbone computes something else."""
COUNT = 5
OUTPUT_STRIDE = 16
PROBE = 64
"""Side of the image by which stages are tried, pixels."""
NO_NORM: tuple[Floats3, Floats3] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Stages(nn.Module):
    """Five stages; `forward(images (B,3,H,W), frozen=0)` -> the map of each, the first `frozen` of them without
    gradient. Batch norm keeps the statistics of its pretraining."""

    dims: tuple[int, ...]
    """Channels of the maps."""
    strides: tuple[int, ...]
    """Pixels per cell of the maps."""
    pads: bool = True
    """Whether maps cover whole cells beyond an image that has none; False where the image is resized to whole cells."""
    mean: Floats3
    std: Floats3

    def freeze(self, count: int) -> None:
        """Keep what the maps behind the first `count` get no gradient to from being trained."""
        learned = [p for p in self.parameters() if p.requires_grad]
        reached: tuple[Tensor | None, ...] = (None,) * len(learned)
        if count < COUNT:
            before = self.training
            self.eval()
            total = torch.stack([x.sum() for x in self(_probe(self), frozen=count)[count:]]).sum()
            self.train(before)
            reached = torch.autograd.grad(total, learned, allow_unused=True)
        for parameter, gradient in zip(learned, reached, strict=True):
            parameter.requires_grad_(gradient is not None)

    def train(self, mode: bool = True) -> Stages:
        """As `nn.Module.train`, but batch norm stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class StageList(nn.ModuleList, Stages):
    """Stages that are modules, one behind the other. Channels and strides are found by trying them on an image.

    Raises ValueError for another number of them.
    """

    def __init__(self, stages: Iterable[nn.Module], norm: tuple[Floats3, Floats3] = NO_NORM):
        super().__init__(stages)
        if len(self) != COUNT:
            raise ValueError(f"{len(self)} stages: {COUNT} are needed")
        self.mean, self.std = norm
        self.train(self.training)
        with torch.no_grad():
            maps = self(_probe(self))
        self.dims = tuple(int(x.shape[1]) for x in maps)
        self.strides = tuple(round(PROBE / int(x.shape[3])) for x in maps)

    def forward(self, images_B3HW: Tensor, frozen: int = 0) -> list[Tensor]:
        maps = [images_B3HW]
        for i, stage in enumerate(self):
            with _gradient(i >= frozen):
                maps.append(stage(maps[-1]))
        return maps[1:]


class TokenStages(Stages):
    """A ViT without class token: its patch tokens with positions, then four runs of blocks, the last one normalised.

    Maps have one stride; images are resized to multiples of it. `shapes_vit` has its convolutions of stride 4 as first
    map, and three runs.
    """

    pads = False

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        if encoder.cls_token is not None:
            encoder.cls_token.requires_grad_(False)  # not in self-attention here
        self.mean, self.std = encoder.mean, encoder.std
        self.fine = isinstance(encoder, ShapesEncoder)
        self.dims = ((ShapesViT.skip_dim,) if self.fine else ()) + (encoder.dim,) * (COUNT - self.fine)
        self.strides = ((encoder.stride // 2,) if self.fine else ()) + (encoder.stride,) * (COUNT - self.fine)
        runs = COUNT - 1 - self.fine
        self.ends = tuple(-(-encoder.depth * i // runs) for i in range(runs + 1))
        self.train(self.training)

    def forward(self, images_B3HW: Tensor, frozen: int = 0) -> list[Tensor]:
        encoder, maps = self.encoder, []
        images_B3HW = whole_patches(images_B3HW, encoder.stride)
        if self.fine:
            net = cast(ShapesViT, encoder.net)
            with _gradient(frozen < 1):
                maps.append(net.stride4(images_B3HW))
        with _gradient(len(maps) >= frozen):
            x_BND, hw = net.embed_stride4(maps[0]) if self.fine else encoder.embed(images_B3HW)
            x_BND = x_BND + encoder.position(*hw)
            maps.append(_as_map(x_BND, hw))
        for start, end in itertools.pairwise(self.ends):
            with _gradient(len(maps) >= frozen):
                for i in range(start, end):
                    x_BND = encoder.run_block(i, x_BND, hw, class_token=False)
                maps.append(_as_map(encoder.norm(x_BND) if end == encoder.depth else x_BND, hw))
        return maps


def _as_map(tokens_BND: Tensor, hw: tuple[int, int]) -> Tensor:
    return tokens_BND.transpose(1, 2).unflatten(2, hw)


def _gradient(wanted: bool) -> torch.set_grad_enabled:
    return torch.set_grad_enabled(wanted and torch.is_grad_enabled())


def _probe(stages: nn.Module) -> Tensor:
    """An image (1,3,64,64), or of the channels that the first convolution takes, that is not blank, where the stages
    are; no generator of the run is drawn from."""
    like = next(stages.parameters(), torch.zeros(0))
    depth = next((m.in_channels for m in stages.modules() if isinstance(m, nn.Conv2d)), 3)
    values = torch.linspace(-1, 1, depth * PROBE * PROBE, dtype=like.dtype, device=like.device).sin()
    return values.view(1, depth, PROBE, PROBE)


def build_stages(name: str, weights: str | None, *, crop: int, drop: float = 0.0) -> Stages:
    """The backbone `name` in five stages of output stride at most 16 where it can be had, on the CPU; words and errors
    as `build_encoder`.

    A CNN whose last stages were dilated to keep that stride has the dilation taken back (irn.md 1). `drop` (stochastic
    depth) concerns ViTs. Raises BadInput for a network that is neither a plain ViT nor a chain of CNN stages.
    """
    if (own := given_encoder()) is not None:
        return _of_module(own, crop, drop)
    if name == "shapes_cnn":
        pyramid = build_pyramid(name, weights, crop=crop, drop=drop)
        assert isinstance(pyramid, ShapesPyramid)
        return _shapes_cnn(pyramid.net)
    if name != "shapes_vit":
        check_name(name, SHAPES_NAMES)
    if name == "shapes_vit" or is_model_in_modules(name.partition(".")[0], VIT_MODULES):
        return TokenStages(build_encoder(name, weights, crop=crop, drop=drop))
    return _cnn(name, weights)


def _of_module(net: nn.Module, crop: int, drop: float) -> Stages:
    """Stages made of a module (`harness.api.encoders`): five modules in a row, a network of maps, or a ViT.

    Raises BadInput for any other.
    """
    if isinstance(net, Stages):
        return net
    if isinstance(net, ShapesCNN):
        return _shapes_cnn(net)
    try:
        if isinstance(net, (nn.ModuleList, nn.Sequential)):
            return StageList(net)
        if hasattr(net, "feature_info") and not hasattr(net, "pos_embed"):
            return _taken_apart(net)
    except (ValueError, AttributeError) as error:
        found = f"{type(net).__name__} has no five stages one behind the other ({first_line(error)})"
        raise BadInput(
            Problem("backbone.name", found, "five modules, a CNN of timm with features_only, or a plain ViT")
        ) from error
    return TokenStages(build_encoder("", None, crop=crop, drop=drop))


def _shapes_cnn(net: ShapesCNN) -> StageList:
    stem = nn.Sequential(net.stem, nn.ReLU())
    return StageList([stem, net.block1, net.block2, net.block3, nn.Identity()], (net.mean, net.std))


def _cnn(name: str, weights: str | None) -> StageList:
    refusal: Exception | None = None
    for words in ({"output_stride": OUTPUT_STRIDE}, {}):
        try:
            net = create(name, weights, {"features_only": True, **words})
            return _taken_apart(net)
        except REFUSED as error:
            refusal = error
    assert refusal is not None
    found = f"{name} has no five stages one behind the other ({first_line(refusal)})"
    raise BadInput(Problem("backbone.name", found, "a CNN such as backbone=resnet50, or a plain ViT")) from refusal


@torch.no_grad()
def _taken_apart(net: Any) -> StageList:
    """The stages of a timm network that gives maps. Raises ValueError where a chain of its modules gives others."""
    net.eval()
    cuts = {str(info["module"]).replace(".", "_") for info in net.feature_info.get_dicts(keys=["module"])}
    chunks: list[list[nn.Module]] = [[]]
    for key, module in _flat(net, cuts):
        if not chunks[-1] and len(chunks) > 1 and "pool" in type(module).__name__.lower():
            # A pooling layer belongs to what it pools: irn.md has it in the stem.
            chunks[-2].append(module)
            continue
        chunks[-1].append(module)
        if key in cuts:
            chunks.append([])
    chunks = [chunk for chunk in chunks if chunk]
    while len(chunks) > COUNT:
        chunks[:2] = [chunks[0] + chunks[1]]
    if len(chunks) == COUNT - 1 and len(chunks[0]) > 1:
        chunks[:1] = [chunks[0][:-1], chunks[0][-1:]]
    image = _probe(net)
    expected = net(image)[-1]
    norm = tuple(cast(Floats3, tuple(float(v) for v in net.pretrained_cfg[key])) for key in ("mean", "std"))
    stages = StageList([nn.Sequential(*chunk) for chunk in chunks], (norm[0], norm[1]))
    if not image.is_meta and not torch.equal(stages(image)[-1], expected):
        raise ValueError("its modules are no chain")
    for module in stages.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            if not isinstance(module.padding, str):
                module.padding = tuple(p // d for p, d in zip(module.padding, module.dilation, strict=True))
            module.dilation = (1, 1)
    return stages


def _flat(net: nn.Module, cuts: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Children in order, those of a plain sequence one by one unless it is a stage itself."""
    for key, child in net.named_children():
        if type(child) is nn.Sequential and key not in cuts:
            yield from ((f"{key}_{inner}", module) for inner, module in child.named_children())
        else:
            yield key, child
