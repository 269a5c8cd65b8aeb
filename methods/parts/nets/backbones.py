"""Pretrained ViT encoders by name behind one interface: any plain timm ViT, and the embedded `shapes_vit`.

Axes: B images, H W pixels, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from harness.api.encoders import given_encoder
from harness.api.weight_files import read_weights, without_prefix
from harness.errors import BadInput, Problem, nearest
from methods.parts.nets.encoders import EXAMPLE, Encoder, ShapesEncoder, TimmViT, resize_position
from methods.parts.nets.foreign import check_patches, check_state, first_line, foreign, of_positions
from methods.parts.nets.shapes_nets import NETWORKS, ShapesCNN, ShapesViT, load_shapes_backbone

__all__ = ["Encoded", "Encoder", "build_encoder", "encode", "resize_position", "whole_patches"]
VERSION = 1
"""Raised when an encoder (`methods.parts.nets.encoders`) computes something else."""
RANDOM_WEIGHTS = "random"
"""Value of `backbone.weights` for a network that is trained from scratch."""
SHAPES_NAMES = ("shapes_vit", "shapes_cnn")
DISTILLATION = "dist_token"


@dataclass(frozen=True)
class Encoded:
    """What `encode` returns: the token grid and raw patch tokens."""

    hw: tuple[int, int]
    last_BND: Tensor
    """After the last block that was run, before the final norm."""
    tapped_BND: Tensor | None = None
    """After the tapped block."""
    class_BD: Tensor | None = None
    """The class token after the last block, before the final norm, where it runs along."""
    attention: tuple[Tensor, ...] = ()
    """(B,heads,N,N) of the blocks that were asked for, in their order; where a class token runs along it is token 0
    of N (`methods.parts.nets.attention.between_patches` cuts it off)."""
    skip_BSHW: Tensor | None = None
    """The stride-4 map of networks that have one."""


def encode(
    encoder: Encoder,
    images_B3HW: Tensor,
    *,
    tap: int | None = None,
    stop_at_tap: bool = False,
    masked_BN: Tensor | None = None,
    mask_token_11D: Tensor | None = None,
    attention: Sequence[int] = (),
    attention_logits: bool = False,
    depth_LB: Tensor | None = None,
) -> Encoded:
    """Patch tokens through the blocks, with a class token where the encoder was built with one.

    `tap` is the 1-based block whose output is kept besides the last one's. Where `masked_BN` is true the
    token is replaced by `mask_token_11D` before positions are added. Images whose sides are no multiples
    of the stride are resized to the nearest ones first, so that maps cover the whole image. `attention` names 1-based
    blocks whose attention is returned, differentiable, as probabilities or as `attention_logits` before softmax;
    the other blocks keep the fused kernel. `depth_LB` is stochastic depth that was drawn already
    (`methods.parts.nets.depth`). Raises ValueError for blocks that are not run, and BadInput where attention of this
    network cannot be read.
    """
    last = tap if stop_at_tap and tap is not None else encoder.depth
    if any(not 1 <= block <= last for block in attention):
        raise ValueError(f"attention of blocks {tuple(attention)}: blocks 1 to {last} are run")
    x_BND, hw, skip_BSHW = encoder.embed_with_skip(whole_patches(images_B3HW, encoder.stride))
    if masked_BN is not None and mask_token_11D is not None:
        x_BND = torch.where(masked_BN[..., None], mask_token_11D.to(x_BND.dtype), x_BND)
    # A patch embedding leaves tokens innermost; each norm would copy them, and each sum would read across.
    x_BND = (x_BND + encoder.position(*hw)).contiguous()
    prefix = int(encoder.with_class_token)
    if encoder.with_class_token:
        assert encoder.cls_token is not None
        class_B1D = (encoder.cls_token + encoder.class_position()).expand(len(x_BND), -1, -1)
        x_BND = torch.cat([class_B1D.to(x_BND.dtype), x_BND], dim=1)
    tapped_BND = None
    maps: dict[int, Tensor] = {}
    for i in range(last):
        depth_2B = None if depth_LB is None else depth_LB[2 * i : 2 * i + 2]
        if i + 1 in attention:
            x_BND, maps[i + 1] = encoder.attend(i, x_BND, hw, bool(prefix), attention_logits, depth_2B)
        else:
            x_BND = encoder.run_block(i, x_BND, hw, bool(prefix), depth_2B)
        if i + 1 == tap:
            tapped_BND = x_BND[:, prefix:]
    class_BD = x_BND[:, 0] if prefix else None
    return Encoded(hw, x_BND[:, prefix:], tapped_BND, class_BD, tuple(maps[block] for block in attention), skip_BSHW)


def whole_patches(images_B3HW: Tensor, stride: int) -> Tensor:
    """The images, resized (bilinear) to the nearest multiples of `stride` where their sides are none."""
    h, w = images_B3HW.shape[-2:]
    size = (max(1, round(h / stride)) * stride, max(1, round(w / stride)) * stride)
    if size == (h, w):
        return images_B3HW
    return F.interpolate(images_B3HW, size=size, mode="bilinear", align_corners=False)


def build_encoder(name: str, weights: str | None, *, crop: int, drop: float, class_token: bool = False) -> Encoder:
    """The ViT encoder `name` for crops of `crop` pixels, on the CPU.

    `weights`: a safetensors or state-dict file, `random`, or None for timm's hub (`shapes_vit`: the
    packaged file). `drop`: stochastic depth of the last block, linear from 0. `class_token`: it runs through the
    blocks, and the position table is frozen. Raises BadInput for unknown names, networks that are no plain ViT or
    lack a class token that is asked for, missing or foreign files, an unreachable hub, and crops that are
    no multiple of the patch.
    """
    if (own := given_encoder()) is not None:
        return _of_module(own, crop, drop, class_token)
    if weights not in (None, RANDOM_WEIGHTS) and not Path(str(weights)).is_file():
        fix = f"a safetensors or state-dict file of {name}, or leave it out for timm's hub"
        raise BadInput(Problem("backbone.weights", f"no file {weights}", fix))
    if name in SHAPES_NAMES:
        return _shapes_encoder(name, weights, crop, drop, class_token)
    vit = _timm_vit(name, weights, drop)
    _check_crop(crop, int(vit.patch_embed.patch_size[0]), name)
    if class_token and vit.cls_token is None:
        raise BadInput(Problem("backbone.name", f"{name} has no class token", f"for instance backbone={EXAMPLE}"))
    return TimmViT(vit, crop, class_token)


def _of_module(net: nn.Module, crop: int, drop: float, class_token: bool) -> Encoder:
    """An encoder made of a module (`harness.api.encoders`). Raises BadInput for one that is no ViT."""
    if isinstance(net, Encoder):
        _check_crop(crop, net.stride, type(net).__name__)
        return net
    if isinstance(net, ShapesViT):
        _check_crop(crop, net.stride, type(net).__name__)
        return ShapesEncoder(net, crop, drop, class_token)
    if isinstance(net, VisionTransformer) and getattr(net, "pos_embed", None) is not None:
        _check_crop(crop, int(net.patch_embed.patch_size[0]), type(net).__name__)
        return TimmViT(net, crop, class_token)
    raise _no_vit(type(net).__name__)


def _shapes_encoder(name: str, weights: str | None, crop: int, drop: float, class_token: bool) -> Encoder:
    if name == "shapes_cnn":
        found, fix = f"{name} is a CNN, and this method works on tokens", "backbone=shapes_vit, or a timm ViT"
        raise BadInput(Problem("backbone.name", found, fix))
    net = shapes_net(name, weights)
    assert isinstance(net, ShapesViT)
    _check_crop(crop, net.stride, name)
    return ShapesEncoder(net, crop, drop, class_token)


def shapes_net(name: str, weights: str | None) -> ShapesCNN | ShapesViT:
    """`shapes_vit` or `shapes_cnn`, packaged (None), at random, or of a file. Raises BadInput for one of another
    network."""
    if weights is None:
        return load_shapes_backbone(name)
    net = NETWORKS[name]()
    if weights == RANDOM_WEIGHTS:
        return net
    expected = net.state_dict()
    state = whole_state(weights, expected)
    check_state(state, expected, name, weights)
    net.load_state_dict({key: state[key] for key in expected})
    return net.eval()


def _timm_vit(name: str, weights: str | None, drop: float) -> VisionTransformer:
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        fix = nearest(arch, [*timm.list_models("*vit*"), *SHAPES_NAMES])
        raise BadInput(Problem("backbone.name", f"timm knows no {arch!r}", fix))
    tags = [full.partition(".")[2] for full in timm.list_pretrained(arch)]
    if tag and tag not in tags:
        raise BadInput(Problem("backbone.name", f"{arch} has no weights tagged {tag!r}", nearest(tag, tags)))
    words: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True, "drop_path_rate": drop}
    try:
        model = timm.create_model(name, pretrained=weights is None, **words)
    except TypeError as e:
        raise _no_vit(name) from e
    except Exception as e:
        found = f"{name} cannot be fetched: {first_line(e)}"
        fix = f"give a local file, or backbone.weights={RANDOM_WEIGHTS} to train from scratch"
        raise BadInput(Problem("backbone.weights", found, fix)) from e
    if not isinstance(model, VisionTransformer) or getattr(model, "pos_embed", None) is None:
        raise _no_vit(name)
    if weights not in (None, RANDOM_WEIGHTS):
        _load_file(model, name, str(weights))
    return model


def _load_file(model: VisionTransformer, name: str, path: str) -> None:
    """Load a local file. timm's own loading only warns of missing keys, so a foreign file would start at random."""
    try:
        expected = model.state_dict()
        state = without_distillation(whole_state(path, expected), model)
        check_patches(state, expected, name, path)
        try:
            state = checkpoint_filter_fn(state, model)
        except RuntimeError as e:
            prefix = 0 if model.no_embed_class else model.num_prefix_tokens
            raise of_positions(state, expected, prefix, e, name, path) from e
        check_state(state, expected, name, path)
        model.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as e:
        raise foreign(name, path, e) from e


def whole_state(path: str, expected: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a local file of a backbone, the prefix of what wrapped it taken off.

    Raises BadInput for a file that is missing, damaged or none of weights.
    """
    return without_prefix(read_weights(Path(path), "backbone.weights").state, expected)


def without_distillation(state: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
    """A DeiT's weights without distillation token, head and position, where the network has no such token."""
    if DISTILLATION not in state or DISTILLATION in model.state_dict():
        return state
    table_1ND = state["pos_embed"]
    kept = {name: t for name, t in state.items() if name != DISTILLATION and not name.startswith("head_dist.")}
    return kept | {"pos_embed": torch.cat([table_1ND[:, :1], table_1ND[:, 2:]], dim=1)}


def _no_vit(name: str) -> BadInput:
    fix = f"for instance backbone={EXAMPLE}"
    return BadInput(Problem("backbone.name", f"{name} is no plain ViT with a position table", fix))


def _check_crop(crop: int, stride: int, name: str) -> None:
    if crop % stride or crop < stride:
        low = max(stride, crop // stride * stride)
        raise BadInput(
            Problem(
                "crop",
                f"{crop} is no multiple of the {stride}-pixel patch of {name}",
                f"crop={low} or crop={low + stride}",
            )
        )
