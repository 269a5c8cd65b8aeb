"""`config=` with a file that no run wrote as it is: our error, which names the field, before anything is opened."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness import train
from harness.cli.parsing import main
from harness.errors import BadInput
from harness.plan.config import RunConfig
from harness.plan.replay import stored_config

RIGHT = RunConfig(
    method="irn", variant="default", knobs={"lr": 0.01}, dataset="shapes", labels="tags", backbone="shapes_cnn",
    decoder="largefov", tier="smoke", crop=96, batch=16, group=16, iterations=4, scales=(1.0, 1.5), fusion="sum",
    scoring={"size": "original", "flip": "mean"},
    networks={"segmenter": {"backbone": "shapes_cnn", "decoder": "deeplabv3plus", "crop": 96, "batch": 16, "group": 8,
                            "iterations": 4, "weights": "abc"}},
).to_dict()  # fmt: skip


def refused(folder: Path, values: Any) -> str:
    (folder / "run.json").write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(BadInput) as caught:
        stored_config([f"config={folder}/run.json"])
    return str(caught.value)


def test_what_a_run_wrote_is_read(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(RIGHT))
    words, run = stored_config([f"config={tmp_path}/run.json"])
    assert run is not None
    assert run.to_dict() == RIGHT
    assert "method=irn" in words


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("batch", "16", "batch is '16', no int"),
        ("batch", 16.0, "batch is 16.0, no int"),
        ("crop", True, "crop is True, no int"),
        ("fidelity", math.nan, "fidelity is nan, no float"),
        ("cam_threshold", 10**400, "cam_threshold is 1000"),
        ("knobs", [], "knobs is [], no collections.abc.Mapping[str, Any]"),
        ("scales", ["1"], "scales is ['1'], no tuple[float, ...]"),
        ("networks", {"segmenter": 3}, "networks is {'segmenter': 3}, no "),
        ("until", 3, "until is 3, no str | None"),
        ("scoring", {"sise": "crop"}, "scoring has 'sise'"),
        ("scoring", {"flip": "sideways"}, "flip is 'sideways', no Literal['none', 'add', 'mean', 'max']"),
        ("schema", "3", "a config of schema '3'"),
    ],
)
def test_fields_of_another_type_are_named(tmp_path, field, value, said):
    found = refused(tmp_path, {**RIGHT, field: value})
    assert said in found
    assert "take the column config of runs as it is" in found


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("crop", -96, "config: crop: -96 is below 1"),
        ("batch", 0, "config: batch: 0 is below 1"),
        ("iterations", 0, "config: iterations: 0 is below 1"),
        ("seed", -1, "config: seed: -1 is below 0"),
        ("fidelity", 1.5, "config: fidelity: 1.5 is outside (0,1]"),
        ("fidelity", 0.0, "config: fidelity: 0.0 is outside (0,1]"),
        ("cam_threshold", 1.5, "config: cam_threshold: 1.5 is outside [0,1]"),
        ("precision", "fp8", "config: precision: 'fp8' is unknown"),
        ("decoder", "deeplabv3", "config: decoder: 'deeplabv3' is unknown"),
        ("tier", "huge", "config: tier: 'huge' is unknown"),
        ("crf", "densest", "config: crf: 'densest'"),
        ("fusion", "product", "config: fusion: 'product' is unknown"),
        ("scales", [], "config: scales: ',' holds no scale"),
        ("scales", [1.0, 80.0], "config: scales: '80.0' is no scale in (0,8]"),
        ("networks", {"segmenter": {"crop": 96}}, "config: networks.segmenter: lacks backbone"),
        ("networks", {"segmenter": {"crop": 0}}, "config: segmenter.crop: 0 is below 1"),
        ("networks", {"segmenter": {"crop": "x"}}, "config: segmenter.crop: 'x'"),
        ("networks", {"segmenter": {"corp": 96}}, "config: word 'segmenter.corp': is unknown"),
    ],
)
def test_values_that_no_word_could_give_are_named(tmp_path, field, value, said):
    assert said in refused(tmp_path, {**RIGHT, field: value})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"', "null", "[" * 100_000, "\ufeff{}"])
def test_what_is_no_config_is_said(tmp_path, text):
    assert "run.json holds no config" in refused(tmp_path, text)


def test_knobs_of_a_config_obey_the_rule_of_knobs(tmp_path, capsys):
    for knobs, said in (({"lr": "x"}, "irn.lr: 'x' is no finite number"), ({"lr": -1.0}, "irn.lr: -1 is outside"),
                        ({"cam_scales": 1.0}, "irn.cam_scales: 1.0 is no list of finite numbers")):  # fmt: skip
        (tmp_path / "run.json").write_text(json.dumps({**RIGHT, "knobs": knobs}))
        assert main(train.run, [f"config={tmp_path}/run.json", f"store={tmp_path}/store", "ray=off"]) == 2
        assert said in capsys.readouterr().err
