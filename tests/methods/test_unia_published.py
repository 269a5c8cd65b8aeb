"""Published weights of UniA: a generated state dict with the published names (repository zwyang6/UniA)."""

from __future__ import annotations

import golden_curves as golden
import pytest
import torch

from harness.api.method import BuildInfo
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.errors import BadInput
from harness.plan.knobs import typed_knobs

DIM, CLASSES, INNER, HIDDEN, NECK = 192, 3, 256, 512, 64
SPEC = registry().spec("unia")


def method(**knobs):
    info = BuildInfo(num_classes=CLASSES, has_background=True, crop=32, iterations=20, group=2, tier="smoke",
                     variant="released", labels="tags", backbone="vit_tiny_patch16_224", backbone_weights="random",
                     decoder="largefov")  # fmt: skip
    torch.manual_seed(0)
    return resolve(SPEC.build)(typed_knobs(SPEC, knobs), info)


def shapes():
    """Names and shapes of the published file, at the width of ViT-Tiny."""
    found = {"encoder.cls_token": (1, 1, DIM), "encoder.pos_embed": (1, 197, DIM),
             "encoder.patch_embed.proj.weight": (DIM, 3, 16, 16), "encoder.patch_embed.proj.bias": (DIM,)}  # fmt: skip

    def affine(name, *weight):
        found[name + ".weight"], found[name + ".bias"] = weight, weight[:1]

    for i in range(12):
        block = f"encoder.blocks.{i}."
        affine(block + "norm1", DIM)
        affine(block + "attn.qkv", 3 * DIM, DIM)
        affine(block + "attn.proj", DIM, DIM)
        affine(block + "norm2", DIM)
        affine(block + "mlp.fc1", 4 * DIM, DIM)
        affine(block + "mlp.fc2", DIM, 4 * DIM)
    affine("encoder.norm", DIM)
    affine("encoder.head", 1000, DIM)
    found |= {"decoder.conv6.weight": (128, DIM, 3, 3), "decoder.conv7.weight": (128, 128, 3, 3),
              "decoder.conv8.weight": (CLASSES + 1, 128, 1, 1), "classifier.weight": (CLASSES, DIM, 1, 1),
              "aux_classifier.weight": (CLASSES, DIM, 1, 1)}  # fmt: skip
    affine("attn_proj", 1, 6, 1, 1)

    def head(name, inside, outside):
        for layer, sizes in ((0, (HIDDEN, inside)), (2, (HIDDEN, HIDDEN)), (4, (NECK, HIDDEN))):
            affine(f"{name}.mlp.{layer}", *sizes)
        found[name + ".last_layer.weight_g"] = (outside, 1)
        found[name + ".last_layer.weight_v"] = (outside, NECK)

    def attention(name, dim):
        found[name + ".in_proj_weight"], found[name + ".in_proj_bias"] = (3 * dim, dim), (3 * dim,)
        affine(name + ".out_proj", dim, dim)

    module = "uncertainty_infer."
    head(module + "input_proj", DIM, INNER)
    affine(module + "conv", INNER, INNER, 1, 1)
    for branch in ("mean", "std"):
        attention(f"{module}generate_parameters.{branch}_cross_attn", INNER)
        affine(f"{module}generate_parameters.{branch}_conv", INNER, 1, 1, 1)
        head(f"{module}generate_parameters.{branch}_proj", INNER, DIM)
    attention(module + "cross_attn", DIM)
    return found


def published():
    torch.manual_seed(1)
    return {f"module.{name}": 0.02 * torch.randn(size) for name, size in shapes().items()}


def key_map(of):
    return resolve(SPEC.published)(of)


def test_every_tensor_finds_its_place():
    built, state = method(), published()
    converted = key_map(built).convert(state, built.state_dict())
    assert converted.keys() == built.state_dict().keys()
    built.load_state_dict(converted)
    net = built.net
    pairs = {
        "encoder.norm.weight": net.encoder.final_norm.weight,
        "encoder.pos_embed": net.encoder.pos_embed,
        "encoder.blocks.11.attn.qkv.weight": net.encoder.blocks[11].attn.qkv.weight,
        "classifier.weight": net.classifier_top.weight,
        "aux_classifier.weight": net.classifier_aux.weight,
        "attn_proj.bias": net.affinity.conv.bias,
        "decoder.conv8.weight": net.decoder.classify.weight,
        "uncertainty_infer.input_proj.last_layer.weight_v": net.uncertainty.enter.prototypes.weight,
        "uncertainty_infer.generate_parameters.std_proj.mlp.4.bias": net.uncertainty.leave.mlp[4].bias,
        "uncertainty_infer.generate_parameters.mean_conv.weight": net.uncertainty.mean_scale.weight,
        "uncertainty_infer.generate_parameters.std_cross_attn.in_proj_weight": (
            net.uncertainty.log_var_attention.in_proj_weight),
        "uncertainty_infer.cross_attn.out_proj.weight": net.uncertainty.query_back.out_proj.weight,
    }  # fmt: skip
    for name, ours in pairs.items():
        assert torch.equal(ours, state["module." + name]), name
    want = frozenset(SPEC.targets)
    found = built.predict(torch.randn(1, 3, 32, 32), torch.ones(1, CLASSES), want=want)
    assert torch.isfinite(found.segmentation_BKhw).all()


def test_the_unused_head_of_the_mean_is_taken_where_the_method_has_one():
    built = method(separate_mu_head=True)
    state = published()
    built.load_state_dict(key_map(built).convert(state, built.state_dict()))
    name = "module.uncertainty_infer.generate_parameters.mean_proj.last_layer.weight_v"
    assert torch.equal(built.net.uncertainty.leave_mean.prototypes.weight, state[name])


def test_missing_unknown_and_wrong_names_are_all_named():
    built, state = method(), published()
    del state["module.decoder.conv7.weight"]
    state["module.extra"] = torch.zeros(1)
    state["module.classifier.weight"] = torch.zeros(20, DIM, 1, 1)
    with pytest.raises(BadInput) as caught:
        key_map(built).convert(state, built.state_dict())
    text = str(caught.value)
    for name in ("net.decoder.second.weight", "extra", "net.classifier_top.weight is (20, 192, 1, 1), not (3, 192"):
        assert name in text


def test_it_serves_the_embedded_network_too_by_naming_what_does_not_fit():
    built = golden.make("unia")
    with pytest.raises(BadInput, match="missing"):
        key_map(built).convert(published(), built.state_dict())
