"""The released checkpoint: a generated file with the names and shapes of the published code.

They were read in repository Jessie459/feature-self-reinforcement at commit 3a7cbf7 (`models/network.py`, `vit.py`,
`decoder.py`, `projector.py`).
"""

from __future__ import annotations

import pytest
import torch

from harness.api.method import BuildInfo
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.errors import BadInput
from harness.plan.knobs import typed_knobs

DIM, GRID, CLASSES, WIDTH = 192, 4, 20, 128
"""ViT-Tiny at 64 px, VOC's classes, the decoder's width at tier smoke."""
HIDDEN, NECK, PROTOTYPES = 512, 64, 1024


def published_shapes():
    """Every tensor of `WSSSNetwork`, with its encoder's width for the published 768."""
    found = {
        "encoder.cls_token": (1, 1, DIM),
        "encoder.pos_embed": (1, 1 + GRID**2, DIM),
        "encoder.mask_token": (1, DIM),
        "top_classifier.weight": (CLASSES, DIM, 1, 1),
        "aux_classifier.weight": (CLASSES, DIM, 1, 1),
        "decoder.conv6.weight": (WIDTH, DIM, 3, 3),
        "decoder.conv7.weight": (WIDTH, WIDTH, 3, 3),
        "decoder.conv8.weight": (CLASSES + 1, WIDTH, 1, 1),
        "projector.last_layer.weight_g": (PROTOTYPES, 1),
        "projector.last_layer.weight_v": (PROTOTYPES, NECK),
    }

    def affine(name, *weight):
        found[name + ".weight"], found[name + ".bias"] = weight, weight[:1]

    affine("encoder.patch_embed.proj", DIM, 3, 16, 16)
    affine("encoder.norm", DIM)
    for blocks, depth in (("blocks", 12), ("cls_blocks", 2)):
        for i in range(depth):
            block = f"encoder.{blocks}.{i}."
            affine(block + "norm1", DIM)
            affine(block + "norm2", DIM)
            affine(block + "attn.proj", DIM, DIM)
            affine(block + "mlp.fc1", 4 * DIM, DIM)
            affine(block + "mlp.fc2", DIM, 4 * DIM)
            if blocks == "blocks":
                affine(block + "attn.qkv", 3 * DIM, DIM)
    for i in range(2):
        for part in ("q", "k", "v"):
            found[f"encoder.cls_blocks.{i}.attn.{part}.weight"] = (DIM, DIM)
            found[f"encoder.cls_blocks.{i}.attn.{part}.bias"] = (DIM,)
    for layer, sizes in ((0, (HIDDEN, DIM)), (2, (HIDDEN, HIDDEN)), (4, (NECK, HIDDEN))):
        affine(f"projector.mlp.{layer}", *sizes)
    return found


def published_state():
    torch.manual_seed(1)
    return {name: 0.02 * torch.randn(shape) for name, shape in published_shapes().items()}


@pytest.fixture(scope="module")
def method():
    spec = registry().spec("fsr")
    knobs = dict(resolve(spec.preset)("voc", "smoke", "released").knobs)
    info = BuildInfo(
        num_classes=20,
        has_background=True,
        crop=64,
        iterations=10,
        group=2,
        tier="smoke",
        variant="released",
        labels="tags",
        backbone="vit_tiny_patch16_224",
        backbone_weights="random",
        decoder="largefov",
    )
    torch.manual_seed(0)
    return resolve(spec.build)(typed_knobs(spec, knobs), info)


def test_every_tensor_lands_where_it_belongs(method):
    expected = method.state_dict()
    state = published_state()
    found = resolve(registry().spec("fsr").published)(method).convert(state, expected)
    assert list(found) == list(expected)
    assert torch.equal(found["net.classifier_top.weight"], state["top_classifier.weight"])
    assert torch.equal(found["net.classifier_aux.weight"], state["aux_classifier.weight"])
    assert torch.equal(found["net.mask_token"], state["encoder.mask_token"][None])
    assert torch.equal(found["net.decoder.first.weight"], state["decoder.conv6.weight"])
    assert torch.equal(found["net.encoder.pos_embed"], state["encoder.pos_embed"][:, 1:])
    assert torch.equal(found["net.aggregation.cls_token"], state["encoder.cls_token"])
    joined = found["net.aggregation.blocks.1.key_value.weight"]
    assert torch.equal(joined[:DIM], state["encoder.cls_blocks.1.attn.k.weight"])
    assert torch.equal(joined[DIM:], state["encoder.cls_blocks.1.attn.v.weight"])
    assert all(torch.equal(v, found["net." + k[8:]]) for k, v in found.items() if k.startswith("teacher."))
    assert not found["centre_class_K"].any()
    method.load_state_dict(found)
    want = frozenset({"segmentation"})
    images = torch.randn(1, 3, 64, 64)
    one, two = (method.predict(images, want=want, weights=w).segmentation_BKhw for w in ("student", "teacher"))
    assert torch.equal(one, two)


def test_every_published_tensor_is_read_but_the_gains():
    names = resolve(registry().spec("fsr").published)(None)
    plain = {n.replace(".attn.k.", ".attn.kv.") for n in published_shapes() if ".attn.v." not in n}
    assert {n for n in plain if names.name(n) is None} == {"projector.last_layer.weight_g"}


def test_foreign_files_are_named(method):
    state = published_state()
    state["odd"] = torch.zeros(1)
    del state["decoder.conv7.weight"]
    state["top_classifier.weight"] = torch.zeros(80, 192, 1, 1)
    with pytest.raises(BadInput) as error:
        resolve(registry().spec("fsr").published)(method).convert(state, method.state_dict())
    text = str(error.value)
    assert "odd" in text
    assert "net.decoder.second.weight" in text
    assert "(80, 192, 1, 1)" in text
