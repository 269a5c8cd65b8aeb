"""Backbones as two maps, a deep one and one of stride 4: any timm CNN, any plain ViT, and the embedded nets.

Axes: B images, D S channels, h w cells of the deep map, H W cells of the stride-4 map.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from pickle import UnpicklingError
from typing import Any, cast

import timm
from safetensors import SafetensorError
from timm.models import is_model_in_modules, load_state_dict
from torch import Tensor, nn

from harness.errors import BadInput, Problem, nearest
from methods.parts.backbones import RANDOM_WEIGHTS, Encoder, build_encoder, encode, whole_patches
from methods.parts.encoders import Floats3, ShapesEncoder
from methods.parts.shapes_nets import ShapesCNN, ShapesViT, load_shapes_backbone

VERSION = 1
"""Raised when a backbone computes something else."""
VIT_MODULES = {"vision_transformer", "deit"}
"""timm's modules of plain ViTs; every other model is taken as a CNN of stages."""
OUTPUT_STRIDE = 16
"""Asked of CNNs that can be dilated, as DeepLabV3+ has it."""
SKIP_STRIDE = 4


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
        return max(0, round(math.log2(self.stride / SKIP_STRIDE)))

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
        self.shapes = isinstance(encoder, ShapesEncoder)
        self.skip_dim = ShapesViT.skip_dim if self.shapes else None

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        encoder = self.encoder
        skip = None
        if self.shapes:
            net = cast(ShapesViT, encoder.net)
            skip = net.stride4(whole_patches(images_B3HW, self.stride))
            x_BND, hw = net.embed_stride4(skip)
            x_BND = x_BND + encoder.position(*hw)
            for i in range(encoder.depth):
                x_BND = encoder.run_block(i, x_BND, hw, class_token=False)
        else:
            encoded = encode(encoder, images_B3HW)
            x_BND, hw = encoded.last_BND, encoded.hw
        return encoder.norm(x_BND).transpose(1, 2).unflatten(2, hw), skip


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


class TimmPyramid(Pyramid):
    """A timm CNN whose stages reach stride 4. Raises BadInput for one without a map of that stride."""

    def __init__(self, net: Any, name: str):
        super().__init__()
        strides, channels = list(net.feature_info.reduction()), list(net.feature_info.channels())
        if SKIP_STRIDE not in strides:
            found = f"{name} has maps of strides {', '.join(map(str, strides))}, none of {SKIP_STRIDE}"
            raise BadInput(Problem("backbone.name", found, "a CNN of stages, for instance backbone=resnet50, or a ViT"))
        self.net: nn.Module = net
        # Of several maps of stride 4 the last one, as the field takes layer1 and not the pooled stem.
        self.skip_index = len(strides) - 1 - strides[::-1].index(SKIP_STRIDE)
        self.channels_last = getattr(getattr(net, "output_fmt", None), "value", "NCHW") == "NHWC"
        self.depth, self.stride, self.dim = 0, strides[-1], channels[-1]
        self.skip_dim = channels[self.skip_index]
        self.mean = cast(Floats3, tuple(float(v) for v in net.pretrained_cfg["mean"]))
        self.std = cast(Floats3, tuple(float(v) for v in net.pretrained_cfg["std"]))

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = self.net(images_B3HW)
        deep, skip = maps[-1], maps[self.skip_index]
        return (deep.permute(0, 3, 1, 2), skip.permute(0, 3, 1, 2)) if self.channels_last else (deep, skip)


def build_pyramid(
    name: str, weights: str | None, *, crop: int, drop: float, output_stride: int = OUTPUT_STRIDE
) -> Pyramid:
    """The backbone `name` as a pyramid, on the CPU; words and errors as `build_encoder`.

    `drop` (stochastic depth) and `crop` concern ViTs. `output_stride` is asked of CNNs; those that cannot be
    dilated keep theirs.
    """
    arch = name.partition(".")[0]
    if name == "shapes_cnn":
        return _shapes_cnn(weights)
    if name != "shapes_vit" and not timm.is_model(arch):
        fix = nearest(arch, [*timm.list_models(), "shapes_vit", "shapes_cnn"])
        raise BadInput(Problem("backbone.name", f"timm knows no {arch!r}", fix[:200]))
    if name == "shapes_vit" or is_model_in_modules(arch, VIT_MODULES):
        return ViTPyramid(build_encoder(name, weights, crop=crop, drop=drop))
    net = _cnn(name, weights, output_stride)
    if weights not in (None, RANDOM_WEIGHTS):
        _load(net, name, str(weights))
    return TimmPyramid(net, name)


def _shapes_cnn(weights: str | None) -> Pyramid:
    try:
        net = ShapesCNN() if weights == RANDOM_WEIGHTS else load_shapes_backbone("shapes_cnn", weights)
    except (RuntimeError, KeyError, SafetensorError) as e:
        raise _foreign("shapes_cnn", str(weights), e) from e
    assert isinstance(net, ShapesCNN)
    return ShapesPyramid(net)


def _cnn(name: str, weights: str | None, output_stride: int) -> Any:
    arch, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(arch)]
    if tag and tag not in tags:
        raise BadInput(Problem("backbone.name", f"{arch} has no weights tagged {tag!r}", nearest(tag, tags)))
    words: dict[str, Any] = {"pretrained": weights is None, "features_only": True}
    refused = (TypeError, NotImplementedError, RuntimeError, AssertionError, AttributeError)
    try:
        try:
            return timm.create_model(name, output_stride=output_stride, **words)
        except (TypeError, NotImplementedError, AssertionError):
            return timm.create_model(name, **words)
    except refused as e:
        found = f"{name} gives no maps of several strides ({_first_line(e)})"
        raise BadInput(Problem("backbone.name", found, "for instance backbone=resnet50, or a ViT")) from e
    except Exception as e:
        found = f"{name} cannot be fetched: {_first_line(e)}"
        fix = f"give a local file, or backbone.weights={RANDOM_WEIGHTS} to train from scratch"
        raise BadInput(Problem("backbone.weights", found, fix)) from e


def _load(net: nn.Module, name: str, path: str) -> None:
    """Load a local file of the whole network; its classifier and what lies behind the last map are left out."""
    # Networks that give maps write dots of module names as underscores where they flatten them.
    try:
        state = {key.replace(".", "_"): value for key, value in load_state_dict(path).items()}
        wanted = {key: state[key.replace(".", "_")] for key in net.state_dict()}
        net.load_state_dict(wanted)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, SafetensorError, UnpicklingError) as e:
        raise _foreign(name, path, e) from e


def _foreign(name: str, path: str, error: Exception) -> BadInput:
    found = f"{path} does not fit {name}: {_first_line(error)}"
    return BadInput(Problem("backbone.weights", found, "give the state dict of this very network"))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200] if text else ''}"
