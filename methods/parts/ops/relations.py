"""A6: which tokens belong together, and the loss that pulls them together or apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api.vocabulary import IGNORE
from methods.parts.tensors import full_precision

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
    with full_precision(features_BND):
        unit_BND = F.normalize(features_BND.float(), dim=-1, eps=1e-8)
        with torch.no_grad():
            same_BNN, other_BNN = relation_BNN == 1, relation_BNN == 0
            pull = -0.5 / (torch.count_nonzero(same_BNN) + 1)
            push = 0.5 / (torch.count_nonzero(other_BNN) + 1)
            cosine_BNN = unit_BND @ unit_BND.transpose(1, 2)
            # Derivative of the loss by each cosine; its sum with the cosines is the loss itself.
            slope_BNN = torch.where(same_BNN, pull, push * other_BNN).mul_(cosine_BNN.sign())
            value = 0.5 + torch.dot(slope_BNN.flatten(), cosine_BNN.flatten())
            if not features_BND.requires_grad:
                return value
            # A cosine depends on both its tokens: one product gives both gradients, autograd takes two.
            gradient_BND = (slope_BNN + slope_BNN.transpose(1, 2)) @ unit_BND
        carrier = (gradient_BND * unit_BND).sum()
        return value + (carrier - carrier.detach())
