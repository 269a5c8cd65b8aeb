"""AGMM's Gaussian maps of the labelled classes (agmm.md 2.3).

Axes: B images, K labels, k classes that an image has labels of, D channels, H W pixels of the crop, h w cells of the
features. 255 (or any value outside 0..K-1) is unlabelled; what is padding is told by the content mask alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api.method import Extents
from methods.parts.ops.cam import gather_classes, present_classes, scatter_classes
from methods.parts.tensors import at_slots, full_precision

EPS = 1e-6
VARIANCES = ("constant", "weighted", "unweighted", "learned")
DISTANCES = ("l1", "l2", "cosine")


@torch.no_grad()
def presence(label_BHW: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Which pixels bear which label, and which labels each crop holds: float32 in {0,1}, (B,K,H,W) and (B,K)."""
    labels_K = torch.arange(num_labels, device=label_BHW.device)
    onehot_BKHW = (label_BHW[:, None] == labels_K[:, None, None]).float()
    return onehot_BKHW, onehot_BKHW.amax((2, 3))


@torch.no_grad()
def presence_of(label_BHW: Tensor, num_labels: int) -> Tensor:
    """Second half of `presence`, (B,K), without the maps."""
    slot_BN = label_BHW.flatten(1).long().clamp(min=-1, max=num_labels)
    slot_BN = torch.where(slot_BN < 0, num_labels, slot_BN)
    found = torch.zeros(len(label_BHW), num_labels + 1, device=label_BHW.device)
    return found.scatter_(1, slot_BN, 1.0)[:, :num_labels]


def centroids(
    features_BDhw: Tensor,
    label_BHW: Tensor,
    num_labels: int,
    *,
    align_corners: bool = False,
    extents: Extents | None = None,
) -> Tensor:
    """Mean feature of each image's labelled pixels per class: float32 (B,K,D), 0 where there is none (agmm.md 2.3).

    Features count at pixel resolution, bilinear. Upsampling is linear: the labelled pixels' weights are added up on
    the cells instead, so that no feature is ever resized. `extents` of the labels, where the host knows them.
    """
    pull_Bkn, count_Bk1, index_Bk = _pull(label_BHW, features_BDhw.shape[-2:], num_labels, align_corners, extents)
    with full_precision(features_BDhw):
        own_BkD = (pull_Bkn @ features_BDhw.float().flatten(2).transpose(1, 2)) / (count_Bk1 + EPS)
        found_BKD = own_BkD.new_zeros(len(label_BHW), num_labels, own_BkD.shape[2])
        return found_BKD.scatter(1, index_Bk[..., None].expand_as(own_BkD), own_BkD)


