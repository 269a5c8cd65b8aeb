"""Pseudo labels of FSAE's teacher: class distribution, confident pixels, and the ring around the object (fsae.md 2.3,
2.6).

Axes: B images, C foreground classes, K = C + 1 channels, h w the grid of class maps. Labels are channel indices:
background has that of its channel, 0 unless `background` says otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.tensors import constant

ABSENT = {"zero": 0.0, "exclude": -torch.inf}
"""What becomes of the logits of classes that the image does not show."""
SMALLEST_PEAK = 1e-5
"""Maps with a smaller maximum are not stretched to 1: they show nothing."""


class TeacherLabels(NamedTuple):
    """What the teacher says of each pixel, all (B,h,w) and without gradient."""

    conf: Tensor
    """Largest probability, in [0,1]."""
    label: Tensor
    """Its channel, int64."""
    mask: Tensor
    """Bool: confidence reaches `p_cutoff`, background too."""
    mask_fg: Tensor
    """Bool: the probability of a foreground class does."""
    ring: Tensor
    """Bool: within reach of `mask_fg` and not in it."""
    ring_kept: Tensor
    """Bool: the part of the ring whose confidence reaches `bdry_cutoff`."""
    mask_exp: Tensor
    """Bool: `mask` or `ring_kept`."""


def class_logits(maps_BChw: Tensor, tags_BC: Tensor, temperature: float = 0.1) -> Tensor:
    """Logits (B,K,h,w) with background at 0 of raw class maps that have no such channel, with gradient (fsae.md 2.6).

    n = relu(map) / its maximum for present classes, 1 - max n for background; logits n / `temperature`, absent classes
    -inf. A map without a positive value is 0 throughout.
    """
    maps = maps_BChw.float().relu()
    absent_BC11 = ~(tags_BC > 0)[:, :, None, None]
    shown_BChw = (maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=SMALLEST_PEAK)).masked_fill(absent_BC11, 0.0)
    background_B1hw = 1.0 - shown_BChw.amax(dim=1, keepdim=True)
    return torch.cat([background_B1hw, shown_BChw.masked_fill(absent_BC11, -torch.inf)], dim=1) / temperature


def filter_absent(logits_BKhw: Tensor, tags_BC: Tensor, *, absent: str, background: int = 0) -> Tensor:
    """Logits (B,K,h,w) whose absent classes are 0 (`absent` "zero", as published) or -inf ("exclude"); background
    stays (fsae.md 2.3).

    The C channels beside `background` are the classes in order. Raises ValueError for another word, or for tags of
    another number of classes.
    """
    if absent not in ABSENT:
        raise ValueError(f"absent {absent!r}: one of {', '.join(ABSENT)}")
    labels = logits_BKhw.shape[1]
    if tags_BC.shape[1] != labels - 1 or not -labels <= background < labels:
        raise ValueError(f"tags of {tags_BC.shape[1]} classes and background {background} do not fit {labels} channels")
    place = background % labels
    gone_BC = tags_BC <= 0
    gone_BK = torch.cat([gone_BC[:, :place], torch.zeros_like(gone_BC[:, :1]), gone_BC[:, place:]], dim=1)
    return logits_BKhw.masked_fill(gone_BK[:, :, None, None], ABSENT[absent])


@torch.no_grad()
def teacher_labels(
    logits_BKhw: Tensor,
    tags_BC: Tensor,
    *,
    p_cutoff: float = 0.95,
    bdry_cutoff: float = 0.8,
    bdry_size: int = 3,
    rings: int = 1,
    absent: str,
    background: int = 0,
) -> TeacherLabels:
    """Labels and confident pixels of the teacher's logits, grown by `rings` dilations of `bdry_size` x `bdry_size`
    (fsae.md 2.3).

    Cutoffs are probabilities, reached from themselves on; `p_cutoff` above 1 selects nothing, `bdry_size` 1 grows
    nothing. Raises ValueError for an even `bdry_size`.
    """
    if bdry_size < 1 or bdry_size % 2 == 0:
        raise ValueError(f"bdry_size {bdry_size}: an odd number of pixels, 1 for no ring")
    probs_BKhw = filter_absent(logits_BKhw.float(), tags_BC, absent=absent, background=background).softmax(dim=1)
    conf_Bhw, label_Bhw = probs_BKhw.max(dim=1)
    mask_Bhw = conf_Bhw >= p_cutoff
    classes_BKhw = probs_BKhw.clone()
    classes_BKhw[:, background] = -1.0
    mask_fg_Bhw = classes_BKhw.amax(dim=1) >= p_cutoff
    ring_Bhw = dilate(mask_fg_Bhw, bdry_size, rings) & ~mask_fg_Bhw
    kept_Bhw = ring_Bhw & (conf_Bhw >= bdry_cutoff)
    return TeacherLabels(conf_Bhw, label_Bhw, mask_Bhw, mask_fg_Bhw, ring_Bhw, kept_Bhw, mask_Bhw | kept_Bhw)


def dilate(mask_Bhw: Tensor, size: int, times: int = 1) -> Tensor:
    """Bool (B,h,w): what a square of `size` pixels reaches from the mask in `times` steps."""
    reach = (size // 2) * times
    if reach == 0:
        return mask_Bhw
    return F.max_pool2d(mask_Bhw[:, None].float(), 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0


@torch.no_grad()
def confidence_bins(conf_Bhw: Tensor, edges: Sequence[float]) -> Tensor:
    """Which pixels' confidence lies in each bin: bool (len(edges)+1,B,h,w) (fsae.md 4).

    Bin i reaches from edge i-1, included, up to edge i; the first and the last are open. Raises ValueError where edges
    do not rise.
    """
    if any(low >= high for low, high in itertools.pairwise(edges)):
        raise ValueError(f"edges {tuple(edges)} do not rise")
    limits = constant(tuple(edges), conf_Bhw)
    index_Bhw = torch.bucketize(conf_Bhw.contiguous(), limits, right=True)
    return index_Bhw == torch.arange(len(limits) + 1, device=conf_Bhw.device)[:, None, None, None]
