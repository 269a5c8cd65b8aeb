"""Pretrained ViT encoders by name behind one interface: any plain timm ViT, and the embedded `shapes_vit`.

Axes: B images, H W pixels, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from timm.layers import drop_path
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import BadInput, Problem, nearest
from methods.parts.shapes_nets import Block, ShapesViT, load_shapes_backbone, token_distances

VERSION = 1
"""Raised when an encoder computes something else."""
RANDOM_WEIGHTS = "random"
"""Value of `backbone.weights` for a network that is trained from scratch."""
SHAPES_NAMES = ("shapes_vit", "shapes_cnn")
Floats3 = tuple[float, float, float]


class Encoder(nn.Module):
    """A ViT taken apart: tokens, positions, blocks, final norm. Batch norm inside it stays in eval mode."""

    dim: int
    depth: int
    stride: int
    """Pixels per token side."""
    mean: Floats3
    std: Floats3
    """Normalisation that the weights were trained with, of pixels in [0,1]."""
    cls_token: nn.Parameter | None
    """(1,1,D) without position, or None where the weights have none."""

    @abstractmethod
    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens (B,N,D) without position, and their grid; sides are multiples of `stride`."""

    @abstractmethod
    def position(self, h: int, w: int) -> Tensor:
        """Position embedding (1,N,D) of an h x w grid; bicubic from the training grid where they differ."""

    @abstractmethod
    def run_block(self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool) -> Tensor:
        """Tokens after block `i` (from 0); `class_token` says whether token 0 is one."""

    @abstractmethod
    def norm(self, tokens_BND: Tensor) -> Tensor:
        """The network's own final normalisation, per token."""

    def train(self, mode: bool = True) -> Encoder:
        """As `nn.Module.train`, but batch norm keeps the statistics of its pretraining (design, Group)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class TimmViT(Encoder):
    """A timm `VisionTransformer`, without register tokens; a norm before the blocks belongs to block 0."""

    def __init__(self, vit: VisionTransformer, crop: int):
        super().__init__()
        config = cast("Mapping[str, Any]", vit.pretrained_cfg)
        table = cast(Tensor, vit.pos_embed).detach()
        self.dim, self.depth = int(vit.embed_dim), len(vit.blocks)
        self.stride = int(vit.patch_embed.patch_size[0])
        self.mean, self.std = _floats3(config["mean"]), _floats3(config["std"])
        self.patch_embed, self.norm_pre, self.blocks = vit.patch_embed, vit.norm_pre, vit.blocks
        self.final_norm = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm
        self.cls_token = vit.cls_token
        self.grid = crop // self.stride
        old = vit.patch_embed.grid_size
        table_1ND = table[:, table.shape[1] - old[0] * old[1] :]
        self.pos_embed = nn.Parameter(resize_position(table_1ND, old, (self.grid, self.grid)))

    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        map_BDhw = self.patch_embed.proj(images_B3HW)
        tokens_BND = self.patch_embed.norm(map_BDhw.flatten(2).transpose(1, 2))
        return tokens_BND, (map_BDhw.shape[2], map_BDhw.shape[3])

    def position(self, h: int, w: int) -> Tensor:
        return resize_position(self.pos_embed, (self.grid, self.grid), (h, w))

    def run_block(self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool) -> Tensor:
        return self.blocks[i](self.norm_pre(tokens_BND) if i == 0 else tokens_BND)

    def norm(self, tokens_BND: Tensor) -> Tensor:
        return self.final_norm(tokens_BND)


class ShapesEncoder(Encoder):
    """The embedded `shapes_vit`, with stochastic depth on both branches of a block as timm has it."""

    def __init__(self, net: ShapesViT, crop: int, drop: float):
        super().__init__()
        self.dim, self.depth, self.stride = net.dim, net.depth, net.stride
        self.mean, self.std = net.mean, net.std
        self.cls_token = net.cls_token
        del net.cls_token  # one owner: files of shared tensors are refused
        grid = crop // net.stride
        table_1ND = net.position(grid, grid).detach()
        net.table = grid
        net.position_table = nn.Parameter(table_1ND.transpose(1, 2).unflatten(2, (grid, grid)).contiguous())
        self.net = net
        self.drop = tuple(drop * i / max(1, net.depth - 1) for i in range(net.depth))

    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.net.embed(images_B3HW)

    def position(self, h: int, w: int) -> Tensor:
        return self.net.position(h, w)

    def run_block(self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool) -> Tensor:
        block = cast(Block, self.net.blocks[i])
        distance_NN = token_distances(*hw, class_token, device=tokens_BND.device)
        mixed_BND = block.attention(block.norm1(tokens_BND), distance_NN)
        tokens_BND = tokens_BND + drop_path(mixed_BND, self.drop[i], self.training)
        return tokens_BND + drop_path(block.mlp(block.norm2(tokens_BND)), self.drop[i], self.training)

    def norm(self, tokens_BND: Tensor) -> Tensor:
        return self.net.norm(tokens_BND)


@dataclass(frozen=True)
class Encoded:
    """What `encode` returns: the token grid and raw patch tokens."""

    hw: tuple[int, int]
    last_BND: Tensor
    """After the last block that was run, before the final norm."""
    tapped_BND: Tensor | None = None
    """After the tapped block."""


def encode(
    encoder: Encoder,
    images_B3HW: Tensor,
    *,
    tap: int | None = None,
    stop_at_tap: bool = False,
    masked_BN: Tensor | None = None,
    mask_token_11D: Tensor | None = None,
) -> Encoded:
    """Patch tokens through the blocks, without a class token in self-attention (fsr.md 2.2).

    `tap` is the 1-based block whose output is kept besides the last one's. Where `masked_BN` is true the
    token is replaced by `mask_token_11D` before positions are added. Images whose sides are no multiples
    of the stride are resized to the nearest ones first, so that maps cover the whole image.
    """
    x_BND, hw = encoder.embed(whole_patches(images_B3HW, encoder.stride))
    if masked_BN is not None and mask_token_11D is not None:
        x_BND = torch.where(masked_BN[..., None], mask_token_11D.to(x_BND.dtype), x_BND)
    x_BND = x_BND + encoder.position(*hw)
    tapped_BND = None
    last = tap if stop_at_tap and tap is not None else encoder.depth
    for i in range(last):
        x_BND = encoder.run_block(i, x_BND, hw, class_token=False)
        if i + 1 == tap:
            tapped_BND = x_BND
    return Encoded(hw, x_BND, tapped_BND)


def whole_patches(images_B3HW: Tensor, stride: int) -> Tensor:
    """The images, resized (bilinear) to the nearest multiples of `stride` where their sides are none."""
    h, w = images_B3HW.shape[-2:]
    size = (max(1, round(h / stride)) * stride, max(1, round(w / stride)) * stride)
    if size == (h, w):
        return images_B3HW
    return F.interpolate(images_B3HW, size=size, mode="bilinear", align_corners=False)


def resize_position(table_1ND: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A position table (1,N,D) of grid `old`, bicubic on grid `new`; the same values where they agree."""
    if tuple(old) == tuple(new):
        return table_1ND
    map_1Dhw = table_1ND.transpose(1, 2).unflatten(2, tuple(old))
    resized = F.interpolate(map_1Dhw.float(), size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table_1ND.dtype)


