"""Scores of a run: the evals that it leaves, with a CRF beside without, and what its objective reads."""

import importlib.util

import numpy as np
import polars as pl
import pytest

import harness.store
from harness import train
from harness.cli.parsing import main
from harness.engine.inference import counting
from harness.engine.inference.score import objective_from_evals
from harness.scoring.metrics import miou

WORDS = [
    "method=full", "ray=off", "data.n_train=8", "data.n_val=3", "data.n_test=5", "crop=48", "batch=4", "group=2",
    "iterations=2",
]  # fmt: skip
needs_crf = pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="no pydensecrf (extra crf)")


@needs_crf
def test_a_crf_and_a_protocol_add_evals_of_the_reported_split(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(counting, "OCCURS", 0.0)
    inside = counting.crf_pool

    def pool(processes):
        seen.append(processes)
        return inside(1)

    monkeypatch.setattr(counting, "crf_pool", pool)
    assert main(train.run, [*WORDS, f"store={tmp_path}", "crf=toco", "scales=unia", "threads=2"]) == 0
    results = harness.store.load(tmp_path)
    columns = ["split", "scales", "flip", "fusion", "crf", "threshold_rule"]
    found = sorted(results.evals.select(columns).iter_rows())
    assert found == [
        ("test", "1,1.25,1.5", True, "max", "none", "none"),
        ("test", "1,1.25,1.5", True, "max", "toco", "none"),
        ("val", "1", False, "max", "none", "none"),
    ]
    assert seen == [1, 2], "processes only where there is a CRF, as many as the run has threads"
    crf, plain = (
        results.evals.filter(pl.col("crf") == c, pl.col("split") == "test")["eval"][0] for c in ("toco", "none")
    )
    counts = {e: results.counts.filter(pl.col("eval") == e) for e in (crf, plain)}
    pixels = {e: int((c["tp"] + c["fn"]).sum()) for e, c in counts.items()}
    assert pixels[crf] == pixels[plain] > 0
    (objective,) = set(results.trials["objective"])
    val = results.evals.filter(pl.col("split") == "val")["eval"][0]
    assert objective == miou(results.counts.filter(pl.col("eval") == val))[0]


def test_a_missing_extra_is_answered_before_anything_starts(tmp_path, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == "pydensecrf" else real(n))
    assert main(train.run, [*WORDS, f"store={tmp_path}/s", "crf=toco", "scales=nice"]) == 2
    text = capsys.readouterr().err
    assert "crf: toco needs pydensecrf, which is not installed" in text
    assert "uv sync --extra crf" in text
    assert "scales: 'nice' is no scale" in text
    assert not (tmp_path / "s").exists()


def test_the_objective_leaves_crfs_out():
    evals = pl.DataFrame(
        {
            "eval": ["with", "without"], "target": ["segmentation"] * 2, "weights": ["student"] * 2,
            "split": ["val"] * 2, "crf": ["toco", "none"], "threshold_rule": ["none"] * 2,
        }
    )  # fmt: skip
    counts = pl.DataFrame({"eval": ["with", "without"], "class": [0, 0], "tp": [9, 6], "fp": [0, 0], "fn": [1, 4]})
    assert np.isclose(objective_from_evals(evals, counts, "segmentation", "none", "val", "fixed"), 0.6)
