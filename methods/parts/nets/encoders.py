"""ViT encoders taken apart: any plain timm ViT and the embedded `shapes_vit` behind one interface.

Axes: B images, H heads where it stands before N, h w tokens a side, N tokens, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from timm.layers import Attention, DropPath, drop_path
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import BadInput, Problem
from methods.parts.nets.shapes_nets import Block, ShapesViT, token_distances
from methods.parts.nets.timm_attention import attention_by_image, explicit_attention, faster_by_image
from methods.parts.nets.timm_blocks import BlockPass, added, compiled, kept
from methods.parts.nets.token_linear import use_token_linears

Floats3 = tuple[float, float, float]
EXAMPLE = "vit_base_patch16_224.orig_in21k_ft_in1k"


class Encoder(nn.Module):
    """A ViT taken apart: tokens, positions, blocks, final norm. Batch norm inside it stays in eval mode."""

    dim: int
    depth: int
    heads: int
    """Attention heads of a block."""
    stride: int
    """Pixels per token side."""
    mean: Floats3
    std: Floats3
    """Normalisation that the weights were trained with, of pixels in [0,1]."""
    skip_dim: int | None = None
    """Channels of the stride-4 map on the way to the tokens; None where there is none."""
    cls_token: nn.Parameter | None
    """(1,1,D) without position, or None where the weights have none."""
    with_class_token: bool
    """Whether the class token runs through the blocks; the position table then stays as it was trained, class row
    first where it has one, is frozen, and is resized at each forward (toco.md 2.2, unia.md 2.1)."""

    @property
    def drops(self) -> tuple[float, ...] | None:
        """Rates of stochastic depth of a block's two branches, block after block, where a pass draws them in this order
        and nothing else (`methods.parts.nets.depth`); None where its draws are its own affair."""
        return None

    def compile_blocks(self) -> None:
        """From now on `run_block` runs compiled. Raises BadInput where these blocks cannot be."""
        found = f"only plain blocks of timm's ViTs are compiled, and those of {type(self).__name__} are others"
        raise BadInput(Problem("compile_blocks", found, f"compile_blocks=false, or for instance backbone={EXAMPLE}"))

    @abstractmethod
    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens (B,N,D) without position, and their grid; sides are multiples of `stride`."""

    def embed_with_skip(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """As `embed`, and the stride-4 map (B,S,H,W) of networks that have one."""
        return *self.embed(images_B3HW), None

    @abstractmethod
    def position(self, h: int, w: int) -> Tensor:
        """Position embedding (1,N,D) of an h x w grid; bicubic from the training grid where they differ."""

    @abstractmethod
    def run_block(
        self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool, depth_2B: Tensor | None = None
    ) -> Tensor:
        """Tokens after block `i` (from 0); `class_token` says whether token 0 is one. `depth_2B` multiplies the block's
        branches, in place of what it would draw."""

    @abstractmethod
    def attend(
        self,
        i: int,
        tokens_BND: Tensor,
        hw: tuple[int, int],
        class_token: bool,
        logits: bool,
        depth_2B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `run_block`, and the block's attention (B,heads,N,N), rows ask: probabilities, or `logits` before
        softmax."""

    @abstractmethod
    def class_position(self) -> Tensor:
        """Position embedding (1,1,D) of the class token; zeros where the weights have none."""

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

    def __init__(self, vit: VisionTransformer, crop: int, class_token: bool = False):
        super().__init__()
        config = cast("Mapping[str, Any]", vit.pretrained_cfg)
        table_1ND = cast(Tensor, vit.pos_embed).detach()
        self.dim, self.depth = int(vit.embed_dim), len(vit.blocks)
        self.heads = int(getattr(getattr(vit.blocks[0], "attn", None), "num_heads", 0))
        self.stride = int(vit.patch_embed.patch_size[0])
        self.mean, self.std = _floats3(config["mean"]), _floats3(config["std"])
        use_token_linears(vit.blocks)
        self.patch_embed, self.norm_pre, self.blocks = vit.patch_embed, vit.norm_pre, vit.blocks
        self.final_norm = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm
        self.cls_token = vit.cls_token
        self.with_class_token = class_token
        old = vit.patch_embed.grid_size
        prefix = table_1ND.shape[1] - old[0] * old[1]
        self.grid = (old[0], old[1])
        if not class_token:
            self.grid = (crop // self.stride, crop // self.stride)
            table_1ND = resize_position(table_1ND[:, prefix:], old, self.grid)
        elif prefix > 1:  # the class row first, then distillation or register rows, which this encoder leaves out
            table_1ND = torch.cat([table_1ND[:, :1], table_1ND[:, prefix:]], dim=1)
        self.pos_embed = nn.Parameter(table_1ND, requires_grad=not class_token)
        self._compiled: BlockPass | None = None

    def compile_blocks(self) -> None:
        if any(type(block) is not TimmBlock for block in self.blocks) or self.drops is None:
            super().compile_blocks()
        self._compiled = compiled()

    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        map_BDhw = self.patch_embed.proj(images_B3HW)
        tokens_BND = self.patch_embed.norm(map_BDhw.flatten(2).transpose(1, 2))
        return tokens_BND, (map_BDhw.shape[2], map_BDhw.shape[3])

    def position(self, h: int, w: int) -> Tensor:
        return resize_position(self.pos_embed[:, -self.grid[0] * self.grid[1] :], self.grid, (h, w))

    def class_position(self) -> Tensor:
        rows = self.pos_embed.shape[1] - self.grid[0] * self.grid[1]
        return self.pos_embed[:, :1] if rows else torch.zeros_like(self.pos_embed[:, :1])

    @property
    def drops(self) -> tuple[float, ...] | None:
        branches = [
            d for block in self.blocks if type(block) is TimmBlock for d in (block.drop_path1, block.drop_path2)
        ]
        others = [m for m in self.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        if others or len(branches) < 2 * self.depth:
            return None
        return tuple(float(d.drop_prob or 0.0) if isinstance(d, DropPath) else 0.0 for d in branches)

    def run_block(
        self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool, depth_2B: Tensor | None = None
    ) -> Tensor:
        block: Any = self.blocks[i]
        x_BND = self.norm_pre(tokens_BND) if i == 0 else tokens_BND
        if type(block) is TimmBlock and faster_by_image(block.attn, x_BND):
            return added(block, x_BND, attention_by_image(block.attn, block.norm1(x_BND)), depth_2B)
        if self._compiled is not None and not (depth_2B is None and self.training and any(self.drops or ())):
            return self._compiled(block, x_BND, depth_2B)
        if depth_2B is None:
            return block(x_BND)
        return added(block, x_BND, block.attn(block.norm1(x_BND)), depth_2B)

    def attend(
        self,
        i: int,
        tokens_BND: Tensor,
        hw: tuple[int, int],
        class_token: bool,
        logits: bool,
        depth_2B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        block = self.blocks[i]
        if type(block) is not TimmBlock or type(block.attn) is not Attention:
            kind = f"{type(block).__name__} with {type(getattr(block, 'attn', None)).__name__}"
            raise BadInput(
                Problem("backbone.name", f"attention cannot be read from {kind}", f"for instance backbone={EXAMPLE}")
            )
        x_BND = self.norm_pre(tokens_BND) if i == 0 else tokens_BND
        mixed_BND, logits_BHNN, probabilities_BHNN = explicit_attention(block.attn, block.norm1(x_BND))
        x_BND = added(block, x_BND, mixed_BND, depth_2B)
        return x_BND, logits_BHNN if logits else probabilities_BHNN

    def norm(self, tokens_BND: Tensor) -> Tensor:
        return self.final_norm(tokens_BND)


class ShapesEncoder(Encoder):
    """The embedded `shapes_vit`, with stochastic depth on both branches of a block as timm has it."""

    def __init__(self, net: ShapesViT, crop: int, drop: float, class_token: bool = False):
        super().__init__()
        self.dim, self.depth, self.stride = net.dim, net.depth, net.stride
        self.heads = cast(Block, net.blocks[0]).attention.heads
        self.mean, self.std = net.mean, net.std
        self.cls_token = net.cls_token
        del net.cls_token  # one owner: files of shared tensors are refused
        self.with_class_token = class_token
        if class_token:
            net.position_table.requires_grad_(False)
        else:
            grid = crop // net.stride
            table_1ND = net.position(grid, grid).detach()
            net.table = grid
            net.position_table = nn.Parameter(table_1ND.transpose(1, 2).unflatten(2, (grid, grid)).contiguous())
        self.net, self.skip_dim = net, net.skip_dim
        self.drop = tuple(drop * i / max(1, net.depth - 1) for i in range(net.depth))

    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.net.embed(images_B3HW)

    def embed_with_skip(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        skip_BSHW = self.net.stride4(images_B3HW)
        return *self.net.embed_stride4(skip_BSHW), skip_BSHW

    def position(self, h: int, w: int) -> Tensor:
        return self.net.position(h, w)

    def class_position(self) -> Tensor:
        return self.net.position_table.new_zeros(1, 1, self.dim)

    @property
    def drops(self) -> tuple[float, ...] | None:
        return tuple(rate for rate in self.drop for _ in range(2))

    def run_block(
        self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool, depth_2B: Tensor | None = None
    ) -> Tensor:
        block = cast(Block, self.net.blocks[i])
        distance_NN = token_distances(*hw, class_token, device=tokens_BND.device)
        return self._add(i, tokens_BND, block.attention(block.norm1(tokens_BND), distance_NN), depth_2B)

    def attend(
        self,
        i: int,
        tokens_BND: Tensor,
        hw: tuple[int, int],
        class_token: bool,
        logits: bool,
        depth_2B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        block = cast(Block, self.net.blocks[i])
        distance_NN = token_distances(*hw, class_token, device=tokens_BND.device)
        mixed_BND, logits_BHNN, probabilities_BHNN = block.attention.explicit(block.norm1(tokens_BND), distance_NN)
        return self._add(i, tokens_BND, mixed_BND, depth_2B), logits_BHNN if logits else probabilities_BHNN

    def _add(self, i: int, tokens_BND: Tensor, mixed_BND: Tensor, depth_2B: Tensor | None) -> Tensor:
        """Tokens after block `i`, whose attention gave `mixed_BND`."""
        block, rate = cast(Block, self.net.blocks[i]), self.drop[i]

        def dropped(x_BND: Tensor) -> Tensor:
            return drop_path(x_BND, rate, self.training)

        tokens_BND = tokens_BND + kept(mixed_BND, dropped, depth_2B, 0)
        return tokens_BND + kept(block.mlp(block.norm2(tokens_BND)), dropped, depth_2B, 1)

    def norm(self, tokens_BND: Tensor) -> Tensor:
        return self.net.norm(tokens_BND)


def resize_position(table_1ND: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A position table (1,N,D) of grid `old`, bicubic on grid `new`; the same values where they agree."""
    if tuple(old) == tuple(new):
        return table_1ND
    map_1Dhw = table_1ND.transpose(1, 2).unflatten(2, tuple(old))
    resized = F.interpolate(map_1Dhw.float(), size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table_1ND.dtype)


def _floats3(values: tuple[float, ...]) -> Floats3:
    r, g, b = (float(v) for v in values)
    return r, g, b
