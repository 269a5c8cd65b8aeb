"""Inference protocols: names, words, texts, tiles, and that they are no part of a run's key where they are usual."""

import dataclasses

import pytest

from harness.api.inference import PROTOCOLS, SINGLE, Inference, inference_of, inference_problems, tile_starts
from harness.plan.config import RunConfig, content_key

RUN = RunConfig(
    method="fsr", variant="default", knobs={"lr": 6e-5, "block": 4}, dataset="shapes", options={"tune": "auto"},
    labels="tags", backbone="shapes_vit", decoder="largefov", tier="smoke", crop=96, batch=16, group=16,
    iterations=300,
)  # fmt: skip


def key(run: RunConfig) -> str:
    return content_key(run, train_fingerprint="f00d", weights_digest="beef", versions={"fsr": 1, "loop": 1})


def test_keys_of_usual_runs_stay():
    """Pinned when inference was scales, flip and fusion alone: results of then are results of now."""
    assert key(RUN) == "0ddd8d2bd5a01c64badd"
    assert "scoring" not in RUN.identity()
    assert key(RUN.with_inference(PROTOCOLS["unia"])) == key(
        dataclasses.replace(RUN, scales=(1.0, 1.25, 1.5), flip=True)
    )


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_run_carries_every_protocol(name):
    run = RUN.with_inference(PROTOCOLS[name])
    again = RunConfig.from_dict(run.to_dict())
    assert again == run
    assert again.inference == PROTOCOLS[name]
    same = name in ("single",)
    assert (key(run) == key(RUN)) == same


def test_words_change_parts():
    assert inference_of(None, None, None, SINGLE) == SINGLE
    assert inference_of("1,1.5", "mean", "sum", SINGLE) == Inference((1.0, 1.5), "mean", "sum")
    assert inference_of("fsr", None, None, SINGLE) == PROTOCOLS["fsr"]
    assert inference_of("agmm", "false", None, SINGLE).flip == "none"
    # Only the scales are named, so that the size of the usual protocol stays.
    assert inference_of("1", None, None, PROTOCOLS["fsr"]) == Inference((1.0,), "add", "max", "original")


def test_texts_tell_protocols_apart():
    assert (SINGLE.scales_text, SINGLE.fusion_text) == ("1", "max")
    assert PROTOCOLS["fsr"].scales_text == "1,1.25,1.5"
    assert PROTOCOLS["fsr"].fusion_text == "max original"
    assert PROTOCOLS["toco-coco"].fusion_text == "sum square flip-max"
    assert PROTOCOLS["afa"].fusion_text == "max long flip-mean at-map"
    assert PROTOCOLS["agmm"].fusion_text == "mean original probabilities flip-mean corners"
    texts = {n: (p.scales_text, p.flip != "none", p.fusion_text) for n, p in PROTOCOLS.items() if n != "toco"}
    assert len(set(texts.values())) == len(texts)
    assert PROTOCOLS["toco"] == PROTOCOLS["fsr"]


def test_wrong_words_are_named():
    problems = inference_problems("1,0,x", "sideways", "median")
    assert [p.where for p in problems] == ["scales", "scales", "flip", "fusion"]
    assert "toco-coco" in problems[0].fix
    assert "did you mean agmm" in inference_problems("agm", None, None)[0].fix
    assert inference_problems(",", None, None)
    assert not inference_problems("0.5,8", "TRUE", "mean")


def test_tiles_of_agmm():
    """agmm.md self-check 5: 1024 x 2048, tile 721 -> stride 241, 3 x 7 tiles."""
    assert tile_starts(1024, 721) == (0, 241, 303)
    assert tile_starts(2048, 721) == (0, 241, 482, 723, 964, 1205, 1327)
    assert tile_starts(721, 721) == tile_starts(100, 721) == (0,)
