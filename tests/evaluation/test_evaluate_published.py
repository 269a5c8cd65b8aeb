"""`evaluate weights=` through the real key maps: files with the published names and shapes, scored as by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import harness.store
from harness import evaluate
from harness.api.registry import registry
from harness.cli.parsing import main
from harness.datasets import open_dataset
from harness.evaluation.published import fitted, variant_of
from harness.plan.build import build_method
from harness.plan.config import RunConfig

DIM, CROP, CLASSES = 192, 48, 2
DECODER, HIDDEN, NECK, PROTOTYPES, INNER = 128, 512, 64, 256, 256
"""Head widths of the smoke tier beside ViT-Tiny."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IDS = {"train": "abc", "val": "de", "test": "fgh"}

Shapes = dict[str, tuple[int, ...]]


def affine(name: str, *weight: int) -> Shapes:
    return {name + ".weight": weight, name + ".bias": weight[:1]}


def network() -> Shapes:
    """What the files of ToCo and UniA share: timm's ViT-Tiny, two classifiers and LargeFOV."""
    found: Shapes = {"encoder.cls_token": (1, 1, DIM), "encoder.pos_embed": (1, 197, DIM)}
    found |= affine("encoder.patch_embed.proj", DIM, 3, 16, 16)
    for i in range(12):
        block = f"encoder.blocks.{i}."
        found |= affine(block + "norm1", DIM) | affine(block + "norm2", DIM)
        found |= affine(block + "attn.qkv", 3 * DIM, DIM) | affine(block + "attn.proj", DIM, DIM)
        found |= affine(block + "mlp.fc1", 4 * DIM, DIM) | affine(block + "mlp.fc2", DIM, 4 * DIM)
    found |= affine("encoder.norm", DIM) | affine("encoder.head", 1000, DIM)
    found |= {f"{name}.weight": (CLASSES, DIM, 1, 1) for name in ("classifier", "aux_classifier")}
    found |= {"decoder.conv6.weight": (DECODER, DIM, 3, 3), "decoder.conv7.weight": (DECODER, DECODER, 3, 3)}
    return found | {"decoder.conv8.weight": (CLASSES + 1, DECODER, 1, 1)}


def head(name: str, inside: int, outside: int) -> Shapes:
    found = {f"{name}.last_layer.weight_g": (outside, 1), f"{name}.last_layer.weight_v": (outside, NECK)}
    for layer, sizes in ((0, (HIDDEN, inside)), (2, (HIDDEN, HIDDEN)), (4, (NECK, HIDDEN))):
        found |= affine(f"{name}.mlp.{layer}", *sizes)
    return found


def attention(name: str, dim: int) -> Shapes:
    inside = {name + ".in_proj_weight": (3 * dim, dim), name + ".in_proj_bias": (3 * dim,)}
    return inside | affine(name + ".out_proj", dim, dim)


def toco() -> Shapes:
    return network() | head("proj_head", DIM, PROTOTYPES) | head("proj_head_t", DIM, PROTOTYPES)


def unia() -> Shapes:
    module, inside = "uncertainty_infer.", "uncertainty_infer.generate_parameters."
    found = network() | affine("attn_proj", 1, 6, 1, 1) | head(module + "input_proj", DIM, INNER)
    found |= affine(module + "conv", INNER, INNER, 1, 1) | attention(module + "cross_attn", DIM)
    for branch in ("mean", "std"):
        found |= attention(f"{inside}{branch}_cross_attn", INNER) | affine(f"{inside}{branch}_conv", INNER, 1, 1, 1)
        found |= head(f"{inside}{branch}_proj", INNER, DIM)
    return found


