"""AGMM's losses with the structure of its published code: features upsampled to pixels, loops over images and classes,
distances broadcast to (B,K,D,h,w), a double loop over pairs of classes. Formulas: agmm.md 2.3, 2.4.

Axes: B images, K labels, D channels, H W pixels, h w cells. 255 is unlabelled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def losses(features: Tensor, logits: Tensor, label: Tensor, tags: Tensor, content: Tensor) -> dict[str, Tensor]:
    """Partial cross-entropy, L_cls, L_1, L_2 and L_sep (mean over images) of one batch; logits at pixel size."""
    num_labels = logits.shape[1]
    probs = logits.softmax(1)
    real = content.float()
    labelled = label < num_labels
    absent = (1.0 - tags)[:, :, None, None]
    cls = (absent * -(1.0 - probs + EPS).log()).sum(1)[content].sum() / real.sum().clamp(min=1)

    centres, present = _centres(features, label, num_labels)
    d = (features[:, None] - centres[..., None, None]).abs().mean(2)
    d = d * present[:, :, None, None]
    d = d * F.interpolate(real[:, None], features.shape[-2:], mode="bilinear", align_corners=False)
    maps = F.interpolate((-(d**2)).exp(), label.shape[-2:], mode="bilinear", align_corners=False)
    maps = maps * present[:, :, None, None]

    share = present / (present.sum(1, keepdim=True) + EPS)
    onehot = F.one_hot(torch.where(labelled, label, num_labels), num_labels + 1)[..., :num_labels]
    onehot = onehot.permute(0, 3, 1, 2).float()
    first = 0.5 * (_soft_bce(maps, probs) * share[:, :, None, None]).sum(1)
    second = 0.5 * (_soft_bce(onehot, maps) * share[:, :, None, None]).sum(1)
    return {
        "seg": F.cross_entropy(logits, label, ignore_index=255),
        "cls": cls,
        "gmm_self": (first * real).sum() / real.sum().clamp(min=1),
        "gmm_label": (second * labelled).sum() / labelled.sum().clamp(min=1),
        "sep": _separation(centres, present),
    }


def _centres(features: Tensor, label: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    up = F.interpolate(features, label.shape[-2:], mode="bilinear", align_corners=False)
    present = torch.zeros(len(features), num_labels)
    rows = []
    for b in range(len(features)):
        own = []
        for k in range(num_labels):
            here = label[b] == k
            if here.any():
                present[b, k] = 1.0
                own.append(up[b][:, here].sum(1) / (here.sum() + EPS))
            else:
                own.append(up.new_zeros(up.shape[1]))
        rows.append(torch.stack(own))
    return torch.stack(rows), present


def _soft_bce(target: Tensor, guess: Tensor) -> Tensor:
    return -target * (guess + EPS).log() - (1.0 - target) * (1.0 - guess + EPS).log()


def _separation(centres: Tensor, present: Tensor) -> Tensor:
    vectors = {}
    for k in range(centres.shape[1]):
        images = present[:, k] > 0
        if images.any():
            vectors[k] = centres[images, k].mean(0)
    found = list(vectors.values())
    total, pairs = centres.new_zeros(()), 0
    for i in range(len(found)):
        for j in range(i + 1, len(found)):
            total = total + (-((found[i] - found[j]).abs().mean() ** 2)).exp()
            pairs += 1
    return total / (pairs + EPS)
