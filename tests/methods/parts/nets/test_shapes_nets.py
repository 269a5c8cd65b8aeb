"""Architecture, interface and packaged weights of the two tiny backbones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from harness.datasets.shapes.glyphs import PARTS, SETS, glyph, picture, pictures
from harness.errors import BadInput
from methods.parts.nets.pretrain import RECIPES, accuracy, pool_maps, pretrain, save
from methods.parts.nets.shapes_nets import (
    NETWORKS,
    PRETEXT_PREFIX,
    LocalAttention,
    ShapesCNN,
    ShapesViT,
    load_shapes_backbone,
    token_distances,
    weights_path,
)

NAMES = tuple(NETWORKS)


def shipped_accuracy(name, pictures, path=None):
    """Accuracy in percent of a weights file (the packaged one by default) now, and by its metadata."""
    path = path or weights_path(name)
    with safe_open(path, framework="pt") as file:
        classifier, metadata = file.get_tensor(PRETEXT_PREFIX + "classifier"), file.metadata()
    now = accuracy(load_shapes_backbone(name, path), classifier, RECIPES[name], pictures, seed=int(metadata["seed"]))
    return now, float(metadata["accuracy"])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_parameters() -> None:
    counts = {name: sum(p.numel() for p in network().parameters()) for name, network in NETWORKS.items()}
    assert counts == {"shapes_cnn": 433_944, "shapes_vit": 411_780}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("h", "w"), [(96, 96), (48, 48), (50, 97), (128, 64)])
def test_output_sizes(name: str, h: int, w: int) -> None:
    network = NETWORKS[name]().eval()
    out = network(torch.randn(2, 3, h, w))
    assert out["stride4"].shape == (2, network.skip_dim, -(-h // 4), -(-w // 4))
    assert out["stride8"].shape == (2, network.dim, -(-h // 8), -(-w // 8))


def test_token_distances_by_hand() -> None:
    """Grid 1x3 with a class token: it sees all at 0, patches see it at 6 and each other at their distance."""
    expected = [[0, 0, 0, 0], [6, 0, 1, 2], [6, 1, 0, 1], [6, 2, 1, 0]]
    assert token_distances(1, 3, True).tolist() == expected
    assert token_distances(2, 2, False)[0].tolist() == pytest.approx([0, 1, 1, 2**0.5])


def test_attention_is_softmax_with_a_distance_penalty() -> None:
    layer, x = LocalAttention(8, 2), torch.randn(3, 7, 8)
    distance = token_distances(2, 3, True)
    q, k, v = layer.qkv(x).view(3, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(2, 3) / 2 - torch.log1p(layer.slope.exp())[:, None, None] * distance
    plain = layer.out((logits.softmax(3) @ v).transpose(1, 2).reshape(3, 7, 8))
    torch.testing.assert_close(layer(x, distance), plain)
    assert layer.slope.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("class_token", [False, True])
def test_heads_one_by_one_are_the_kernel_with_its_gradients(class_token: bool) -> None:
    torch.manual_seed(0)
    layer, x = LocalAttention(96, 4), torch.randn(3, 12 + class_token, 96, requires_grad=True)
    distance = token_distances(3, 4, class_token)
    q, k, v, bias = layer._parts(x, distance)
    kernel = layer.out(layer._join(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))
    wanted = torch.autograd.grad(kernel.square().sum(), [x, *layer.parameters()])
    found = layer(x, distance)
    assert torch.equal(found, kernel)
    assert all(map(torch.equal, torch.autograd.grad(found.square().sum(), [x, *layer.parameters()]), wanted))
    with torch.no_grad():
        torch.testing.assert_close(layer(x, distance), kernel)


def test_steep_heads_look_at_their_own_patch() -> None:
    layer, x = LocalAttention(8, 1), torch.randn(1, 6, 8)
    with torch.no_grad():
        layer.slope.fill_(100.0)
    own = layer.out(layer.qkv(x)[..., 16:])
    torch.testing.assert_close(layer(x, token_distances(2, 3, False)), own)


def test_vit_steps_are_its_forward() -> None:
    network, images = ShapesViT().eval(), torch.randn(2, 3, 40, 56)
    tokens, hw = network.embed(images)
    assert (tokens.shape, hw) == ((2, 35, 96), (5, 7))
    tokens = torch.cat([network.cls_token.expand(2, -1, -1), tokens + network.position(*hw)], 1)
    for i in range(network.depth):
        tokens = network.run_block(i, tokens, hw, True)
    grid = network.norm(tokens)[:, 1:].transpose(1, 2).reshape(2, 96, 5, 7)
    torch.testing.assert_close(grid, network(images)["stride8"])
    assert network.run_block(0, tokens[:, 1:], hw, False).shape == (2, 35, 96)
    with pytest.raises(ValueError, match="36 tokens on a grid"):
        network.run_block(0, tokens, hw, False)


def test_position_table() -> None:
    network = ShapesViT()
    with torch.no_grad():
        network.position_table[:] = torch.arange(12.0)
    table = network.position(12, 12)
    assert table.shape == (1, 144, 96)
    assert table[0, :12, 5].tolist() == list(range(12))
    half = network.position(6, 6)[0, :6, 0].tolist()
    assert half[1:5] == pytest.approx([2.5, 4.5, 6.5, 8.5], abs=1e-5)
    assert network.position(3, 20).shape == (1, 60, 96)


@pytest.mark.parametrize("name", NAMES)
def test_packaged_weights(name: str) -> None:
    """The file is small, says where it comes from, and finds fresh pictures as its metadata states."""
    path = weights_path(name)
    assert path.stat().st_size < 3_500_000
    with safe_open(path, framework="pt") as file:
        said, keys = file.metadata(), set(file.keys())
    wanted = {"script_version", "pretext", "seed", "accuracy", "torch", "numpy", "safetensors"}
    assert wanted <= set(said)
    assert (said["pretraining"], said["network"], said["pretext"]) == ("glyphs", name, RECIPES[name].pretext)
    assert {key for key in keys if key.startswith(PRETEXT_PREFIX)} == {"pretext.classifier"}
    assert keys - {"pretext.classifier"} == set(NETWORKS[name]().state_dict())
    now, then = shipped_accuracy(name, pictures)
    assert now == pytest.approx(then, abs=0.5)
    assert then > 74


def test_loaded_backbone_is_deterministic_and_in_eval_mode() -> None:
    first, second = load_shapes_backbone("shapes_cnn"), load_shapes_backbone("shapes_cnn")
    assert isinstance(first, ShapesCNN)
    assert not first.training
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(first(images)["stride8"], second(images)["stride8"])


def test_unknown_backbone_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean shapes_vit"):
        load_shapes_backbone("shapes_vt")
    with pytest.raises(BadInput, match=r"no file .*none\.safetensors"):
        load_shapes_backbone("shapes_cnn", tmp_path / "none.safetensors")


def test_pooling_by_hand() -> None:
    """Ten cells 0..9: mean 4.5; the highest 20 % are 8 and 9."""
    maps = torch.arange(10.0).view(1, 1, 2, 5)
    assert pool_maps(maps, "mean").item() == 4.5
    assert pool_maps(maps, "top").item() == 8.5


def flat_pictures(name: str, n: int, *, seed: int = 0, split: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 16x16 pixels whose grey level is their label."""
    labels = np.arange(n) % SETS[name]
    return np.broadcast_to((labels * 3).astype(np.uint8)[:, None, None, None], (n, 16, 16, 3)), labels


