"""The two tiny pretrained backbones of the embedded dataset `shapes`: a CNN and a ViT.

Axes: B images, H W pixels, h w = ceil(H/8) ceil(W/8) tokens, N tokens, D channels.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import BadInput, Problem, nearest

VERSION = 1
"""Raised when either network computes something else, or its packaged weights change."""
SHAPES_MEAN = (0.44, 0.43, 0.40)
SHAPES_STD = (0.22, 0.21, 0.22)
STRIDE = 8
PRETEXT_PREFIX = "pretext."
"""Keys of the classifier of the pretraining task: kept to check its accuracy, never part of the backbone."""
WEIGHTS = Path(__file__).parent / "weights"


def _conv_bn(inside: int, outside: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bias-free convolution that keeps the size (up to its stride) and batch norm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 skip, each with batch norm: (B,inside,H,W) to (B,outside,H/s,W/s)."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.first = _conv_bn(inside, outside, stride=stride, dilation=dilation)
        self.second = _conv_bn(outside, outside, dilation=dilation)
        self.skip = _conv_bn(inside, outside, kernel=1, stride=stride)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x_BDHW))) + self.skip(x_BDHW))


class ShapesCNN(nn.Module):
    """Residual network of output stride 8 with 0.434 M parameters."""

    dim = 128
    skip_dim = 48
    stride = STRIDE
    mean, std = SHAPES_MEAN, SHAPES_STD

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn(3, 24, stride=2)
        self.block1 = ResidualBlock(24, 48, stride=2)
        self.block2 = ResidualBlock(48, 96, stride=2)
        self.block3 = ResidualBlock(96, 128, dilation=2)

    def forward(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """`stride4` (B,48,H/4,W/4) for a decoder's skip and `stride8` (B,128,H/8,W/8), sizes rounded up.

        Images are normalised by `mean` and `std`.
        """
        stride4 = self.block1(F.relu(self.stem(images_B3HW)))
        return {"stride4": stride4, "stride8": self.block3(self.block2(stride4))}


def token_distances(h: int, w: int, class_token: bool, *, device: torch.device | str = "cpu") -> Tensor:
    """Distances between tokens on the h x w grid, (N,N) float32, in tokens; rows ask, columns are looked at.

    A class token (index 0) looks at every patch from distance 0, and patches look at it from distance 6.
    """
    y = torch.arange(h, device=device, dtype=torch.float32).repeat_interleave(w)
    x = torch.arange(w, device=device, dtype=torch.float32).repeat(h)
    distance = torch.hypot(y[:, None] - y[None, :], x[:, None] - x[None, :])
    if not class_token:
        return distance
    return F.pad(F.pad(distance, (1, 0), value=6.0), (0, 0, 1, 0), value=0.0)


class LocalAttention(nn.Module):
    """Multi-head attention whose logits fall by softplus(w) per token of distance, w learned per head."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.slope = nn.Parameter(torch.linspace(2.0, 0.0, heads))

    def forward(self, x_BND: Tensor, distance_NN: Tensor) -> Tensor:
        q, k, v, bias = self._parts(x_BND, distance_NN)
        if x_BND.device.type == "cpu":
            return self.out(_head_by_head(q, k, v, bias))
        return self.out(self._join(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))

    def explicit(self, x_BND: Tensor, distance_NN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output (B,N,D), logits and probabilities (B,heads,N,N), without the fused kernel; differentiable."""
        q, k, v, bias = self._parts(x_BND, distance_NN)
        logits = (q / q.shape[-1] ** 0.5) @ k.transpose(-2, -1) + bias
        probabilities = logits.softmax(dim=-1)
        return self.out(self._join(probabilities @ v)), logits, probabilities

    def _parts(self, x_BND: Tensor, distance_NN: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values (B,heads,N,D/heads), and what is added to their logits (heads,N,N)."""
        b, n, d = x_BND.shape
        q, k, v = self.qkv(x_BND).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        bias = -F.softplus(self.slope)[:, None, None] * distance_NN
        return q, k, v, bias.to(q.dtype)

    def _join(self, mixed: Tensor) -> Tensor:
        """Heads side by side: (B,N,D)."""
        return mixed.transpose(1, 2).flatten(2)


def _head_by_head(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Mixed values (B,N,D) of queries, keys and values (B,heads,N,D/heads) and of what is added to logits (heads,N,N).

    The kernel's numbers to the last bit where a gradient is taken; without one it takes three times as long on a CPU,
    whose cache holds the logits of one head.
    """
    root = math.sqrt(q.shape[-1] ** -0.5)
    mixed = []
    for head, bias_NN in enumerate(bias):
        logits_BNN = torch.bmm(q[:, head] * root, (k[:, head] * root).mT)
        mixed.append(torch.bmm((logits_BNN + bias_NN).softmax(dim=-1), v[:, head]))
    return torch.cat(mixed, dim=-1)


class Block(nn.Module):
    """Pre-norm transformer block with an MLP of ratio 4."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = LocalAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x_BND: Tensor, distance_NN: Tensor) -> Tensor:
        x_BND = x_BND + self.attention(self.norm1(x_BND), distance_NN)
        return x_BND + self.mlp(self.norm2(x_BND))


class ShapesViT(nn.Module):
    """Three convolutions to stride 8, then 3 blocks (width 96, 4 heads, class token); 0.412 M parameters."""

    dim = 96
    depth = 3
    stride = STRIDE
    skip_dim = 48
    table = 12
    """Side of the position table, tokens."""
    mean, std = SHAPES_MEAN, SHAPES_STD

    def __init__(self) -> None:
        super().__init__()
        self.stem2 = _conv_bn(3, 24, stride=2)
        self.stem4 = _conv_bn(24, 48, stride=2)
        self.stem8 = _conv_bn(48, 96, stride=2)
        self.project = nn.Conv2d(96, self.dim, 1)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.dim))
        self.position_table = nn.Parameter(torch.empty(1, self.dim, self.table, self.table))
        self.blocks = nn.ModuleList(Block(self.dim, 4) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.dim)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.position_table, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stride4(self, images_B3HW: Tensor) -> Tensor:
        """Features (B,48,H/4,W/4) of the convolutions, for a decoder's skip."""
        return F.relu(self.stem4(F.relu(self.stem2(images_B3HW))))

    def embed_stride4(self, stride4_B48HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens from `stride4`: as `embed`, for callers that need both."""
        tokens = self.project(F.relu(self.stem8(stride4_B48HW)))
        return tokens.flatten(2).transpose(1, 2), (tokens.shape[2], tokens.shape[3])

    def embed(self, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens (B,N,D) without position, and their grid (h,w), of normalised images."""
        return self.embed_stride4(self.stride4(images_B3HW))

    def position(self, h: int, w: int) -> Tensor:
        """Position of each patch token, (1,N,D): the 12x12 table, bicubic to other grids."""
        table: Tensor = self.position_table
        if (h, w) != (self.table, self.table):
            table = F.interpolate(table, size=(h, w), mode="bicubic", align_corners=False)
        return table.flatten(2).transpose(1, 2)

    def run_block(self, i: int, tokens_BND: Tensor, hw: tuple[int, int], class_token: bool) -> Tensor:
        """Tokens after block `i` (from 0); `class_token` tells whether token 0 is one.

        Raises ValueError when the number of tokens does not fit the grid.
        """
        if tokens_BND.shape[1] != hw[0] * hw[1] + int(class_token):
            raise ValueError(f"{tokens_BND.shape[1]} tokens on a grid {hw} (class token: {class_token})")
        return self.blocks[i](tokens_BND, token_distances(*hw, class_token, device=tokens_BND.device))

    def forward(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """`stride4` (B,48,H/4,W/4) and `stride8` (B,96,H/8,W/8), the patch tokens after the final norm.

        Sizes are rounded up; images are normalised by `mean` and `std`.
        """
        stride4 = self.stride4(images_B3HW)
        patches, (h, w) = self.embed_stride4(stride4)
        patches = patches + self.position(h, w)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        for i in range(self.depth):
            tokens = self.run_block(i, tokens, (h, w), True)
        stride8 = self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, (h, w))
        return {"stride4": stride4, "stride8": stride8}


NETWORKS: dict[str, type[ShapesCNN] | type[ShapesViT]] = {"shapes_cnn": ShapesCNN, "shapes_vit": ShapesViT}


def weights_path(name: str) -> Path:
    """The packaged safetensors file of `shapes_cnn` or `shapes_vit`. Raises BadInput for another name."""
    if name not in NETWORKS:
        raise BadInput(Problem("backbone.name", f"unknown network {name!r}", nearest(name, NETWORKS)))
    return WEIGHTS / f"{name}.safetensors"


def load_shapes_backbone(name: str, path: str | Path | None = None) -> ShapesCNN | ShapesViT:
    """The pretrained `shapes_cnn` or `shapes_vit` on the CPU, in eval mode.

    Packaged weights, or those in `path` (safetensors). Raises BadInput for an unknown name or a missing file.
    """
    path = weights_path(name) if path is None else Path(path)
    if not path.is_file():
        fix = "install the package again, or run python -m harness.data make-backbones"
        raise BadInput(Problem("backbone.weights", f"no file {path}", fix))
    network = NETWORKS[name]()
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys() if not key.startswith(PRETEXT_PREFIX)}  # noqa: SIM118
    network.load_state_dict(state)
    return network.eval()
