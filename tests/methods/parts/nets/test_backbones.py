"""Encoders: equality with timm, positions, masks, sizes, stochastic depth, refusals."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from harness.errors import BadInput
from methods.parts.nets.backbones import build_encoder, encode, resize_position, whole_patches
from methods.parts.nets.shapes_nets import ShapesViT

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model(TINY, num_classes=7).state_dict(), path)
    return path


def test_blocks_equal_timm(tiny_file):
    """timm's own forward without and with a class token, at the size the weights were made for."""
    encoder = build_encoder(TINY, str(tiny_file), crop=224, drop=0.1).eval()
    model = timm.create_model(
        TINY, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(tiny_file)}
    ).eval()
    images = torch.randn(1, 3, 224, 224)
    tokens = model.patch_embed(images) + model.pos_embed[:, 1:]
    expected = model.norm(model.blocks(tokens))
    found = encode(encoder, images, tap=10)
    assert found.hw == (14, 14)
    torch.testing.assert_close(encoder.norm(found.last_BND), expected)
    torch.testing.assert_close(found.tapped_BND, model.blocks[:10](tokens))
    stopped = encode(encoder, images, tap=10, stop_at_tap=True)
    torch.testing.assert_close(stopped.last_BND, found.tapped_BND)
    tokens, hw = encoder.embed(images)
    tokens = torch.cat([encoder.cls_token + model.pos_embed[:, :1], tokens + encoder.position(*hw)], 1)
    for i in range(encoder.depth):
        tokens = encoder.run_block(i, tokens, hw, class_token=True)
    torch.testing.assert_close(encoder.norm(tokens), model.forward_features(images))
    assert (encoder.dim, encoder.depth, encoder.stride, encoder.mean, encoder.std) == (
        192, 12, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # fmt: skip


def test_position_is_resized_once_trainable_and_bicubic_elsewhere(tiny_file):
    encoder = build_encoder(TINY, str(tiny_file), crop=64, drop=0.0)
    assert encoder.pos_embed.shape == (1, 16, 192)
    assert encoder.pos_embed.requires_grad
    state = timm.create_model(
        TINY, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(tiny_file)}
    ).pos_embed
    torch.testing.assert_close(encoder.position(4, 4), resize_position(state[:, 1:], (14, 14), (4, 4)))
    assert encoder.position(6, 5).shape == (1, 30, 192)
    encoder.position(6, 5).sum().backward()
    assert float(encoder.pos_embed.grad.abs().sum()) > 0


