"""`python -m harness.evaluate` of networks: finished runs scored again, and published weights under our names."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import harness.store
from harness import evaluate, train
from harness.api.keymap import KeyMap
from harness.api.registry import registry
from harness.cli.parsing import main
from harness.scoring.metrics import miou
from harness.store.pretraining import pretraining_of

SMALL = ["data.n_train=8", "data.n_val=4", "data.n_test=5"]
TRAIN = ["method=cam", "ray=off", *SMALL, "crop=48", "batch=4", "group=2", "iterations=2"]
RULES = ((r"backbone\.(.+)", r"net.encoder.\1"), (r"head\.(.+)", r"net.\1"))
needs_crf = pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="no pydensecrf (extra crf)")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A store with one run of `cam`."""
    store = tmp_path_factory.mktemp("trained") / "store"
    assert main(train.run, [*TRAIN, f"store={store}"]) == 0
    return store


@pytest.fixture
def store(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "store"))


def key_of(store: Path) -> str:
    (key,) = set(harness.store.load(store).runs["key"])
    return key


def files(store: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in store.rglob("*.parquet")}


def added(store: Path, before: pl.DataFrame) -> dict:
    """The only eval that is new, with its counts."""
    results = harness.store.load(store)
    (row,) = results.evals.join(before, on="eval", how="anti").to_dicts()
    return {**row, "counts": results.counts.filter(pl.col("eval") == row["eval"])}