@torch.no_grad()
def _pull(
    label_BHW: Tensor, hw: torch.Size, num_labels: int, align_corners: bool, extents: Extents | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image's classes: the sum over their pixels of bilinear weights on every cell (B,k,h*w), the number of
    these pixels (B,k,1), and their labels (B,k)."""
    most = None if extents is None else extents.values
    index_Bk, _, _ = present_classes(presence_of(label_BHW, num_labels), most)
    slot_BK = torch.zeros(len(label_BHW), num_labels, dtype=torch.int64, device=label_BHW.device)
    slot_BK.scatter_(1, index_Bk, torch.arange(index_Bk.shape[1], device=label_BHW.device).expand_as(index_Bk))
    size = *index_Bk.shape, hw[0] * hw[1]
    labelled_BHW = (label_BHW >= 0) & (label_BHW < num_labels)
    if extents is None:
        at_N3 = labelled_BHW.nonzero()
        real_N = torch.ones(len(at_N3), device=label_BHW.device)
    else:
        at_N3 = torch.nonzero_static(labelled_BHW, size=extents.labelled, fill_value=-1)
        real_N = (at_N3[:, 0] >= 0).float()
        at_N3 = at_N3.clamp(min=0)
    image_N, y_N, x_N = at_N3.unbind(1)
    value_N = label_BHW[image_N, y_N, x_N].long().clamp(min=0, max=num_labels - 1)
    row_N = image_N * size[1] + slot_BK[image_N, value_N]
    row_2N, up_2N = _neighbours(y_N, label_BHW.shape[1], hw[0], align_corners)
    column_2N, across_2N = _neighbours(x_N, label_BHW.shape[2], hw[1], align_corners)
    cell_22N = row_N * size[2] + row_2N[:, None] * hw[1] + column_2N[None]
    pull = torch.zeros(size[0] * size[1] * size[2], device=label_BHW.device)
    pull.index_add_(0, cell_22N.flatten(), (up_2N[:, None] * across_2N[None] * real_N).flatten())
    count = torch.zeros(size[0] * size[1], device=label_BHW.device).index_add_(0, row_N, real_N)
    return pull.view(size), count.view(size[0], size[1], 1), index_Bk


def _neighbours(at_N: Tensor, pixels: int, cells: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The two cells that bilinear interpolation reads at each pixel of a side, and their weights, both (2,N)."""
    if align_corners:
        source_N = at_N.float() * ((cells - 1) / max(1, pixels - 1))
    else:
        source_N = ((at_N.float() + 0.5) * (cells / pixels) - 0.5).clamp(min=0.0)
    first_N = source_N.long().clamp(max=cells - 1)
    part_N = (source_N - first_N).clamp(0.0, 1.0)
    return torch.stack([first_N, (first_N + 1).clamp(max=cells - 1)]), torch.stack([1.0 - part_N, part_N])


def gaussian(
    features_BDhw: Tensor,
    centroids_BKD: Tensor,
    presence_BK: Tensor,
    content_BHW: Tensor,
    *,
    variance: str = "constant",
    sharpness: float | Tensor = 1.0,
    probs_BKHW: Tensor | None = None,
    distance: str = "l1",
    align_corners: bool = False,
) -> Tensor:
    """Gaussian of each present class around its centre: float32 (B,K,H,W) in [0,1], 0 for absent ones (agmm.md 2.3).

    `variance`: constant exp(-s d^2) with `sharpness` s; weighted and unweighted by the spread of d over the image,
    without gradient through it, weighted by `probs_BKHW`; learned: as constant with s of each class, a tensor (K,).
    Raises ValueError for an unknown variance or distance, and for weighted without probabilities.
    """
    index_Bk, real_Bk, _ = present_classes(presence_BK)
    maps_BkHW = present_gaussian(
        features_BDhw,
        at_slots(centroids_BKD, index_Bk),
        real_Bk,
        content_BHW,
        variance=variance,
        sharpness=sharpness[index_Bk] if isinstance(sharpness, Tensor) and sharpness.ndim else sharpness,
        probs_BkHW=None if probs_BKHW is None else gather_classes(probs_BKHW, index_Bk),
        distance=distance,
        align_corners=align_corners,
    )
    return scatter_classes(maps_BkHW, index_Bk, presence_BK.shape[1])


def present_gaussian(
    features_BDhw: Tensor,
    centroids_BkD: Tensor,
    real_Bk: Tensor,
    content_BHW: Tensor,
    *,
    variance: str,
    sharpness: float | Tensor,
    probs_BkHW: Tensor | None,
    distance: str,
    align_corners: bool,
) -> Tensor:
    """As `gaussian`, for the classes of `present_classes` alone: (B,k,H,W). A sharpness of each is a tensor (B,k)."""
    if variance not in VARIANCES:
        raise ValueError(f"variance {variance!r}, one of {', '.join(VARIANCES)} expected")
    hw, size, corners = features_BDhw.shape[-2:], content_BHW.shape[-2:], align_corners
    if not centroids_BkD.shape[1]:
        return features_BDhw.new_zeros((len(features_BDhw), 0, *size), dtype=torch.float32)
    with full_precision(features_BDhw):
        valid_B1hw = F.interpolate(content_BHW[:, None].float(), hw, mode="bilinear", align_corners=corners)
        d_Bkhw = distances(features_BDhw, centroids_BkD, distance) * real_Bk[:, :, None, None] * valid_B1hw
        if variance in ("constant", "learned"):
            s = sharpness[:, :, None, None] if isinstance(sharpness, Tensor) and sharpness.ndim else sharpness
            maps_Bkhw = torch.exp(-s * d_Bkhw.square())
        else:
            spread_Bk11 = _spread(d_Bkhw.detach(), valid_B1hw, variance, probs_BkHW, corners)
            maps_Bkhw = torch.exp(-d_Bkhw.square() / (2.0 * spread_Bk11 + EPS))
        maps_BkHW = F.interpolate(maps_Bkhw, size, mode="bilinear", align_corners=corners)
        return maps_BkHW * real_Bk[:, :, None, None]


@torch.no_grad()
def _spread(
    d_Bkhw: Tensor, valid_B1hw: Tensor, variance: str, probs_BkHW: Tensor | None, align_corners: bool
) -> Tensor:
    """sigma^2 (B,k,1,1) of the distances: of all real cells, or of those that the network gives to the class."""
    if variance == "unweighted":
        real_B111 = valid_B1hw.sum((2, 3), keepdim=True)
        return d_Bkhw.square().sum((2, 3), keepdim=True) / real_B111.clamp(min=EPS) + EPS
    if probs_BkHW is None:
        raise ValueError("variance=weighted needs the probabilities of the network")
    weight_Bkhw = (
        F.interpolate(probs_BkHW.float(), d_Bkhw.shape[-2:], mode="bilinear", align_corners=align_corners) * valid_B1hw
    )
    total_Bk11 = weight_Bkhw.sum((2, 3), keepdim=True) + EPS
    return (weight_Bkhw * d_Bkhw.square()).sum((2, 3), keepdim=True) / total_Bk11


def distances(features_BDhw: Tensor, centroids_BkD: Tensor, how: str = "l1") -> Tensor:
    """Distance of every cell to every centre, float32 (B,k,h,w): mean absolute (l1) or squared (l2) difference over
    channels, or 1 - cosine. Raises ValueError for another name."""
    cells_BnD = features_BDhw.float().flatten(2).transpose(1, 2)
    centres_BkD = centroids_BkD.float()
    channels = cells_BnD.shape[2]
    with full_precision(features_BDhw):
        if how == "l1":
            d_Bnk = torch.cdist(cells_BnD.contiguous(), centres_BkD.contiguous(), p=1.0) / channels
        elif how == "l2":
            squares_Bnk = cells_BnD.square().sum(-1, keepdim=True) + centres_BkD.square().sum(-1)[:, None]
            d_Bnk = (squares_Bnk - 2.0 * cells_BnD @ centres_BkD.transpose(1, 2)).clamp(min=0.0) / channels
        elif how == "cosine":
            d_Bnk = 1.0 - F.normalize(cells_BnD, dim=-1) @ F.normalize(centres_BkD, dim=-1).transpose(1, 2)
        else:
            raise ValueError(f"distance {how!r}, one of {', '.join(DISTANCES)} expected")
    return d_Bnk.transpose(1, 2).unflatten(2, features_BDhw.shape[-2:])