def build_encoder(name: str, weights: str | None, *, crop: int, drop: float) -> Encoder:
    """The ViT encoder `name` for crops of `crop` pixels, on the CPU.

    `weights`: a safetensors or state-dict file, `random`, or None for timm's hub (`shapes_vit`: the
    packaged file). `drop`: stochastic depth of the last block, linear from 0. Raises BadInput for unknown
    names, networks that are no plain ViT, missing or foreign files, an unreachable hub, and crops that are
    no multiple of the patch.
    """
    if weights not in (None, RANDOM_WEIGHTS) and not Path(str(weights)).is_file():
        fix = f"a safetensors or state-dict file of {name}, or leave it out for timm's hub"
        raise BadInput(Problem("backbone.weights", f"no file {weights}", fix))
    if name in SHAPES_NAMES:
        return _shapes_encoder(name, weights, crop, drop)
    vit = _timm_vit(name, weights, drop)
    _check_crop(crop, int(vit.patch_embed.patch_size[0]), name)
    return TimmViT(vit, crop)


def _shapes_encoder(name: str, weights: str | None, crop: int, drop: float) -> Encoder:
    if name == "shapes_cnn":
        found, fix = f"{name} is a CNN, and this method works on tokens", "backbone=shapes_vit, or a timm ViT"
        raise BadInput(Problem("backbone.name", found, fix))
    try:
        net = ShapesViT() if weights == RANDOM_WEIGHTS else load_shapes_backbone(name, weights)
    except (RuntimeError, KeyError, SafetensorError) as e:
        raise _foreign(name, str(weights), e) from e
    assert isinstance(net, ShapesViT)
    _check_crop(crop, net.stride, name)
    return ShapesEncoder(net, crop, drop)


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
        found = f"{name} cannot be fetched: {_first_line(e)}"
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
        state = checkpoint_filter_fn(load_state_dict(path), model)
        missing, _ = model.load_state_dict(state, strict=False)
    except (
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        SafetensorError,
        UnpicklingError,
    ) as e:
        raise _foreign(name, path, e) from e
    if missing:
        raise _foreign(name, path, KeyError(f"{len(missing)} keys are missing, first {missing[0]}"))


def _foreign(name: str, path: str, error: Exception) -> BadInput:
    found = f"{path} does not fit {name}: {_first_line(error)}"
    return BadInput(Problem("backbone.weights", found, "give the state dict of this very network"))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200] if text else ''}"


def _no_vit(name: str) -> BadInput:
    fix = "for instance backbone=vit_base_patch16_224.orig_in21k_ft_in1k"
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


def _floats3(values: tuple[float, ...]) -> Floats3:
    r, g, b = (float(v) for v in values)
    return r, g, b