def state_of(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors large enough for a prediction that changes with the image and with how it is normalised."""
    torch.manual_seed(3)
    return {
        f"module.{name}": torch.randn(size) * (0.3 if name.startswith("decoder") else 0.05)
        + ("norm" in name and name.endswith("weight"))
        for name, size in shapes.items()
    }


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """Photos of noise with bright rectangles, two classes, in VOC layout."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("background\ndisc\nbar\n")
    for split, ids in IDS.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
        for n, i in enumerate(ids):
            rng = np.random.default_rng(ord(i))
            mask = np.zeros((40, 60), np.uint8)
            mask[5:25, 4:28] = 1
            mask[20:38, 30:58] = 2
            mask[:2] = 255
            image = (rng.integers(0, 90, (40, 60, 3)) + 60 * mask.clip(0, 2)[..., None]).astype(np.uint8)
            Image.fromarray(image[:, :: 1 if n % 2 else -1]).save(root / f"JPEGImages/{i}.jpg")
            Image.fromarray(mask).save(root / f"SegmentationClass/{i}.png")
    return root


def words(voc: Path, file: Path, store: Path, method: str, *more: str) -> list[str]:
    return [
        f"weights={file}", f"method={method}", "data=folder", f"data.root={voc}", "backbone=vit_tiny_patch16_224",
        "tier=smoke", f"crop={CROP}", "scales=single", "threads=1", f"store={store}", *more,
    ]  # fmt: skip


def scored(store: Path, key: str) -> pl.DataFrame:
    results = harness.store.load(store)
    (eval_id,) = results.evals.filter(pl.col("key") == key)["eval"]
    return results.counts.filter(pl.col("eval") == eval_id).sort("image", "class").drop("eval")


def by_hand(voc: Path, run: RunConfig, state: dict[str, torch.Tensor]) -> list[tuple[str, int, int, int, int]]:
    """(image, class, tp, fp, fn): one forward pass under ImageNet's mean and standard deviation."""
    dataset = open_dataset("folder", root=str(voc))
    method = fitted(build_method(run, dataset, "random"), run.chosen.spec, state).eval()
    mean, std = (np.array(v) for v in IMAGENET)
    rows = []
    for i in IDS["test"]:
        square = np.asarray(Image.open(voc / f"JPEGImages/{i}.jpg").resize((CROP, CROP), Image.Resampling.BILINEAR))
        x = torch.from_numpy((square / 255 - mean) / std).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            logits = method.predict(x, None, want=frozenset({"segmentation"})).segmentation_BKhw
        pred = F.interpolate(logits, (40, 60), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
        truth = np.asarray(Image.open(voc / f"SegmentationClass/{i}.png"))
        for c in range(CLASSES + 1):
            ours, theirs = (pred == c) & (truth != 255), truth == c
            tp, fp, fn = (int(v.sum()) for v in (ours & theirs, ours & ~theirs, ~ours & theirs))
            rows += [(i, c, tp, fp, fn)] * (tp + fp + fn > 0)
    return rows


@pytest.mark.parametrize(("method", "shapes"), [("toco", toco), ("unia", unia)])
def test_a_published_file_is_scored_as_it_was_trained(voc, tmp_path, capsys, method, shapes):
    state = state_of(shapes())
    torch.save(state, tmp_path / "theirs.pth")
    store = tmp_path / "store"
    assert main(evaluate.run, words(voc, tmp_path / "theirs.pth", store, method)) == 0
    assert f"{method} (variant released): segmentation on test" in capsys.readouterr().out
    (row,) = harness.store.load(store).runs.to_dicts()
    assert (row["method"], row["variant"]) == (f"{method}-published", "released")
    counts = scored(store, row["key"])
    run = RunConfig.from_stored(row["config"])
    assert (run.method, run.dataset) == (method, "folder")
    expected = by_hand(voc, run, state)
    assert list(counts.select("image", "class", "tp", "fp", "fn").iter_rows()) == expected
    assert len({c for _, c, tp, fp, _ in expected if tp + fp}) > 1, "several classes are predicted"

    assert main(evaluate.run, words(voc, tmp_path / "theirs.pth", store, method, "variant=default")) == 0
    assert f"{method} (variant default)" in capsys.readouterr().out
    (other,) = harness.store.load(store).runs.filter(pl.col("variant") == "default")["key"]
    assert not scored(store, other).equals(counts), "another normalisation predicts otherwise"


@pytest.mark.parametrize(("method", "shapes"), [("toco", toco), ("unia", unia)])
def test_missing_and_wrong_shaped_tensors_are_named(voc, tmp_path, capsys, method, shapes):
    state = state_of(shapes())
    del state["module.decoder.conv7.weight"]
    state["module.classifier.weight"] = torch.zeros(20, DIM, 1, 1)
    torch.save({"model_state_dict": state}, tmp_path / "theirs.pth")
    assert main(evaluate.run, words(voc, tmp_path / "theirs.pth", tmp_path / "store", method)) == 2
    said = capsys.readouterr().err
    assert "1 tensors are missing: net.decoder.second.weight" in said
    assert "module.classifier.weight -> net.classifier_top.weight is (20, 192, 1, 1), not (2, 192, 1, 1)" in said
    assert harness.store.load(tmp_path / "store").runs.is_empty()


def test_the_variant_of_a_published_file():
    specs = {name: registry().spec(name) for name in ("toco", "unia", "fsr", "cam")}
    assert {n: variant_of("auto", s) for n, s in specs.items()} == {
        "toco": "released", "unia": "released", "fsr": "released", "cam": "default",
    }  # fmt: skip
    assert variant_of("default", specs["toco"]) == "default"
    assert variant_of("paper", specs["fsr"]) == "paper"


def test_a_wrong_variant_is_named(voc, tmp_path, capsys):
    torch.save(state_of(toco()), tmp_path / "theirs.pth")
    line = words(voc, tmp_path / "theirs.pth", tmp_path / "store", "toco", "variant=paper")
    assert main(evaluate.run, line) == 2
    assert "toco has no variant 'paper'" in capsys.readouterr().err