@pytest.mark.parametrize("size", [224, 32])
def test_class_token_over_a_frozen_table_equals_timm(tiny_file, size):
    """toco.md 2.2: the table stays as trained and is resized at each forward."""
    encoder = build_encoder(TINY, str(tiny_file), crop=64, drop=0.0, class_token=True).eval()
    model = timm.create_model(
        TINY, pretrained=True, num_classes=0, dynamic_img_size=True, pretrained_cfg_overlay={"file": str(tiny_file)}
    ).eval()
    assert encoder.pos_embed.shape == (1, 197, 192)
    assert not encoder.pos_embed.requires_grad
    images = torch.randn(1, 3, size, size)
    found = encode(encoder, images, tap=10)
    table = resize_position(model.pos_embed[:, 1:], (14, 14), (size // 16, size // 16))
    tokens = model.patch_embed.proj(images).flatten(2).transpose(1, 2) + table
    expected = model.norm(model.blocks(torch.cat([model.cls_token + model.pos_embed[:, :1], tokens], dim=1)))
    torch.testing.assert_close(encoder.norm(found.last_BND), expected[:, 1:])
    torch.testing.assert_close(encoder.norm(found.class_BD), expected[:, 0])
    assert found.tapped_BND.shape == found.last_BND.shape


def test_shapes_vit_with_a_class_token_equals_its_own_forward():
    encoder = build_encoder("shapes_vit", "random", crop=64, drop=0.3, class_token=True).eval()
    net = encoder.net
    assert net.position_table.shape == (1, 96, 12, 12)
    assert not net.position_table.requires_grad
    images = torch.randn(2, 3, 96, 64)
    net.cls_token = encoder.cls_token
    expected = net(images)["stride8"]
    found = encode(encoder, images)
    torch.testing.assert_close(encoder.norm(found.last_BND).transpose(1, 2).unflatten(2, (12, 8)), expected)


def test_networks_without_a_class_token_are_refused_where_one_is_needed():
    with pytest.raises(BadInput, match="vit_base_patch16_siglip_224 has no class token"):
        build_encoder("vit_base_patch16_siglip_224", "random", crop=32, drop=0.0, class_token=True)


def test_resize_position_keeps_constants_and_orientation():
    rows = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1)
    assert torch.equal(resize_position(rows, (4, 4), (4, 4)), rows)
    wide = resize_position(rows, (4, 4), (4, 8)).view(4, 8)
    torch.testing.assert_close(wide, torch.arange(4.0)[:, None].expand(4, 8))


def test_shapes_vit_equals_its_own_network():
    encoder = build_encoder("shapes_vit", "random", crop=96, drop=0.3).eval()
    torch.manual_seed(3)
    net = ShapesViT().eval()
    encoder = type(encoder)(net, 96, 0.3).eval()
    images = torch.randn(2, 3, 96, 96)
    tokens, hw = net.embed(images)
    tokens = tokens + net.position(*hw)
    for i in range(3):
        tokens = net.run_block(i, tokens, hw, False)
    torch.testing.assert_close(encoder.norm(encode(encoder, images).last_BND), net.norm(tokens))
    names = [n for n, _ in encoder.named_parameters()]
    assert "cls_token" in names
    assert "net.cls_token" not in names


def test_shapes_vit_positions_follow_the_crop():
    encoder = build_encoder("shapes_vit", "random", crop=64, drop=0.0)
    assert encoder.net.position_table.shape == (1, 96, 8, 8)
    assert encoder.position(8, 8).shape == (1, 64, 96)
    assert encoder.position(12, 12).shape == (1, 144, 96)


@pytest.mark.parametrize("name", [TINY, "shapes_vit"])
def test_stochastic_depth_acts_in_train_mode_only(name):
    encoder = build_encoder(name, "random", crop=32, drop=0.5)
    images = torch.randn(8, 3, 32, 32)

    def run(mode):
        encoder.train(mode)
        torch.manual_seed(0)
        return encode(encoder, images).last_BND

    assert not torch.equal(run(True), run(False))
    assert torch.equal(run(True), run(True))
    encoder = build_encoder(name, "random", crop=32, drop=0.0)
    assert torch.equal(run(True), run(False))


def test_batch_norm_stays_in_eval_mode():
    encoder = build_encoder("shapes_vit", "random", crop=32, drop=0.0).train()
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert encoder.training


def test_masked_tokens_are_replaced_where_the_mask_says():
    encoder = build_encoder("shapes_vit", "random", crop=32, drop=0.0).eval()
    encoder.run_block = lambda i, tokens, *_: tokens
    images, mask = torch.randn(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.bool)
    mask[0, [0, 5]] = True
    token = torch.full((1, 1, 96), 7.0)
    found = encode(encoder, images, masked_BN=mask, mask_token_11D=token).last_BND - encoder.position(4, 4)
    torch.testing.assert_close(found[0, [0, 5]], torch.full((2, 96), 7.0))
    torch.testing.assert_close(found[~mask], encoder.embed(images)[0][~mask])


@pytest.mark.parametrize(("size", "whole"), [((32, 48), (32, 48)), ((45, 30), (48, 32)), ((3, 41), (16, 48))])
def test_images_are_brought_to_whole_patches(size, whole):
    assert whole_patches(torch.zeros(1, 3, *size), 16).shape[-2:] == whole


@pytest.mark.parametrize(
    ("name", "crop"),
    [("vit_small_patch14_reg4_dinov2", 28), ("deit_tiny_distilled_patch16_224", 32), ("vit_base_patch32_clip_224", 32),
     ],
)  # fmt: skip
def test_other_plain_vits(name, crop):
    """Register tokens, a distillation token, a norm before the blocks."""
    encoder = build_encoder(name, "random", crop=crop, drop=0.0).eval()
    found = encode(encoder, torch.randn(1, 3, crop, crop))
    assert found.last_BND.shape == (1, (crop // encoder.stride) ** 2, encoder.dim)
    assert torch.isfinite(encoder.norm(found.last_BND)).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"name": "vit_tiny_patch16_225"}, "did you mean .*vit_tiny_patch16_224"),
        ({"name": "vit_tiny_patch16_224.augreg_in1"}, "did you mean .*augreg_in21k"),
        ({"name": "resnet18"}, "no plain ViT"),
        ({"name": "eva02_tiny_patch14_224"}, "no plain ViT"),
        ({"name": "shapes_cnn"}, "is a CNN"),
        ({"weights": "nowhere.safetensors"}, "no file nowhere.safetensors"),
        ({"crop": 100}, "crop=96 or crop=112"),
        ({"crop": 8}, "crop=16 or crop=32"),
    ],
)
def test_refusals_name_word_and_fix(words, says):
    words = {"name": TINY, "weights": "random", "crop": 64, **words}
    with pytest.raises(BadInput, match=says):
        build_encoder(words["name"], words["weights"], crop=words["crop"], drop=0.0)


def test_foreign_weights_are_refused_with_the_file(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(BadInput, match=rf"{path} does not fit {TINY}: KeyError.*keys are missing"):
        build_encoder(TINY, str(path), crop=64, drop=0.0)
    wide = tmp_path / "wide.pth"
    torch.save({"state_dict": {"cls_token": torch.zeros(1, 1, 384)}}, wide)
    with pytest.raises(BadInput, match=rf"{wide} does not fit {TINY}: RuntimeError"):
        build_encoder(TINY, str(wide), crop=64, drop=0.0)
    wide.write_bytes(b"no weights at all")
    with pytest.raises(BadInput, match=f"{wide} is no weights file: it starts with 'no weights at all'"):
        build_encoder(TINY, str(wide), crop=64, drop=0.0)
    with pytest.raises(BadInput, match="backbone"):
        build_encoder("shapes_vit", str(path), crop=64, drop=0.0)


def test_an_unreachable_hub_is_bad_input(monkeypatch):
    def down(*args, **words):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", down)
    with pytest.raises(BadInput, match="cannot be fetched: ConnectionError: no route"):
        build_encoder(TINY, None, crop=64, drop=0.0)
