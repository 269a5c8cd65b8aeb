"""The stages of `sipe`, one after the other on a few pictures: what they leave, and what another knob makes again."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from harness.cli.parsing import main
from harness.store import load
from harness.train import run

SMALL = [
    "method=sipe", "ray=off", "data.n_train=8", "data.n_val=4", "data.n_test=4", "crop=48", "batch=4", "group=4",
    "iterations=3", "affinity.iterations=2", "affinity.crop=96", "segmenter.iterations=2", "segmenter.crop=48",
    "segmenter.batch=4",
]  # fmt: skip


def folders(store: Path) -> set[str]:
    return {p.name for p in (store / "cache").iterdir() if p.is_dir()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sipe") / "store"
    assert main(run, [*SMALL, f"store={root}"]) == 0
    return root


def test_every_stage_leaves_something_and_every_target_is_scored(store: Path) -> None:
    assert len(folders(store)) == 6
    evals = load(store).evals
    assert set(evals["target"]) == {"cam", "pseudo", "segmentation"}
    maps = evals.filter(pl.col("target") == "cam")
    assert set(maps["threshold_rule"]) == {"none"}, "its own background decides"
    assert maps["threshold"].null_count() == len(maps)


@pytest.mark.parametrize(
    ("knob", "made_again"),
    [
        ("sipe.rw_beta=3", 2),
        ("sipe.seg_lr=1e-4", 1),
        ("sipe.aff_lr=3", 3),
        ("sipe.seeds_infer=x4", 5),
        ("sipe.w_gsc=0.5", 6),
    ],
)
def test_another_value_makes_again_what_depends_on_it(knob: str, made_again: int, store: Path) -> None:
    """Masks and segmenter; segmenter; boundaries and those; maps and those; all six."""
    before = folders(store)
    assert main(run, [*SMALL, knob, f"store={store}"]) == 0
    assert len(folders(store) - before) == made_again


def test_until_ends_early_and_needs_no_boundaries_without_a_walk(store: Path) -> None:
    assert main(run, [*SMALL, "until=masks", "ablation=sipe.no_walk", f"store={store}"]) == 0
    tables = load(store)
    newest = tables.runs.filter(pl.col("status") == "done").sort("started").to_dicts()[-1]
    assert newest["iterations"] == 3
    assert json.loads(newest["seconds"])["reused"] > 0, "the classifier and its maps are there already"
    scored = tables.evals.filter(pl.col("key") == newest["key"])
    assert set(scored["target"]) == {"cam", "pseudo"}
