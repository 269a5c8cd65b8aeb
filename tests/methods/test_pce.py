"""Partial cross-entropy on sparse labels."""

from __future__ import annotations

import dataclasses

import golden_curves as golden
import numpy as np
import pytest
import torch

from harness.api.method import Batch, Progress
from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.loading import Loader
from harness.errors import BadInput
from methods.parts.bases.sparse_knobs import sparse_preset
from methods.parts.sizes import supervised_preset
from methods.pce.config import METHOD, PceConfig
from methods.pce.presets import preset
from search_spaces.pce import SPACE


def sparse(data: Batch, keep: float = 0.05) -> Batch:
    """The batch with a share of its labels."""
    chosen = torch.rand(data.label_BHW.shape, generator=torch.Generator().manual_seed(5)) < keep
    return dataclasses.replace(data, label_BHW=torch.where(chosen, data.label_BHW, IGNORE))


def test_golden_curve():
    method = golden.make("pce")
    curve = golden.train(method, make_batch=lambda step: sparse(golden.batch(method, step % 2)))
    golden.check("pce", "default", curve)
    assert list(curve) == ["seg"]
    assert curve["seg"][-1] < curve["seg"][0]


def test_only_labelled_pixels_count():
    """Mean over labelled pixels: -log p by hand; an unlabelled pixel's logit has no gradient; none labelled costs 0."""
    method = golden.make("pce")
    torch.nn.init.zeros_(method.net.decoder.classify.weight)
    data = sparse(golden.batch(method))
    assert float(method.step(data, Progress(0, 10)).losses["seg"].detach()) == pytest.approx(1.3862944, rel=1e-5)
    assert float(method.step(data, Progress(0, 10)).logged["unlabelled_crops"]) == 0.0
    nothing = dataclasses.replace(data, label_BHW=torch.full_like(data.label_BHW, IGNORE))
    found = method.step(nothing, Progress(0, 10))
    assert float(found.logged["unlabelled_crops"]) == 1.0
    loss = found.losses["seg"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_on_full_masks_it_is_full():
    pce, full = golden.make("pce", drop_path=0.0), golden.make("full", drop_path=0.0)
    losses = [float(m.step(golden.batch(m), Progress(0, 20)).losses["seg"].detach()) for m in (pce, full)]
    assert losses[0] == losses[1]


def test_what_it_reads_and_makes():
    method = golden.make("pce")
    assert "masks" not in METHOD.labels
    assert "tags" not in METHOD.labels
    assert (METHOD.targets, METHOD.network_of) == (("segmentation",), "cam")
    data = golden.batch(method)
    with pytest.raises(ValueError, match="labels=points, scribbles"):
        method.step(dataclasses.replace(data, label_BHW=None), Progress(0, 10))
    assert golden.make("pce", has_background=False).net.decoder.classify.out_channels == 3


@pytest.mark.parametrize(("keep", "least"), [(True, 0.95), (False, 0.0)])
def test_clicks_survive_small_views_where_they_are_kept(keep, least):
    """A view of half the side keeps every click inside it, up to pixels shared by two; nearest keeps a quarter."""
    dataset = open_dataset("shapes", options={"n_train": "8", "n_val": "1", "n_test": "1"})
    method = golden.make("pce", crop=48, keep_labels=keep, crop_area_min=1.0)
    loader = Loader(
        dataset, dataset.ids("train"), method.transform(), "clicks100", seed=0, batch=8, group=8, total_steps=1
    )
    ((batch,),) = loader
    share = float((batch.label_BHW != IGNORE).float().sum()) / 800
    assert share >= least
    assert keep or share == pytest.approx(0.25, abs=0.06)
    offered = set(np.unique(np.stack([dataset.weak(i, "clicks100") for i in batch.ids])))
    assert set(batch.label_BHW.unique().tolist()) <= offered


@pytest.mark.parametrize("family", ["voc", "coco", "cityscapes", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
def test_presets_are_those_of_full_and_inside_the_search_space(family, tier):
    chosen = preset(family, tier, "default")
    short = family == "shapes" or tier == "smoke"
    assert chosen == dataclasses.replace(supervised_preset(family, tier), iterations=chosen.iterations)
    assert chosen.iterations == (sparse_preset if short else supervised_preset)(family, tier).iterations
    values = {k: v.default for k, v in PceConfig.knobs().items()} | dict(chosen.knobs)
    assert PceConfig(**values).problems() == []
    assert SPACE.check(PceConfig, values) == []


def test_the_class_token_runs_under_either_decoder_and_needs_a_vit():
    net = golden.make("pce", class_token=True, decoder="deeplabv3plus").net
    assert net.encoder.with_class_token
    side = golden.CROP // 4
    assert net.logits(torch.zeros(1, 3, golden.CROP, golden.CROP)).shape[-2:] == (side, side)
    with pytest.raises(BadInput, match="has no class token"):
        golden.make("pce", class_token=True, decoder="deeplabv3plus", backbone="shapes_cnn")
