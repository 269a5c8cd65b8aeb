"""A6: which tokens belong together, and the loss that pulls them together or apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.datasets.base import IGNORE

VERSION = 1


@torch.no_grad()
def token_relations(label_BN: Tensor) -> Tensor:
    """Relation of every pair of tokens, uint8 (B,N,N): 1 same label, 0 other, 255 itself or ignored (A6).

    `label_BN` holds label values, 255 = ignored; background and background are a positive pair.
    """
    label = label_BN.flatten(1)
    relation = (label[:, :, None] == label[:, None, :]).to(torch.uint8)
    ignored = label == IGNORE
    relation.masked_fill_(ignored[:, :, None] | ignored[:, None, :], IGNORE)
    relation.diagonal(dim1=1, dim2=2).fill_(IGNORE)
    return relation


def ptc_loss(features_BND: Tensor, relation_BNN: Tensor) -> Tensor:
    """Token contrast over all pairs of the group: scalar, float32, gradient through both tokens (A6).

    1/2 (1 - sum of |cos| over positives / (n1+1)) + 1/2 sum of |cos| over negatives / (n0+1).
    """
    with torch.autocast(features_BND.device.type, enabled=False):
        unit_BND = F.normalize(features_BND.float(), dim=-1, eps=1e-8)
        same_BNN, other_BNN = relation_BNN == 1, relation_BNN == 0
        n1, n0 = same_BNN.sum().float(), other_BNN.sum().float()
        # One table of factors replaces two masked copies of the cosines.
        factor_BNN = same_BNN.float().mul_(-0.5 / (n1 + 1)).add_(other_BNN * (0.5 / (n0 + 1)))
        cosine_BNN = unit_BND @ unit_BND.transpose(1, 2)
        return 0.5 + (cosine_BNN.abs() * factor_BNN).sum()
