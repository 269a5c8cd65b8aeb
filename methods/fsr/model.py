"""FSR's network: the shared ViT segmenter with an auxiliary head, an aggregated class token and a projector.

Axes: B images, C classes, h w tokens a side, N tokens, D channels, K prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.parts.bases.aux_segmenter import AuxViTSegmenter
from methods.parts.bases.aux_segmenter import Tokens as CamTokens
from methods.parts.nets.backbones import Encoder, encode
from methods.parts.nets.projector import Projector

HEAD_DIM = 64
"""Channels of an attention head of the card's ViT-B (768/12)."""
MLP_RATIO = 4
LAYER_NORM_EPS = 1e-6


class CrossAttentionBlock(nn.Module):
    """Pre-norm block that updates the class vector from the patches; one norm serves both inputs (fsr.md
    2.2)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, MLP_RATIO * dim), nn.GELU(), nn.Linear(MLP_RATIO * dim, dim))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, class_B1D: Tensor, patches_BND: Tensor, open_B11N: Tensor | None) -> Tensor:
        """The updated class vector (B,1,D); keys are the patches where `open_B11N` is true."""
        query_BhQd = self._split(self.query(self.norm1(class_B1D)))
        key, value = self.key_value(self.norm1(patches_BND)).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(query_BhQd, self._split(key), self._split(value), open_B11N)
        class_B1D = class_B1D + self.out(mixed.transpose(1, 2).flatten(2))
        return class_B1D + self.mlp(self.norm2(class_B1D))

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Aggregation(nn.Module):
    """A class vector, started from the pretrained class token, that gathers patch tokens (fsr.md 2.2)."""

    def __init__(self, encoder: Encoder, blocks: int):
        super().__init__()
        start = encoder.cls_token.detach().clone() if encoder.cls_token is not None else _small(encoder.dim)
        self.cls_token = nn.Parameter(start)
        self.blocks = nn.ModuleList(CrossAttentionBlock(encoder.dim, heads_of(encoder.dim)) for _ in range(blocks))

    def forward(self, patches_BND: Tensor, masked_BN: Tensor | None = None) -> Tensor:
        """The class token (B,D), before the final norm; `masked_BN` true: not gathered, unless all of them are."""
        open_BN = None if masked_BN is None else open_tokens(masked_BN)
        class_B1D = self.cls_token.expand(len(patches_BND), -1, -1)
        for block in self.blocks:
            class_B1D = block(class_B1D, patches_BND, None if open_BN is None else open_BN[:, None, None])
        return class_B1D[:, 0]


class Pooling(nn.Module):
    """In place of `Aggregation`: the mean (`gap`) or maximum (`gmp`) of the patch tokens (fsr.md 5, Table 4)."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, patches_BND: Tensor, masked_BN: Tensor | None = None) -> Tensor:
        """The class token (B,D), before the final norm; `masked_BN` true: left out, unless all of them are."""
        open_BN1 = open_tokens(torch.zeros_like(patches_BND[..., 0]) if masked_BN is None else masked_BN)[..., None]
        if self.kind == "gmp":
            return patches_BND.masked_fill(~open_BN1, -torch.inf).amax(dim=1)
        return (patches_BND * open_BN1).sum(dim=1) / open_BN1.sum(dim=1)


def open_tokens(masked_BN: Tensor) -> Tensor:
    """Tokens that are not masked, bool (B,N); all of them in an image of which every one is."""
    masked_BN = masked_BN.bool()
    return ~masked_BN | masked_BN.all(dim=1, keepdim=True)


@dataclass(frozen=True)
class Tokens(CamTokens):
    """Patch tokens of a forward; `raw_BND` before the final norm."""

    raw_BND: Tensor

    def halves(self) -> tuple[Tokens, Tokens]:
        """The tokens of the first and of the second half of the images."""
        (aux, aux2), (top, top2), (raw, raw2) = (x.chunk(2) for x in (self.aux_BND, self.top_BND, self.raw_BND))
        skip, skip2 = (None, None) if self.skip_BSHW is None else self.skip_BSHW.chunk(2)
        return Tokens(self.hw, aux, top, raw, skip_BSHW=skip), Tokens(self.hw, aux2, top2, raw2, skip_BSHW=skip2)


class FsrNet(AuxViTSegmenter):
    """`AuxViTSegmenter` with mask token, aggregation and projector."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        aggregation: str,
        aggregation_blocks: int,
        projector: Projector,
        **sizes: Any,
    ):
        super().__init__(encoder, **sizes)
        self.mask_token = nn.Parameter(_small(encoder.dim))
        self.aggregation = Aggregation(encoder, aggregation_blocks) if aggregation == "mca" else Pooling(aggregation)
        self.projector = projector

    def read(self, images_B3HW: Tensor, masked_BN: Tensor | None = None, depth_LB: Tensor | None = None) -> Tokens:
        """All patch tokens; `masked_BN` true: replaced by the mask token before positions are added. `depth_LB` is
        stochastic depth that was drawn beforehand."""
        encoded = encode(
            self.encoder,
            images_B3HW,
            tap=self.aux_block,
            masked_BN=masked_BN,
            mask_token_11D=self.mask_token,
            depth_LB=depth_LB,
        )
        assert encoded.tapped_BND is not None
        top_BND = self.encoder.norm(encoded.last_BND)
        return Tokens(encoded.hw, encoded.tapped_BND, top_BND, encoded.last_BND, skip_BSHW=encoded.skip_BSHW)

    def top_cam_maps(self, images_B3HW: Tensor) -> Tensor:
        """Raw class maps (B,C,h,w) of the top head."""
        return self.top_maps(*self.tokens(images_B3HW))

    def project_class(self, raw_BND: Tensor, masked_BN: Tensor | None = None) -> Tensor:
        """Projection (B,K) of the class token that these patch tokens (before the final norm) aggregate to,
        without those where `masked_BN` is true."""
        return self.projector(self.encoder.norm(self.aggregation(raw_BND, masked_BN)))


def heads_of(dim: int) -> int:
    """Attention heads for `dim` channels: one per 64 as in ViT-B, at least one, and a divisor of `dim`."""
    return next(n for n in range(max(1, dim // HEAD_DIM), 0, -1) if dim % n == 0)


def _small(dim: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02)
