"""Data that changes after the plan: noticed before it is scored, and a key of its own when it is planned anew."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image

from harness import train
from harness.cli.parsing import main, parse
from harness.cli.run_words import Words
from harness.datasets.disk import facts
from harness.engine.heartbeat import Heartbeat
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.errors import BadInput
from harness.plan.plan import make_plan
from harness.store import Store, digest, load
from harness.tuning.describe import plan_text
from reports.sections.leaderboard import build

IDS = {"train": "abcdef", "val": "gh", "test": "ij"}
SMALL = ["method=cam", "data=folder", "ray=off", "tier=smoke", "backbone=shapes_vit", "crop=48", "batch=4", "group=2",
         "iterations=4", "threads=1", "scales=single", "checkpoint_every=1"]  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """Photos of noise with bright rectangles, two classes, in VOC layout."""
    root = tmp_path / "photos"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("background\ndisc\nbar\n")
    for split, ids in IDS.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
        for i in ids:
            mask = np.zeros((40, 60), np.uint8)
            mask[5:25, 4:28], mask[20:38, 30:58], mask[:2] = 1, 2, 255
            noise = np.random.default_rng(ord(i)).integers(0, 90, (40, 60, 3))
            Image.fromarray((noise + 60 * mask.clip(0, 2)[..., None]).astype(np.uint8)).save(image(root, i))
            Image.fromarray(mask).save(masks(root, i))
    return root


def image(root, i):
    return root / f"JPEGImages/{i}.png"


def masks(root, i):
    return root / f"SegmentationClass/{i}.png"


def replaced(path):
    """Other pixels of the same kind in a file: an image or mask turned upside down."""
    with Image.open(path) as was:
        turned = was.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    turned.save(path)


def plan_of(root, store, *more):
    return make_plan(
        parse([*SMALL, f"data.root={root}", f"store={store}", *more], Words, "train", ["cam"]), single=True
    )


def payload_of(root, store, *more):
    plan = plan_of(root, store, *more)
    return plan.resolve(plan.studies[0].study, {}, 0)


def during(monkeypatch, stage, change):
    """Let `change` happen when the run is first heard of in this stage, as another program would do it."""
    heard = Heartbeat.write
    left = [change]

    def write(self, **fields):
        if fields["stage"] == stage and fields["step"] > 0 and left:
            left.pop()()
        return heard(self, **fields)

    monkeypatch.setattr(Heartbeat, "write", write)


@pytest.mark.parametrize(
    ("split", "file", "found"),
    [
        ("train", masks, r"train: changed since the plan: its list of images, class names, masks or tags"),
        ("train", image, r"train: changed since the plan: pixels of its images"),
        ("val", masks, r"val: changed since the plan: its list"),
        ("test", masks, r"test: changed since the plan: its list"),
        ("test", image, r"test: changed since the plan: pixels"),
    ],
)
def test_data_replaced_while_a_run_trains_is_noticed_before_it_is_scored(
    photos, tmp_path, monkeypatch, split, file, found
):
    payload = payload_of(photos, tmp_path / "store")
    whole = payload_of(photos, tmp_path / "whole")
    execute(whole, LocalSession())
    kept = {i: file(photos, i).read_bytes() for i in IDS[split]}
    with monkeypatch.context() as patch:
        during(patch, "train", lambda: [replaced(file(photos, i)) for i in IDS[split]])
        with pytest.raises(BadInput, match=found) as raised:
            execute(payload, LocalSession())
    assert len(raised.value.problems) == 1
    results = load(tmp_path / "store")
    assert results.runs.is_empty()
    assert results.evals.is_empty()
    # Nothing that was learned from it is left to go on from: neither a finished stage nor a checkpoint.
    left = [p for p in (tmp_path / "store" / "cache").rglob("*") if p.is_file() and p.name not in ("lock", "users")]
    assert left == []
    # Before it starts a run looks too.
    with pytest.raises(BadInput, match=found):
        execute(payload, LocalSession())
    for i, content in kept.items():
        file(photos, i).write_bytes(content)
    assert execute(payload, LocalSession()).status == "done"
    assert digest(load(tmp_path / "store")) == digest(load(tmp_path / "whole"))


def test_masks_replaced_while_a_run_is_scored_are_noticed(photos, tmp_path, monkeypatch):
    payload = payload_of(photos, tmp_path / "store")
    during(monkeypatch, "score val", lambda: replaced(masks(photos, "i")))
    with pytest.raises(BadInput, match="test: changed since the plan"):
        execute(payload, LocalSession())
    assert load(tmp_path / "store").runs.is_empty()


def test_a_refused_run_is_a_row_and_the_same_command_plans_the_data_as_it_is(photos, tmp_path, monkeypatch, capsys):
    store = tmp_path / "store"
    words = [*SMALL, f"data.root={photos}", f"store={store}"]
    with monkeypatch.context() as patch:
        during(patch, "train", lambda: [replaced(masks(photos, i)) for i in IDS["test"]])
        assert main(train.run, words) == 1
    said = capsys.readouterr()
    assert "changed since the plan" in said.out + said.err
    (row,) = load(store).runs.to_dicts()
    assert (row["status"], row["error_class"]) == ("failed", "bad_input")
    assert main(train.run, words) == 0
    rows = load(store).runs
    assert rows.filter(pl.col("status") == "done").height == 1
    assert rows["key"].n_unique() == 2


def test_keys_follow_pixels_and_labels_and_nothing_else(photos, tmp_path):
    store = tmp_path / "store"
    first = payload_of(photos, store)
    assert first.earlier_key
    assert first.earlier_key != first.key
    # Elsewhere, with other times: the same.
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    for path in moved.rglob("*.png"):
        os.utime(path, (1, 1))
    shutil.move(moved, (other := tmp_path / "other") / "photos")
    assert payload_of(other / "photos", store).key == first.key
    # Who reads which split is no part of it: data is.
    assert payload_of(photos, store, "protocol=oracle").key == first.key
    changed = {first.key}
    for path in (image(photos, "a"), image(photos, "g"), image(photos, "i"), masks(photos, "g"), masks(photos, "i")):
        content = path.read_bytes()
        replaced(path)
        found = payload_of(photos, store)
        assert found.key not in changed, path
        assert found.earlier_key == first.earlier_key
        changed.add(found.key)
        path.write_bytes(content)
    assert payload_of(photos, store).key == first.key
    replaced(masks(photos, "a"))
    assert payload_of(photos, store).earlier_key != first.earlier_key


def test_generated_pictures_keep_their_keys(tmp_path):
    words = ["method=cam", "data=shapes", f"store={tmp_path}"]
    plan = make_plan(parse(words, Words, "train", ["cam"]), single=True)
    payload = plan.resolve(plan.studies[0].study, {}, 0)
    assert (payload.earlier_key, payload.data.images, payload.data.every) == ("", {}, "")
    assert json.loads(payload.data.stored())["images"] == "generated"


def test_files_are_read_once_while_their_times_stay(photos, monkeypatch):
    read = []
    real = facts.file_digest
    monkeypatch.setattr(facts, "file_digest", lambda path: read.append(path.name) or real(path))
    plan = plan_of(photos, photos.parent / "store")
    assert sorted(read) == sorted(f"{i}.png" for ids in IDS.values() for i in ids)
    data = plan.studies[0].part.data("tags")
    assert data.changes(plan.dataset, plan.splits, "tags") == []
    assert len(read) == 10
    os.utime(image(photos, "a"))
    assert data.changes(plan.dataset, plan.splits, "tags") == []
    assert read[10:] == ["a.png"]


def test_a_file_that_is_replaced_by_one_of_equal_time_and_size_is_read_again(photos):
    path = image(photos, "a")
    one, two = (image(photos, i).read_bytes() for i in "ab")
    size = max(len(one), len(two))
    path.write_bytes(one.ljust(size, b"\0"))
    os.utime(path, (1, 1))
    plan = plan_of(photos, photos.parent / "store")
    data = plan.studies[0].part.data("tags")
    path.write_bytes(two.ljust(size, b"\0"))
    os.utime(path, (1, 1))
    assert (path.stat().st_mtime, path.stat().st_size) == (1, size)
    (problem,) = data.changes(plan.dataset, plan.splits, "tags")
    assert problem.found == "changed since the plan: pixels of its images"


def stored_before_pixels(root, store):
    """A store with one run of this data as it was written before pixels were recorded."""
    payload = payload_of(root, store).under_earlier_key()
    execute(payload, LocalSession())
    (path,) = (store / "runs").glob("*.parquet")
    row = pl.read_parquet(path).row(0, named=True)
    then = {k: v for k, v in json.loads(row["split_fingerprints"]).items() if k != "images"}
    path.unlink()
    Store(store).write("runs", payload.key, pl.DataFrame([{**row, "split_fingerprints": json.dumps(then)}]))
    return payload.key


def test_a_run_from_before_pixels_were_recorded_counts_as_done_and_is_marked(photos, tmp_path, capsys):
    store = tmp_path / "store"
    key = stored_before_pixels(photos, store)
    plan = plan_of(photos, store)
    assert "[trial 0 is done; pixels not recorded;" in plan_text(plan)
    words = [*SMALL, f"data.root={photos}", f"store={store}"]
    assert main(train.run, words) == 0
    assert f"run {key}:" in capsys.readouterr().out
    assert load(store).runs["key"].to_list() == [key]
    note = "pixels not recorded: cam ran before keys held a digest of the images"
    assert any(note in s.notes for s in build(load(store)).table.sections)

    # What its pixels were nobody can say: it counts as done beside any.
    replaced(image(photos, "a"))
    assert "[trial 0 is done; pixels not recorded;" in plan_text(plan_of(photos, store))


def test_other_pixels_are_a_run_beside_the_first_and_no_row_with_it(photos, tmp_path):
    store = tmp_path / "store"
    words = [*SMALL, f"data.root={photos}", f"store={store}"]
    assert main(train.run, words) == 0
    replaced(image(photos, "a"))
    assert "[to be run;" in plan_text(plan_of(photos, store))
    assert main(train.run, words) == 0
    runs = load(store).runs
    assert runs["key"].n_unique() == 2
    assert runs["study"].n_unique() == 1
    scores = [s for s in build(load(store)).table.sections if s.kind == "scores"]
    assert [sum(str(r["method"]).startswith("cam") for r in s.rows) for s in scores] == [1, 1]
    assert not any("pixels not recorded" in note for s in scores for note in s.notes)


def test_a_run_from_before_whose_scored_masks_are_others_by_now_is_run_again(photos, tmp_path):
    store = tmp_path / "store"
    key = stored_before_pixels(photos, store)
    replaced(masks(photos, "i"))
    assert "[to be run;" in plan_text(plan_of(photos, store))
    assert main(train.run, [*SMALL, f"data.root={photos}", f"store={store}"]) == 0
    assert load(store).runs["key"].n_unique() == 2
    assert key in load(store).runs["key"].to_list()