def test_again_adds_one_eval_and_rewrites_nothing(store, capsys):
    key, before, old = key_of(store), files(store), harness.store.load(store).evals
    words = [f"run={key[:8]}", f"store={store}", "scales=1,1.5", "flip=mean"]
    assert main(evaluate.run, [*words, "dry_run=true"]) == 0
    assert files(store) == before
    assert main(evaluate.run, words) == 0
    row = added(store, old)
    assert (row["key"], row["target"], row["split"]) == (key, "segmentation", "test")
    assert (row["scales"], row["flip"], row["fusion"], row["crf"]) == ("1,1.5", True, "max flip-mean", "none")
    after = files(store)
    assert {p: after[p] for p in before} == before
    capsys.readouterr()
    assert main(evaluate.run, words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert files(store) == after
    assert not list(store.glob("work/*")), "no heartbeats and no checkpoints are left behind"


def test_what_the_run_has_itself_is_nothing_to_do(store, capsys):
    before = files(store)
    assert main(evaluate.run, [f"run={key_of(store)}", f"store={store}"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(evaluate.run, [f"run={key_of(store)}", f"store={store}", "target=cam", "protocol=oracle"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert files(store) == before


def test_the_same_scoring_gives_the_same_counts(store):
    """Take a run's own eval away and score it again: the bytes of the counts are the same."""
    results = harness.store.load(store)
    for target, rule, words in (
        ("segmentation", "none", []),
        ("pseudo", "held-out", ["target=pseudo"]),
        ("cam", "oracle", ["target=cam", "protocol=oracle"]),
        ("cam", "fixed", ["target=cam", "protocol=fixed"]),
    ):
        wanted = (pl.col("target") == target) & (pl.col("threshold_rule") == rule) & (pl.col("split") == "test")
        own = results.evals.filter(wanted).row(0, named=True)
        alone = store.parent / f"{target}-{rule}"
        shutil.copytree(store, alone)
        shutil.rmtree(alone / "evals")
        shutil.rmtree(alone / "counts")
        kept = results.evals.filter(~wanted)
        harness.store.Store(alone).write("evals", "kept", kept)
        assert main(evaluate.run, [f"run={own['key']}", f"store={alone}", *words]) == 0
        row = added(alone, kept)
        assert (row["eval"], row["threshold"]) == (own["eval"], own["threshold"])
        counts = results.counts.filter(pl.col("eval") == own["eval"]).sort("image", "class")
        assert row["counts"].sort("image", "class").equals(counts)


@needs_crf
def test_crf_and_split_again(store):
    old = harness.store.load(store).evals
    words = [f"run={key_of(store)}", f"store={store}", "split=val", "crf=toco", "scales=original", "threads=1"]
    assert main(evaluate.run, words) == 0
    row = added(store, old)
    assert (row["split"], row["crf"], row["images"], row["fusion"]) == ("val", "toco", 4, "max original")
    pixels = row["counts"].select((pl.col("tp") + pl.col("fn")).sum()).item()
    plain = harness.store.load(store)
    same = plain.evals.filter(pl.col("split") == "val", pl.col("target") == "segmentation", pl.col("crf") == "none")
    truth = plain.counts.filter(pl.col("eval") == same["eval"][0]).select((pl.col("tp") + pl.col("fn")).sum()).item()
    assert pixels == truth


def test_the_best_rung_of_a_run(store, capsys):
    key, old = key_of(store), harness.store.load(store).evals
    (weights,) = harness.store.load(store).artifacts.filter(pl.col("kind") == "weights")["path"]
    words = [f"run={key}", f"store={store}", "weights=best"]
    assert main(evaluate.run, words) == 2
    assert "weights: best is not there: a run has it where it was compared" in capsys.readouterr().err
    state = load_file(store / weights)
    # A decoder that says background whatever it sees.
    state = {n: torch.zeros_like(v) if n.startswith("net.decoder.") else v for n, v in state.items()}
    save_file(state, store / weights.replace("weights.", "best."), {"objective": "0.5", "step": "1"})
    assert main(evaluate.run, words) == 0
    assert "segmentation on test, best" in capsys.readouterr().out
    row = added(store, old)
    assert (row["weights"], row["step"], row["split"]) == ("best", 1, "test")
    assert set(row["counts"].filter(pl.col("tp") + pl.col("fp") > 0)["class"]) == {0}
    before = files(store)
    assert main(evaluate.run, words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert files(store) == before
    assert main(evaluate.run, [*words, "target=cam"]) == 2
    assert "no threshold that was chosen on a held-out split" in capsys.readouterr().err
    assert main(evaluate.run, [*words, "target=cam", "protocol=fixed"]) == 0


def test_what_cannot_be_scored_again(store, capsys):
    def refused(*words: str) -> str:
        assert main(evaluate.run, [*words, f"store={store}"]) == 2
        return capsys.readouterr().err

    key = key_of(store)
    assert "'ffff' is not in the store" in refused("run=ffff")
    assert "cam makes no masks" not in refused(f"run={key}", "target=masks")
    assert "scales: is for segmenters" in refused(f"run={key}", "target=cam", "scales=1,2")
    assert "weights: 'teacher2' is unknown" in refused(f"run={key}", "weights=teacher2")
    assert "cam has no teacher" in refused(f"run={key}", "weights=teacher")
    (weights,) = harness.store.load(store).artifacts.filter(pl.col("kind") == "weights")["path"]
    (store / weights).unlink()
    text = refused(f"run={key}", "split=val", "scales=2")
    assert "its weights are gone" in text
    for file in (store / "artifacts").glob("*.parquet"):
        file.unlink()
    assert f"{key} left no weights (keep=none)" in refused(f"run={key}", "split=val")


def test_other_data_than_the_runs_is_refused(store, capsys):
    (file,) = (store / "runs").glob("*.parquet")
    rows = pl.read_parquet(file)
    prints = json.loads(rows["split_fingerprints"][0])
    text = json.dumps({**prints, "report": "other"})
    alone = store.parent / "other"
    shutil.copytree(store, alone)
    (alone / "runs" / file.name).unlink()
    harness.store.Store(alone).write("runs", file.stem, rows.with_columns(split_fingerprints=pl.lit(text)))
    assert main(evaluate.run, [f"run={key_of(store)}", f"store={alone}", "scales=1,2"]) == 2
    assert "is not what the run was reported on" in capsys.readouterr().err


@pytest.fixture
def published(store, monkeypatch) -> dict[str, torch.Tensor]:
    """The run's weights under names as another repository has them, and a key map for them."""
    spec = registry().spec("cam")
    monkeypatch.setitem(
        registry()._specs, "cam", dataclasses.replace(spec, published="tests_published:key_map")
    )  # fmt: skip
    monkeypatch.setattr("harness.evaluation.published.resolve", lambda path: lambda method: KeyMap(RULES, ("meter.+",)))
    (weights,) = harness.store.load(store).artifacts.filter(pl.col("kind") == "weights")["path"]
    out = {}
    for name, tensor in load_file(store / weights).items():
        theirs = name.replace("net.encoder.", "backbone.") if "encoder." in name else name.replace("net.", "head.", 1)
        out["module." + theirs] = tensor
    return {**out, "module.meter.steps": torch.zeros(1)}


def test_published_weights_score_as_the_run_that_they_are(store, published, capsys):
    results = harness.store.load(store)
    torch.save({"model": published, "iteration": 7}, store / "theirs.pth")
    words = [f"weights={store}/theirs.pth", "method=cam", f"store={store}", *SMALL, "crop=48"]
    assert main(evaluate.run, words) == 0
    row = added(store, results.evals)
    own = results.evals.filter(pl.col("target") == "segmentation", pl.col("split") == "test")["eval"][0]
    assert miou(row["counts"]) == miou(results.counts.filter(pl.col("eval") == own))
    run = harness.store.load(store).runs.filter(pl.col("key") == row["key"]).row(0, named=True)
    assert (run["method"], pretraining_of(run["pretraining"]).weights, run["iterations"]) == (
        "cam-published",
        "theirs.pth",
        None,
    )
    assert "Beside other rows of the store" in capsys.readouterr().out
    assert main(evaluate.run, words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(evaluate.run, [*words, "target=cam"]) == 0
    again = harness.store.load(store).evals.filter(pl.col("key") == row["key"])
    assert sorted(again["target"]) == ["cam", "segmentation"], "one file is one row, however it is scored"
    assert main(evaluate.run, [f"run={row['key']}", f"store={store}"]) == 2
    assert "was not trained here" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_named(store, published, capsys):
    def refused(content: object) -> str:
        torch.save(content, store / "theirs.pth")
        words = [f"weights={store}/theirs.pth", "method=cam", f"store={store}", *SMALL, "crop=48"]
        assert main(evaluate.run, words) == 2
        return capsys.readouterr().err

    broken = dict(published)
    name = next(n for n in broken if n.startswith("module.head.classifier"))
    broken["module.extra"] = torch.zeros(2)
    broken["module.head.other"] = broken.pop(name)
    text = refused(broken)
    assert "module.extra -> extra" in text or "unknown: module.extra" in text
    assert "module.head.other -> net.other" in text
    assert f"missing: {name.replace('module.head.', 'net.')}" in text
    assert "holds more than tensors" in refused({"model": published, "optimizer": Path("x")})
    assert "holds no dict of tensors" in refused({"epoch": 3})
    assert "holds a, b" in refused({"a": dict(published), "b": dict(published)})
    (store / "theirs.pth").write_bytes(b"PK\x03\x04 cut off")
    words = [f"weights={store}/theirs.pth", "method=cam", f"store={store}", "backbone=vit_nano"]
    assert main(evaluate.run, words) == 2
    assert "backbone 'vit_nano'" in capsys.readouterr().err
    words = [f"weights={store}/theirs.pth", "method=camm", "data=shapez", f"store={store}"]
    assert main(evaluate.run, words) == 2
    text = capsys.readouterr().err
    for part in ("method: 'camm'", "did you mean cam", "'shapez'"):
        assert part in text
    # Files are read once the words are right.
    words = [f"weights={store}/theirs.pth", "method=cam", "backbone=vit_nano", f"store={store}"]
    assert main(evaluate.run, words) == 2
    text = capsys.readouterr().err
    for part in ("theirs.pth cannot be read", "backbone 'vit_nano'"):
        assert part in text
