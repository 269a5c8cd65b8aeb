"""SIPE's seeds, prototypes and IS-CAM (sipe.md 2.2, 7.11) with the structure of its published code: every cell's
similarity times every class map as [B,K,N,N], in the graph of gradients although none flows through an argmax, and
every feature times every seed map as [B,K,D,N]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def seeds(cam_BKhw: Tensor, features_BDhw: Tensor, valid_BKhw: Tensor) -> Tensor:
    """Seeds (B,K,h,w) in {0,1}."""
    batch, labels, h, w = cam_BKhw.shape
    feature = features_BDhw.view(batch, -1, h * w)
    feature = feature / (feature.norm(dim=1, keepdim=True) + 1e-5)
    similar = F.relu(torch.matmul(feature.transpose(2, 1), feature)).unsqueeze(1)
    flat = cam_BKhw.view(batch, labels, -1).unsqueeze(2)
    shared = (similar * flat).sum(-1)
    union = similar.sum(-1) + flat.sum(-1) - shared
    iou = (shared / union).view(batch, labels, h, w)
    iou = torch.cat([iou[:, :1] * 0.5, iou[:, 1:]], dim=1)
    found = torch.zeros(batch, labels, h, w).scatter_(1, iou.argmax(dim=1, keepdim=True), 1.0)
    return found * valid_BKhw


def head(maps_BChw: Tensor, deep_BDhw: Tensor, hierarchical_BDhw: Tensor, valid_BKhw: Tensor) -> Tensor:
    """Loss L_GSC of class maps, deepest features and hierarchical features of one size."""
    cam = F.relu(maps_BChw)
    cam = cam / (F.adaptive_max_pool2d(cam, 1) + 1e-5)
    cam = torch.cat([1 - cam.max(dim=1, keepdim=True)[0], cam], dim=1) * valid_BKhw
    found = seeds(cam, deep_BDhw, valid_BKhw)
    batch, labels, h, w = cam.shape
    spread = hierarchical_BDhw.unsqueeze(1) * found.unsqueeze(2)
    prototypes = F.adaptive_avg_pool2d(spread.view(batch * labels, -1, h, w), 1).view(batch, labels, -1, 1, 1)
    similar = F.relu(torch.cosine_similarity(hierarchical_BDhw.unsqueeze(1), prototypes, dim=2))
    similar = similar / (F.adaptive_max_pool2d(similar, 1) + 1e-5)
    return (cam - similar).abs().mean()
