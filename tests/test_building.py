"""`harness.testing.build`: every method on an encoder given as a module takes one step."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from harness.api.encoders import given_encoder
from harness.api.method import Progress
from harness.api.registry import registry
from harness.datasets import open_dataset
from harness.datasets.loading import Loader, Source
from harness.errors import BadInput
from harness.testing import build
from methods.parts.nets.encoders import ShapesEncoder
from methods.parts.nets.shapes_nets import ShapesViT

CROP, CLASSES = 48, 8
WORDS = {"crop": CROP, "classes": CLASSES, "variant": "default", "iterations": 20, "group": 2}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def words_of(method: str) -> str:
    spec = registry().spec(method)
    return f"{(spec.bases or ('cam',))[0]}+{method}" if spec.plugin else method


@pytest.mark.parametrize("name", registry().names())
def test_every_method_takes_a_step_on_a_given_encoder(name: str) -> None:
    torch.manual_seed(1)
    method = build(words_of(name), "shapes", ShapesViT(), **WORDS)
    assert method.training
    assert given_encoder() is None, "given for the time of building only"
    dataset = open_dataset("shapes", options={"n_train": "4", "n_val": "1", "n_test": "1"})
    labels = registry().spec(name).labels[0]
    source = Source("masks" if labels not in ("tags", "masks") else labels, background_tags=method.background_tags,
                    extra={"seed": lambda image_id: np.ones((dataset.num_classes, 6, 6), np.float32)})  # fmt: skip
    with Loader(
        dataset, dataset.ids("train"), method.transform(), source, seed=0, batch=2, group=2, total_steps=1
    ) as made:
        (group,) = next(iter(made))
    losses = method.step(group, Progress(19, 20)).losses
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_the_given_module_is_the_encoder_itself() -> None:
    net = ShapesViT()
    method = build("cam", "shapes", net, **WORDS)
    assert isinstance(method.net.encoder, ShapesEncoder)
    own = {id(p) for p in net.parameters()}
    assert own & {id(p) for p in method.net.encoder.parameters()}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, depth=2)
    assert build("toco", "voc", vit, **WORDS).net.encoder.dim == 192


def test_knobs_sizes_and_variants_are_taken_and_wrong_ones_named() -> None:
    method = build("cam", "voc", ShapesViT(), **WORDS, w_seg=0.5)
    assert method.config.w_seg == 0.5
    assert (method.info.iterations, method.info.group, method.info.num_classes, method.info.tier) == (20, 2, 8, "paper")
    with pytest.raises(BadInput, match="w_segg"):
        build("cam", "voc", ShapesViT(), **WORDS, w_segg=0.5)
    with pytest.raises(BadInput, match="no variant 'odd'"):
        build("cam", "voc", ShapesViT(), **{**WORDS, "variant": "odd"})
    with pytest.raises(BadInput, match="Linear"):
        build("cam", "voc", nn.Linear(2, 2), **WORDS)


@pytest.mark.parametrize("words", [{}, {"features_only": True, "out_indices": (4,)}])
def test_a_network_that_gives_no_maps_is_answered(words: dict[str, object]) -> None:
    net = timm.create_model("resnet18", **words)
    with pytest.raises(BadInput, match=r"(?s)gives no maps of several strides.*features_only=True"):
        build("agmm", "voc", net, **WORDS)


@pytest.mark.parametrize(
    ("family", "variant"), [("voc", "released"), ("cityscapes", "released"), ("cityscapes", "default")]
)
@pytest.mark.parametrize("name", ["agmm", "gatedcrf"])
def test_a_given_network_keeps_its_stride_and_dilations(name: str, family: str, variant: str) -> None:
    """Presets ask for output stride 16 (gatedcrf, released) and multi-grid (Cityscapes) of backbones by name."""
    net = timm.create_model("resnet10t", features_only=True, output_stride=8)
    before = [m.dilation for m in net.modules() if isinstance(m, nn.Conv2d)]
    method = build(name, family, net, **{**WORDS, "variant": variant})
    assert method.net.encoder.stride == 8
    assert [m.dilation for m in net.modules() if isinstance(m, nn.Conv2d)] == before


def test_equal_calls_give_equal_parameters() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        net = ShapesViT()
        torch.manual_seed(len(states) + 5)
        states.append(build("fsr", "shapes", net, **WORDS).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
