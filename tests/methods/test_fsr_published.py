"""The released checkpoint's names, on a generated state dict."""

from __future__ import annotations

import re

import pytest
import torch

from harness.api.method import BuildInfo
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.errors import BadInput
from harness.plan.knobs import typed_knobs

BACK = (
    (r"net\.mask_token", "encoder.mask_token"),
    (r"net\.encoder\.final_norm\.(.+)", r"encoder.norm.\1"),
    (r"net\.encoder\.(.+)", r"encoder.\1"),
    (r"net\.aggregation\.blocks\.(\d)\.norm(\d)\.(.+)", r"encoder.cls_blocks.\1.norm\2.\3"),
    (r"net\.aggregation\.blocks\.(\d)\.query\.(.+)", r"encoder.cls_blocks.\1.attn.q.\2"),
    (r"net\.aggregation\.blocks\.(\d)\.key_value\.(.+)", r"encoder.cls_blocks.\1.attn.kv.\2"),
    (r"net\.aggregation\.blocks\.(\d)\.out\.(.+)", r"encoder.cls_blocks.\1.attn.proj.\2"),
    (r"net\.aggregation\.blocks\.(\d)\.mlp\.0\.(.+)", r"encoder.cls_blocks.\1.mlp.fc1.\2"),
    (r"net\.aggregation\.blocks\.(\d)\.mlp\.2\.(.+)", r"encoder.cls_blocks.\1.mlp.fc2.\2"),
    (r"net\.classifier_top\.weight", "classifier.weight"),
    (r"net\.classifier_aux\.weight", "aux_classifier.weight"),
    (r"net\.decoder\.first\.weight", "decoder.conv6.weight"),
    (r"net\.decoder\.second\.weight", "decoder.conv7.weight"),
    (r"net\.decoder\.classify\.weight", "decoder.conv8.weight"),
    (r"net\.projector\.mlp\.(.+)", r"projector.mlp.\1"),
    (r"net\.projector\.prototypes\.weight", "projector.last_layer.weight_v"),
)


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


def published_state(method, *, split: bool):
    """A file as the released code would write it from this network."""
    torch.manual_seed(1)
    state = {"module.projector.last_layer.weight_g": torch.ones(1024, 1), "module.encoder.head.weight": torch.ones(3)}
    for name, tensor in method.state_dict().items():
        if not name.startswith("net.") or name == "net.aggregation.cls_token":
            continue
        pattern, there = next((p, r) for p, r in BACK if re.fullmatch(p, name))
        tensor = torch.randn_like(tensor)
        there = "module." + re.fullmatch(pattern, name).expand(there)
        if there.endswith("pos_embed"):
            tensor = torch.cat([torch.full_like(tensor[:, :1], 9.0), tensor], dim=1)
        if split and ".attn.kv." in there:
            for part, half in zip("kv", tensor.chunk(2), strict=True):
                state[there.replace(".attn.kv.", f".attn.{part}.")] = half
        else:
            state[there] = tensor
    return state


@pytest.mark.parametrize("split", [False, True])
def test_every_tensor_lands_where_it_belongs(method, split):
    expected = method.state_dict()
    state = published_state(method, split=split)
    found = resolve(registry().spec("fsr").published)(method).convert(state, expected)
    assert list(found) == list(expected)
    assert torch.equal(found["net.decoder.first.weight"], state["module.decoder.conv6.weight"])
    assert torch.equal(found["net.encoder.pos_embed"], state["module.encoder.pos_embed"][:, 1:])
    assert torch.equal(found["net.aggregation.cls_token"], state["module.encoder.cls_token"])
    joined = found["net.aggregation.blocks.1.key_value.weight"]
    if split:
        assert torch.equal(joined[:192], state["module.encoder.cls_blocks.1.attn.k.weight"])
    assert all(torch.equal(v, found["net." + k[8:]]) for k, v in found.items() if k.startswith("teacher."))
    assert not found["centre_class_K"].any()
    method.load_state_dict(found)
    want = frozenset({"segmentation"})
    images = torch.randn(1, 3, 64, 64)
    one, two = (method.predict(images, want=want, weights=w).segmentation_BKhw for w in ("student", "teacher"))
    assert torch.equal(one, two)


def test_foreign_files_are_named(method):
    state = published_state(method, split=False)
    state["module.odd"] = torch.zeros(1)
    del state["module.decoder.conv7.weight"]
    state["module.classifier.weight"] = torch.zeros(80, 192, 1, 1)
    with pytest.raises(BadInput) as error:
        resolve(registry().spec("fsr").published)(method).convert(state, method.state_dict())
    text = str(error.value)
    assert "odd" in text
    assert "net.decoder.second.weight" in text
    assert "(80, 192, 1, 1)" in text
