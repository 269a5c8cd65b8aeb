"""Backbones as two maps, a deep one and one of stride 4: any timm CNN, any ViT, and the embedded nets.

Axes: B images, D S channels, h w cells of the deep map, H W cells of the stride-4 map.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, cast

from timm.models import is_model_in_modules
from torch import Tensor, nn

from harness.api.encoders import given_encoder
from harness.errors import BadInput, Problem
from methods.parts.nets.backbones import (
    SHAPES_NAMES,
    Encoder,
    build_encoder,
    encode,
    shapes_net,
)
from methods.parts.nets.deeplab import SKIP_STRIDE, doublings
from methods.parts.nets.encoders import Floats3
from methods.parts.nets.foreign import first_line
from methods.parts.nets.shapes_nets import ShapesCNN
from methods.parts.nets.timm_nets import REFUSED, Sizes, check_name, create, sizes_taken

VERSION = 1
"""Raised when a backbone computes something else."""
VIT_MODULES = {"vision_transformer", "deit"}
"""timm's modules of plain ViTs; every other model is asked for maps."""
OUTPUT_STRIDE = 16
"""Asked of networks of stages that can be dilated, as DeepLabV3+ has it."""


class Pyramid(nn.Module):
    """A backbone that gives a deep map and one of stride 4. Its batch norm stays in eval mode (design, Group)."""

    dim: int
    depth: int
    """Blocks of a ViT; 0 for a CNN."""
    stride: int
    """Pixels per cell of the deep map."""
    skip_dim: int | None
    """Channels of the stride-4 map; None where there is none and the decoder lifts the deep one."""
    mean: Floats3
    std: Floats3

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Deep map (B,D,h,w) and stride-4 map (B,S,H,W) or None, of normalised images."""

    @property
    def lift(self) -> int:
        """Doublings from the deep map to about stride 4."""
        return doublings(self.stride)

    def train(self, mode: bool = True) -> Pyramid:
        """As `nn.Module.train`, but batch norm keeps the statistics of its pretraining."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class ViTPyramid(Pyramid):
    """The normalised tokens of a ViT without class token, as a map; `shapes_vit` adds its convolutions' stride 4."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        if encoder.cls_token is not None:
            encoder.cls_token.requires_grad_(False)  # not in self-attention here, fsr.md 2.2
        self.dim, self.depth, self.stride = encoder.dim, encoder.depth, encoder.stride
        self.mean, self.std = encoder.mean, encoder.std
        self.skip_dim = encoder.skip_dim

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        encoded = encode(self.encoder, images_B3HW)
        return self.encoder.norm(encoded.last_BND).transpose(1, 2).unflatten(2, encoded.hw), encoded.skip_BSHW


class ShapesPyramid(Pyramid):
    """The embedded `shapes_cnn`, of output stride 8."""

    def __init__(self, net: ShapesCNN):
        super().__init__()
        self.net = net
        self.dim, self.depth, self.stride, self.skip_dim = net.dim, 0, net.stride, net.skip_dim
        self.mean, self.std = net.mean, net.std

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = self.net(images_B3HW)
        return maps["stride8"], maps["stride4"]


class NoFineMap(ValueError):
    """A network has no map of stride 4."""


class TimmPyramid(Pyramid):
    """A timm network of stages that reach stride 4, given as one that returns maps.

    Images are resized to a size of `fixed` where it takes no other. Raises NoFineMap for a network without such a map.
    """

    def __init__(self, net: Any, fixed: Sequence[Sizes], crop: int):
        super().__init__()
        strides, channels = list(net.feature_info.reduction()), list(net.feature_info.channels())
        if SKIP_STRIDE not in strides:
            raise NoFineMap(f"maps of strides {', '.join(map(str, strides))}, none of {SKIP_STRIDE}")
        self.net: nn.Module = net
        # Of several maps of stride 4 the last one, as the field takes layer1 and not the pooled stem.
        self.skip_index = len(strides) - 1 - strides[::-1].index(SKIP_STRIDE)
        self.channels_last = getattr(getattr(net, "output_fmt", None), "value", "NCHW") == "NHWC"
        self.depth, self.stride, self.dim = 0, strides[-1], channels[-1]
        self.skip_dim = channels[self.skip_index]
        self.mean, self.std = _normalisation(net)
        self.sizes, _ = sizes_taken(net, self.net, self.stride, (Sizes(), Sizes(self.stride), *fixed), crop)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = self.net(self.sizes.fit(images_B3HW))
        deep, skip = maps[-1], maps[self.skip_index]
        return (deep.permute(0, 3, 1, 2), skip.permute(0, 3, 1, 2)) if self.channels_last else (deep, skip)


class TokenPyramid(Pyramid):
    """Any other timm network: its last map, normalised, as that of a ViT. It is given whole, without classifier.

    Images are resized to multiples of the stride, or to a size of `fixed` where it takes no other.
    """

    skip_dim = None

    def __init__(self, net: Any, fixed: Sequence[Sizes], crop: int):
        super().__init__()
        self.net = net
        self.depth = len(getattr(net, "blocks", ()))
        self.stride = int(net.feature_info[-1]["reduction"])
        self.mean, self.std = _normalisation(net)
        net.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.sizes, deep_BDhw = sizes_taken(net, self._map, self.stride, (Sizes(self.stride), *fixed), crop)
        self.dim = int(deep_BDhw.shape[1])

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._map(self.sizes.fit(images_B3HW)), None

    def _map(self, images_B3HW: Tensor) -> Tensor:
        maps: list[Tensor] = self.net.forward_intermediates(
            images_B3HW, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps[-1]


def build_pyramid(
    name: str, weights: str | None, *, crop: int, drop: float, output_stride: int = OUTPUT_STRIDE
) -> Pyramid:
    """The backbone `name` as a pyramid, on the CPU; words and errors as `build_encoder`.

    `drop` (stochastic depth) concerns networks of one scale. `output_stride` is asked of networks of stages; those
    that cannot be dilated keep theirs. Raises BadInput, after trying it on blank images, for a network that takes
    none of `crop` pixels.
    """
    if (own := given_encoder()) is not None:
        return _of_module(own, crop, drop)
    if name == "shapes_cnn":
        return _shapes_cnn(weights)
    if name != "shapes_vit":
        check_name(name, SHAPES_NAMES)
    if name == "shapes_vit" or is_model_in_modules(name.partition(".")[0], VIT_MODULES):
        return ViTPyramid(build_encoder(name, weights, crop=crop, drop=drop))
    refusal: Exception | None = None
    stages = True
    for kind, words, fixed in _ways(crop, drop, output_stride):
        if kind is TimmPyramid and not stages:
            continue
        try:
            return kind(create(name, weights, words), fixed, crop)
        except NoFineMap as error:
            stages, refusal = False, error
        except REFUSED as error:
            refusal = error
    assert refusal is not None
    found = f"{name} gives no maps of {crop}-pixel images ({first_line(refusal)})"
    raise BadInput(Problem("backbone.name", found, "another crop, or for instance backbone=resnet50")) from refusal


def _ways(
    crop: int, drop: float, output_stride: int
) -> Iterator[tuple[type[TimmPyramid] | type[TokenPyramid], dict[str, Any], tuple[Sizes, ...]]]:
    """Ways to make a network, those that serve images of every size first; last the one it was designed for."""
    sized: list[tuple[dict[str, Any], tuple[Sizes, ...]]] = [
        ({"dynamic_img_size": True}, ()),
        ({"img_size": crop}, (Sizes(fixed=crop),)),
        ({}, (Sizes(fixed=crop),)),
    ]
    yield TimmPyramid, {"features_only": True, "output_stride": output_stride}, ()
    yield TimmPyramid, {"features_only": True}, ()
    for words, fixed in sized:
        yield TimmPyramid, {"features_only": True, **words}, fixed
    for rates in ({"drop_path_rate": drop}, {}):
        for words, fixed in sized:
            yield TokenPyramid, {"num_classes": 0, **rates, **words}, fixed


def _of_module(net: nn.Module, crop: int, drop: float) -> Pyramid:
    """A pyramid made of a module (`harness.api.encoders`): one of maps at several strides, or a ViT.

    Raises BadInput for any other.
    """
    if isinstance(net, Pyramid):
        return net
    if isinstance(net, ShapesCNN):
        return ShapesPyramid(net)
    if hasattr(net, "feature_info") and not hasattr(net, "pos_embed"):
        try:
            return TimmPyramid(net, (), crop)
        except (NoFineMap, AttributeError) as error:
            found = f"{type(net).__name__} gives no maps of several strides ({first_line(error)})"
            fix = "a network of timm with features_only=True and a map of stride 4, or a plain ViT"
            raise BadInput(Problem("backbone.name", found, fix)) from error
    return ViTPyramid(build_encoder("", None, crop=crop, drop=drop))


def _shapes_cnn(weights: str | None) -> Pyramid:
    net = shapes_net("shapes_cnn", weights)
    assert isinstance(net, ShapesCNN)
    return ShapesPyramid(net)


def _normalisation(net: Any) -> tuple[Floats3, Floats3]:
    mean, std = (cast(Floats3, tuple(float(v) for v in net.pretrained_cfg[key])) for key in ("mean", "std"))
    return mean, std
