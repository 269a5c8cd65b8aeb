"""Batches of `golden_curves` as the methods of sparse labels get them: few labels, padding, what the image holds."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import torch

from harness.api.method import Batch, Method
from harness.api.vocabulary import IGNORE
from methods.parts.views.sparse_views import TAGS


def make(name: str, variant: str = "default", **knobs: object) -> Method:
    """A method on `shapes_vit` and DeepLabV3+, in the frame of `pce` unless `knobs` say otherwise."""
    plain = {
        "optimizer": "adamw",
        "schedule": "cosine",
        "lr_backbone": 7e-4,
        "lr_mult_head": 1.0,
        "weight_decay": 0.05,
        "warmup": 0.05,
        "dropout": 0.0,
        "output_stride": 8,
    }
    return golden.make(name, variant, **{"decoder": "deeplabv3plus", **plain, **knobs})


def batch(method: Method, seed: int = 0, keep: float = 0.05, images: int = golden.GROUP) -> Batch:
    """A share `keep` of the labels, the last eight rows of the first image padding."""
    data = golden.batch(method, seed, images=images)
    assert data.label_BHW is not None
    held = torch.cat([torch.ones(images, 1), data.tags_BC], 1)
    chosen = torch.rand(data.label_BHW.shape, generator=torch.Generator().manual_seed(5)) < keep
    content = torch.ones_like(data.label_BHW, dtype=torch.bool)
    content[0, -8:] = False
    label = torch.where(chosen & content, data.label_BHW, IGNORE)
    return dataclasses.replace(data, extra={TAGS: held}, label_BHW=label, content_BHW=content)
