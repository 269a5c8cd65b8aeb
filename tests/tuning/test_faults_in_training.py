"""Faults in real runs under Ray: data that changes while they train, processes that die or hang. What a sweep stores of
them, and that all other rows are those of runs that nothing disturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import ray_faults
from PIL import Image

from harness.cli.parsing import Parsed, parse
from harness.cli.run_words import Words
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.plan.payload import Payload
from harness.plan.plan import Plan, make_plan
from harness.store import Store, digest, load
from harness.tuning import ray_adapters, restarts
from harness.tuning.drivers import run_local, run_studies
from harness.tuning.ledger import Ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow]
IDS = {"train": "abcdef", "val": "gh", "test": "ij"}
FLOOR_S = 25.0
"""Of silences that are called hangs here; a step takes milliseconds on an idle machine."""


def photos(root: Path) -> Path:
    """Photos of noise with bright rectangles, two classes, in VOC layout; those of each folder are its own."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("background\ndisc\nbar\n")
    for split, ids in IDS.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
        for i in ids:
            mask = np.zeros((40, 60), np.uint8)
            mask[5:25, 4:28], mask[20:38, 30:58], mask[:2] = 1, 2, 255
            noise = np.random.default_rng([ord(i), *root.name.encode()]).integers(0, 90, (40, 60, 3))
            pixels = (noise + 60 * mask.clip(0, 2)[..., None]).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"JPEGImages/{i}.png")
            Image.fromarray(mask).save(root / f"SegmentationClass/{i}.png")
    return root


def words(root: Path, store: Path) -> Parsed:
    """One run of `cam` on a folder of photos."""
    sizes = ["tier=smoke", "backbone=shapes_vit", "crop=48", "batch=4", "group=2", "iterations=8", "scales=single"]
    return parse(
        ["methods=cam", "data=folder", f"data.root={root}", *sizes, "trials=1", "threads=1", "checkpoint_every=1",
         f"store={store}"],
        Words, "sweep", ["cam"],
    )  # fmt: skip


FAULTS: dict[str, dict[str, Any]] = {
    "masks": {"what": "replace", "stage": "train", "step": 4, "times": 1, "folder": "SegmentationClass"},
    "images": {"what": "replace", "stage": "score val", "step": 0, "times": 1, "folder": "JPEGImages"},
    "dies-once": {"what": "die", "stage": "train", "step": 5, "times": 1},
    "dies-there": {"what": "die", "stage": "train", "step": 5, "times": 99},
    "hangs-once": {"what": "hang", "stage": "train", "step": 6, "times": 1},
    "hangs-there": {"what": "hang", "stage": "train", "step": 6, "times": 99},
    "hangs-in-scoring": {"what": "hang", "stage": "score test", "step": 0, "times": 1},
    "quiet": {},
}
"""By name of the folder of photos that a run learns from."""
REFUSED, DEAD, HUNG = ("masks", "images"), "dies-there", "hangs-there"


def planned(tmp_path: Path, store: Path) -> tuple[Plan, dict[str, Payload]]:
    """One run for each folder of photos, and each by its folder's name."""
    plan = make_plan([words(tmp_path / name, store) for name in FAULTS])
    runs = {}
    for one in plan.studies:
        payload = plan.resolve(one.study, {}, 0)
        runs[Path(str(payload.machine.data_root)).name] = payload
    return plan, runs


def test_a_sweep_of_runs_with_every_fault_equals_undisturbed_runs_but_for_its_failed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in FAULTS:
        photos(tmp_path / name)
    whole, store = tmp_path / "whole", tmp_path / "store"
    _, undisturbed = planned(tmp_path, whole)
    for payload in undisturbed.values():
        assert execute(payload, LocalSession()).status == "done"
    plan, runs = planned(tmp_path, store)
    assert {name: p.key for name, p in runs.items()} == {name: p.key for name, p in undisturbed.items()}
    kept = {p: p.read_bytes() for name in REFUSED for p in (tmp_path / name).rglob("*.png")}
    faults = {runs[name].key: fault for name, fault in FAULTS.items() if fault}
    for name in REFUSED:
        folder = tmp_path / name / faults[runs[name].key]["folder"]
        faults[runs[name].key] = {**FAULTS[name], "files": [str(folder / f"{i}.png") for i in IDS["test"]]}
    (tmp_path / "faults.json").write_text(json.dumps(faults))
    monkeypatch.setenv(ray_faults.FILE, str(tmp_path / "faults.json"))
    monkeypatch.setattr(restarts, "HANG_FLOOR_S", FLOOR_S)
    monkeypatch.setattr(restarts, "HANG_UNKNOWN_S", 2 * FLOOR_S)
    monkeypatch.setattr(ray_adapters, "WATCH_EVERY_S", 0.5)
    records = run_studies(
        [p.study for p in plan.studies], Ledger(plan, Store(store)), execute="ray_faults:execute", store_root=store
    )
    said = capfd.readouterr()

    found, right = load(store), load(whole)
    rows = {row["key"]: row for row in found.runs.to_dicts()}
    status = {name: (rows[p.key]["status"], rows[p.key]["error_class"]) for name, p in runs.items()}
    assert status == {
        "masks": ("failed", "bad_input"),
        "images": ("failed", "bad_input"),
        "dies-once": ("done", ""),
        "dies-there": ("failed", "bug"),
        "hangs-once": ("done", ""),
        "hangs-there": ("failed", "bug"),
        "hangs-in-scoring": ("done", ""),
        "quiet": ("done", ""),
    }
    messages = {name: rows[p.key]["error_message"] for name, p in runs.items()}
    assert "test: changed since the plan: its list of images, class names, masks or tags" in messages["masks"]
    assert "test: changed since the plan: pixels of its images" in messages["images"]
    assert messages[DEAD].startswith("its process died twice at the same place, train step 5")
    assert messages[HUNG].startswith("no step for too long again, at train step 6")
    # How often each came to the place of its fault: nothing is started for ever, and no more than its rule says.
    times = {name: len((store / f"happened-{p.key}").read_text()) for name, p in runs.items() if FAULTS[name]}
    assert times == {**dict.fromkeys(times, 1), DEAD: 2, HUNG: 2}
    done = [p.key for name, p in runs.items() if status[name][0] == "done"]
    assert sorted(found.evals["key"].unique()) == sorted(done), "a failed run left scores"
    for key in done:
        assert digest(found, key) == digest(right, key)
    assert sorted((r.study, r.outcome.status) for r in records if r.role == "trial") == sorted(
        (one.study.id, rows[plan.resolve(one.study, {}, 0).key]["status"]) for one in plan.studies
    )
    assert "trial 0: its process died, the run starts again from its newest checkpoint" in said.out
    assert "trial 0: it made no step for too long, the run starts again from its newest checkpoint" in said.out
    assert "Traceback" not in said.err

    # With the data put back, the same command finishes what failed, to the same rows as ever.
    for path, content in kept.items():
        path.write_bytes(content)
    again, _ = planned(tmp_path, store)
    ledger = Ledger(again, Store(store), retry_failed=True)
    run_local([p.study for p in again.studies], ledger, store_root=store, retry="failed")
    finished = load(store)
    assert finished.runs.filter(pl.col("status") == "done")["key"].n_unique() == len(FAULTS)
    for payload in undisturbed.values():
        assert digest(finished, payload.key) == digest(right, payload.key)
