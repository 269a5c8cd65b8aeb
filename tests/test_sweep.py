"""The main job from the command line: words in, store and leaderboard out, killed and started again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import harness.store
from harness.cli.parsing import main
from harness.errors import StoreError
from harness.store import digest, maintenance
from harness.sweep import run
from harness.tuning import run_plan

SMALL = ["data.n_train=16", "data.n_val=8", "data.n_test=8", "crop=48", "batch=4", "group=2", "iterations=12"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "harness.sweep", *SMALL, *words]


def sweep(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), env=ENV, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    done = sweep("methods=cam,full", "search=rules", "trials=2", "seeds=2", "ray=off", f"store={store}")
    assert done.returncode == 0, done.stderr
    assert "Leaderboard" in done.stdout
    assert "Where to look next" in done.stdout
    assert (store / "mlflow.db").exists()
    assert done.stdout.splitlines()[-1].strip() == str(store / "board.html")
    assert "Leaderboard" in (store / "board.html").read_text(encoding="utf-8")
    return store


def test_the_same_command_again_does_nothing(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*.parquet")}
    again = sweep("methods=cam,full", "search=rules", "trials=2", "seeds=2", f"store={undisturbed}", "mlflow=off")
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*.parquet")} == before
    assert not (undisturbed / "ray").exists()


def test_the_end_of_a_sweep_merges_files_where_there_are_many(undisturbed, tmp_path, monkeypatch, capsys):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    words = [*SMALL, "methods=cam,full", "search=rules", "trials=2", "seeds=2", f"store={store}", "mlflow=off"]

    def files() -> set[str]:
        return {str(p.relative_to(store)) for p in store.rglob("*.parquet")}

    before = files()
    assert main(run, words) == 0
    assert "merged" not in capsys.readouterr().out
    assert files() == before
    monkeypatch.setattr(maintenance, "MANY", 3)
    assert main(run, words) == 0
    assert "small files of the store merged into" in capsys.readouterr().out
    assert len(files()) < len(before) / 2
    assert digest(harness.store.load(store)) == digest(harness.store.load(undisturbed))
    assert main(run, words) == 0
    said = capsys.readouterr().out
    assert "merged" not in said
    assert "Leaderboard" in said


def test_files_that_cannot_be_merged_cost_a_sweep_nothing(undisturbed, tmp_path, monkeypatch, capsys):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(run_plan, "compact_many", full)
    words = [*SMALL, "methods=cam,full", "search=rules", "trials=2", "seeds=2", f"store={store}", "mlflow=off"]
    assert main(run, words) == 0
    said = capsys.readouterr()
    assert "small files of the store were not merged: the disk is full" in said.err
    assert "Leaderboard" in said.out


def test_the_same_sweep_as_rows_of_a_plan_file_does_nothing(undisturbed, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*.parquet")}
    file = tmp_path / "plan.yaml"
    file.write_text("search: rules\ntrials: 2\nseeds: 2\nrows:\n- methods: cam\n- {methods: full}\n")
    again = sweep(f"plan={file}", f"store={undisturbed}", "mlflow=off")
    assert again.returncode == 0, again.stderr
    assert "2 studies" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*.parquet")} == before


def test_finals_reuse_the_trial_with_their_seed(undisturbed):
    results = harness.store.load(undisturbed)
    finals = results.trials.filter(results.trials["role"] == "final")
    assert finals.height == 4
    runs = results.runs
    assert sorted(runs["seed"].to_list()) == [0, 0, 0, 0, 1, 1]
    assert set(finals["key"]) <= set(runs["key"])


def test_status_of_a_finished_sweep(undisturbed):
    shown = subprocess.run(
        [sys.executable, "-m", "harness.sweep", "status", f"store={undisturbed}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cam-tags" in shown.stdout
    assert "2/2" in shown.stdout


@pytest.mark.ray
def test_killed_twice_and_restarted_ends_with_equal_bytes(undisturbed, tmp_path):
    words = [
        "methods=cam,full",
        "search=rules",
        "trials=2",
        "seeds=2",
        f"store={tmp_path}",
        "mlflow=off",
        "checkpoint_every=3",
    ]
    for moment in ("train", "second run"):
        process = subprocess.Popen(command(*words), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(process, tmp_path, moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(*words), env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digest(harness.store.load(tmp_path)) == digest(harness.store.load(undisturbed))


def _wait_for(process: subprocess.Popen[bytes], store: Path, moment: str) -> None:
    """Until some run is in training, or a first one is in the store."""
    pattern = "work/*/progress.json" if moment == "train" else "runs/*.parquet"
    deadline = time.monotonic() + 240
    while not any(store.glob(pattern)):
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["methods=fsrr"], "did you mean fsr"),
        (["methods=cam", "data=shape"], "did you mean shapes"),
        (["methods=fsr", "fsr.mask_ration=.2"], "did you mean mask_ratio"),
        (["methods=fsr", "fsr.mask_low=.8"], "fsr.mask_low"),
        (["methods=fsr", "fsr.mask_ratio=1.5"], "mask_ratio"),
        (["methods=fsr", "fsr.w_seg=-1"], "w_seg"),
        (["methods=cam", "gpus=64"], "this machine has"),
        (["methods=cam", "batch=5", "group=2"], "no multiple of group"),
        (["methods=cam", "variant=released"], "no variant"),
        (["methods=cam", "data=folder", "data.root=/no/such/folder"], "/no/such/folder"),
        (["methods=cam", "backbone=vit_tinny_patch16_224"], "vit_tiny_patch16_224"),
        (["methods=cam", "backbone=vit_tiny_patch16_224", "backbone.weights=/no/file.safetensors"], "is no file"),
        (["methods=fsr", "backbone=resnet50", "backbone.weights=random"], "no plain ViT"),
        (["methods=fsr", "decoder=deeplabv2"], "does not work on the tokens of a ViT"),
        (["methods=toco", "crop=16"], "no room for 8 local crops"),
        (["method=cam"], "methods"),
        ([], "is not given"),
    ],
)
def test_bad_words_are_exit_code_2_before_anything_starts(words, said, tmp_path, capsys):
    assert main(run, [*words, f"store={tmp_path / 'store'}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "fix:" in error
    assert not (tmp_path / "store").exists()
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_words_methods_and_data_are_judged_at_once(capsys):
    assert main(run, ["methods=camm", "data=shape", "crop=big", "tier=labb", "foo=1"]) == 2
    error = capsys.readouterr().err
    for said in (
        "word 'foo': is unknown",
        "crop: 'big'",
        "did you mean lab",
        "did you mean cam",
        "did you mean shapes",
    ):
        assert said in error


def test_a_failed_run_is_a_row_and_exit_code_1(tmp_path):
    words = ["methods=cam,full", "ray=off", "mlflow=off", "trials=1", f"store={tmp_path}"]
    broken = sweep(*words, "cam.lr=1e30")
    assert broken.returncode == 1
    assert "not finite" in broken.stderr
    runs = harness.store.load(tmp_path).runs
    assert sorted(runs["status"].to_list()) == ["done", "failed"]
    failed = runs.filter(runs["status"] == "failed").row(0, named=True)
    assert failed["error_class"] == "bug"
    assert "NonFiniteLoss" in failed["error_message"]
