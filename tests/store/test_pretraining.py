"""What weights had learned from: the column's JSON, the names of older stores, what timm's tags stand for."""

from __future__ import annotations

import json

import pytest
import timm

from harness.errors import StoreError
from harness.store.pretraining import Pretraining, named, pretraining_of


@pytest.mark.parametrize(
    ("name", "data", "supervision", "extra"),
    [
        ("none", "none", "none", "none"),
        ("glyphs", "glyphs", "labels", "none"),
        ("timm vit_base_patch16_224.augreg_in21k_ft_in1k", "ImageNet-21k, ImageNet-1k", "labels", "none"),
        ("timm deit_base_patch16_224.fb_in1k", "ImageNet-1k", "labels", "none"),
        ("timm vit_base_patch16_224.dino", "ImageNet-1k", "self-supervised", "none"),
        ("timm vit_base_patch14_dinov2.lvd142m", "LVD-142M", "self-supervised", "none"),
        ("timm vit_base_patch16_clip_224.openai", "WIT-400M", "text", "text"),
        ("timm vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "LAION-2B, ImageNet-12k, ImageNet-1k", "text, labels",
         "text"),
        ("timm samvit_base_patch16.sa1b", "SA-1B", "masks", "masks"),
        ("timm beit_base_patch16_224.mim_in22k_ft_in22k_in1k", "ImageNet-21k, ImageNet-1k", "self-supervised, labels",
         "none"),
        ("timm beitv2_base_patch16_224.in1k_ft_in22k_in1k", "ImageNet-1k, ImageNet-21k", "labels", "text"),
        ("timm resnet50.fb_swsl_ig1b_ft_in1k", "IG-1B, ImageNet-1k", "hashtags, labels", "none"),
        # Nothing is said of a part that is not known.
        ("timm vit_base_patch16_224.swag_ft_in1k", "", "", ""),
        ("vit_tiny_patch16_224.in1k.timm.safetensors", "ImageNet-1k (by its name)", "labels", "none"),
        ("mine.pth (teacher)", "", "", ""),
        ("", "", "", ""),
    ],
)  # fmt: skip
def test_older_names_say_what_they_stand_for(name: str, data: str, supervision: str, extra: str) -> None:
    assert pretraining_of(name) == Pretraining(name, data, supervision, extra)
    assert pretraining_of(named(name).stored()) == named(name)


def test_timms_own_names_are_read_without_an_error() -> None:
    known = [named(f"timm {name}") for name in timm.list_pretrained()]
    assert sum(bool(one.data) for one in known) > 0.8 * len(known)
    # A tag of CLIP's never counts as labels alone.
    assert all("text" in one.extra for one in known if "_clip_" in one.weights and one.data)


def test_the_column_holds_all_of_it_also_of_networks_that_started_elsewhere() -> None:
    before = Pretraining("a.pth", "ImageNet-1k", "labels", "none", {"segmenter": named("glyphs")})
    assert json.loads(before.stored()) == {
        "weights": "a.pth", "data": "ImageNet-1k", "supervision": "labels", "extra": "none",
        "networks": {"segmenter": {"weights": "glyphs", "data": "glyphs", "supervision": "labels", "extra": "none"}},
    }  # fmt: skip
    assert pretraining_of(before.stored()) == before
    assert before.text == "a.pth: ImageNet-1k, labels; segmenter glyphs: glyphs, labels"
    assert before.kind == ("ImageNet-1k", "labels", "none")
    assert (named("none").text, Pretraining().text) == ("none", "not known: not known")


@pytest.mark.parametrize("text", ['{"weights": 3}', '{"weights": ', '{"networks": []}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="pretraining"):
        pretraining_of(text)
