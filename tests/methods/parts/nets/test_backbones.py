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
    with pytest.raises(BadInput, match=rf"{path} does not fit {TINY}: 150 of 150 tensors are missing, first cls_token"):
        build_encoder(TINY, str(path), crop=64, drop=0.0)
    wide = tmp_path / "wide.pth"
    torch.save({"state_dict": {"cls_token": torch.zeros(1, 1, 384)}}, wide)
    with pytest.raises(BadInput, match=rf"{wide} does not fit {TINY}: 149 of 150 tensors are missing, first pos_embed"):
        build_encoder(TINY, str(wide), crop=64, drop=0.0)
    wide.write_bytes(b"no weights at all")
    with pytest.raises(BadInput, match=f"{wide} is no weights file: it starts with 'no weights at all'"):
        build_encoder(TINY, str(wide), crop=64, drop=0.0)
    with pytest.raises(BadInput, match=r"does not fit shapes_vit: \d+ of \d+ tensors are missing"):
        build_encoder("shapes_vit", str(path), crop=64, drop=0.0)


def small_vit(**words):
    """The first two blocks of a ViT-Tiny, with words of timm's."""
    torch.manual_seed(2)
    return timm.create_model(TINY, num_classes=0, **{"depth": 2, **words})


@pytest.fixture
def two_blocks(monkeypatch):
    """timm makes TINY with two blocks."""
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **words: make(name, **{"depth": 2, **words}))


@pytest.mark.usefixtures("two_blocks")
@pytest.mark.parametrize(
    ("words", "found", "fix"),
    [
        ({"patch_size": 8}, "its patches are 8x8 pixels and those of the network 16x16", "give the state dict of this"),
        ({"embed_dim": 384, "num_heads": 6}, "cls_token is 1x1x384 in the file and 1x1x192 in the network",
         "its width is 384 and its patches 16x16: for instance backbone=vit_small_patch16_224"),
        ({"depth": 3}, "the file has 12 tensors of a larger network, first blocks.2.", "give the state dict of this"),
        ({"reg_tokens": 4}, "reg_token is in the file alone", "give the state dict of this very network"),
        ({"init_values": 1e-5}, "the file has 4 tensors of a larger network, first blocks.0.ls1.gamma", "give the"),
        ({"depth": 1}, "12 of 30 tensors are missing, first blocks.1.norm1.weight", "give the state dict of"),
        ({"in_chans": 4}, "patch_embed.proj.weight is 192x4x16x16 in the file and 192x3x16x16", "give the"),
        ({"class_token": False, "global_pool": "avg"}, "cls_token is in the network alone", "give the state dict of"),
    ],
)  # fmt: skip
def test_weights_of_a_sister_network_are_told_from_those_asked_for(tmp_path, words, found, fix):
    torch.save(small_vit(**words).state_dict(), tmp_path / "sister.pth")
    with pytest.raises(BadInput) as caught:
        build_encoder(TINY, str(tmp_path / "sister.pth"), crop=32, drop=0.0)
    (problem,) = caught.value.problems
    assert found in problem.found
    assert fix in problem.fix


@pytest.mark.usefixtures("two_blocks")
def test_right_weights_load_whatever_their_type_size_and_heads(tmp_path):
    """Half precision, a head, positions of another grid, an averaged network two dicts down."""
    state = small_vit().state_dict()
    loaded = {}
    for name, content in {
        "plain": state,
        "half": {k: v.half() for k, v in state.items()},
        "heads": state | {"head.weight": torch.zeros(3, 192), "decoder_blocks.0.weight": torch.zeros(1)},
        "nested": {"state": {"ema": {"model_ema": {f"module.{k}": v for k, v in state.items()}}}, "epoch": 3},
        "large": small_vit(img_size=64).state_dict(),
    }.items():
        torch.save(content, tmp_path / f"{name}.pth")
        loaded[name] = build_encoder(TINY, str(tmp_path / f"{name}.pth"), crop=32, drop=0.0).state_dict()
    assert loaded["plain"].keys() == loaded["large"].keys()
    for key, tensor in loaded["plain"].items():
        assert torch.equal(loaded["heads"][key], tensor)
        assert torch.equal(loaded["nested"][key], tensor)
        assert torch.equal(loaded["half"][key], tensor.half().float()) or key == "pos_embed"
        assert loaded["half"][key].dtype == torch.float32
    torch.testing.assert_close(loaded["half"]["pos_embed"], loaded["plain"]["pos_embed"], atol=2e-3, rtol=0)


@pytest.mark.usefixtures("two_blocks")
def test_positions_that_are_no_square_are_said(tmp_path):
    odd = {**small_vit().state_dict(), "pos_embed": torch.zeros(1, 198, 192)}
    torch.save(odd, tmp_path / "odd.pth")
    with pytest.raises(BadInput, match="its pos_embed is 1x198x192: behind 1 token there is no square grid"):
        build_encoder(TINY, str(tmp_path / "odd.pth"), crop=32, drop=0.0)


def test_a_state_dict_of_shapes_vit_is_read_however_it_was_saved(tmp_path):
    torch.manual_seed(4)
    net = ShapesViT()
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "own.pth")
    encoder = build_encoder("shapes_vit", str(tmp_path / "own.pth"), crop=96, drop=0.0)
    assert torch.equal(encoder.net.norm.weight, net.norm.weight)
    images = torch.randn(1, 3, 96, 96)
    expected = type(encoder)(net.eval(), 96, 0.0).eval()
    assert torch.equal(encode(encoder.eval(), images).last_BND, encode(expected, images).last_BND)


def test_an_unreachable_hub_is_bad_input(monkeypatch):
    def down(*args, **words):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", down)
    with pytest.raises(BadInput, match="cannot be fetched: ConnectionError: no route"):
        build_encoder(TINY, None, crop=64, drop=0.0)