def test_training_is_repeatable_and_saved_whole(tmp_path: Path) -> None:
    recipe = replace(RECIPES["shapes_vit"], pictures=32, iterations=2, batch=4)
    (first, said), (second, _) = (pretrain("shapes_vit", flat_pictures, recipe=recipe) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    path = tmp_path / "new" / "shapes_vit.safetensors"
    save(path, first, said)
    loaded = load_shapes_backbone("shapes_vit", path).state_dict()
    assert all(torch.equal(value, first[key]) for key, value in loaded.items())
    assert [p.name for p in path.parent.iterdir()] == ["shapes_vit.safetensors"]
    now, then = shipped_accuracy("shapes_vit", flat_pictures, path)
    assert now == pytest.approx(then, abs=0.01)


def test_glyphs() -> None:
    """Labels cycle, groups of four of G64 share colours only, G16 spreads its attributes, pictures are repeatable."""
    images, labels = pictures("G64", 70)
    assert images.shape == (70, 48, 48, 3)
    assert labels.tolist() == [i % 64 for i in range(70)]
    np.testing.assert_array_equal(picture("G64", 0, 0, 69)[0], images[69])
    assert not np.array_equal(picture("G64", 0, 1, 69)[0], images[69])
    group = [glyph("G64", label) for label in range(8)]
    np.testing.assert_array_equal(group[0].first, group[3].first)
    assert not np.array_equal(group[3].first, group[4].first)
    looks = {(g.body, g.part, g.pattern, g.angle) for g in (glyph("G64", c) for c in range(64))}
    assert len(looks) == 64
    sixteen = [glyph("G16", c) for c in range(SETS["G16"])]
    assert {sum(g.part == part for g in sixteen) for part in PARTS} == {4}
    assert len({(g.body, g.part) for g in sixteen}) == 16


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rebuilt_weights_are_as_good(name: str) -> None:
    _, said = pretrain(name, pictures)
    assert float(said["accuracy"]) == pytest.approx(shipped_accuracy(name, pictures)[1], abs=4)
