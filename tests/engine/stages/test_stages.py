"""Stages that several processes are at: turns, locks on folders that are gone, and what is left to whom."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import files
from harness.engine import turns
from harness.engine.checkpoint import STEPS, WEIGHTS, Artifact
from harness.engine.session import LocalSession
from harness.engine.stages import stage as stages
from harness.errors import StoreError


@dataclass
class Place:
    """As much of a context as taking turns needs."""

    session: LocalSession
    told: list[str] = field(default_factory=list)
    run: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(total=3))
    machine: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(keep=("none",)))
    in_use: ExitStack = field(default_factory=ExitStack)
    read: frozenset[str] = frozenset()

    def report_progress(self, stage: str, step: int, total: int) -> None:
        self.told.append(stage)


def at(folder, place, stage):
    """A turn as a stage takes it."""
    return turns.turn(folder, place.session, lambda: place.report_progress(f"waiting for {stage}", 0, place.run.total))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.0)


def test_a_folder_is_one_processs_at_a_time(tmp_path):
    with at(tmp_path / "s", Place(LocalSession()), "train"):
        assert turns.lock(tmp_path / "s") is None
    again = turns.lock(tmp_path / "s")
    assert again is not None
    again.close()


def test_a_lock_in_a_removed_folder_is_taken_anew(tmp_path, monkeypatch):
    """The holder ends with keep=none between our opening the file and our locking it."""
    folder, real = tmp_path / "s", files.fcntl.flock
    removed: list[Path] = []

    def flock(handle, how):
        if not removed:
            removed.append(folder)
            shutil.rmtree(folder)
        real(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    place = Place(LocalSession())
    with at(folder, place, "train"):
        assert removed == [folder]
        assert place.told == ["waiting for train"]
        assert turns.lock(folder) is None, "the lock is on the file that others open"


def test_a_waiting_run_goes_on_when_the_folder_before_it_is_removed(tmp_path):
    folder, place = tmp_path / "s", Place(LocalSession())
    holder = turns.lock(folder)
    assert holder is not None

    def report_progress(stage, step, total):
        place.told.append(stage)
        if len(place.told) == 3:
            shutil.rmtree(folder)
            holder.close()

    place.report_progress = report_progress
    with at(folder, place, "train"):
        assert len(place.told) == 3
        assert turns.lock(folder) is None


def test_all_workers_look_together(tmp_path, monkeypatch):
    """Peers of a waiting first worker: one short collective for each look, and no file of their own."""
    answers, seen = [False, False, True], []

    def gather(value, session):
        seen.append(value)
        return [answers[len(seen) - 1], value]

    monkeypatch.setattr(turns, "gather_objects", gather)
    with at(tmp_path / "s", Place(LocalSession(rank=1, world_size=2)), "train"):
        assert seen == [False, False, False]
    assert not (tmp_path / "s").exists()


def test_what_another_process_works_on_is_not_cleaned(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / WEIGHTS).write_text("w")
    outputs = {"net": Artifact(folder / WEIGHTS, "d"), "train.losses": Artifact(folder / STEPS, "d")}
    holder = turns.lock(folder)
    assert holder is not None
    stages.clean(Place(LocalSession()), outputs)
    assert (folder / WEIGHTS).exists()
    holder.close()
    stages.clean(Place(LocalSession()), outputs)
    assert not folder.exists()


def test_what_another_run_reads_is_dropped_by_the_last_one(tmp_path):
    folder, stage = tmp_path / "s", stages.Outputs(name="write-cams", outputs={"cams": "cams"})
    outputs = {"cams": Artifact(folder / "cams", "d")}
    first, second = Place(LocalSession()), Place(LocalSession())
    for place in (first, second):
        with at(folder, place, "write-cams"):
            stages._use(folder, stage, place)
    stages.clean(first, outputs)
    assert folder.exists(), "the second run reads its maps from there"
    stages.clean(second, outputs)
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write into .*/file/s"):
        turns.lock(tmp_path / "file" / "s")


def made(folder):
    """A finished stage with a file and a folder of maps."""
    stage = stages.Outputs(name="write-cams", outputs={"weights": "w.safetensors", "cams": "cams"})
    (folder / "cams").mkdir(parents=True)
    (folder / "w.safetensors").write_bytes(b"weights")
    for name in ("a.npz", "b.npz"):
        (folder / "cams" / name).write_bytes(name.encode())
    return stage, stages._finish(folder, stage, "k", 1.5)


def test_what_is_whole_is_taken_from_the_cache(tmp_path):
    stage, found = made(tmp_path)
    assert set(found.outputs) == {"weights", "cams"}
    assert (found.run, found.seconds) == ("k", 1.5)
    assert stages._finished(tmp_path, stage) == found


DAMAGES = {
    "a flipped bit": (lambda f: (f / "w.safetensors").write_bytes(b"weighus"), "w.safetensors is not what was written"),
    "no bytes": (lambda f: (f / "w.safetensors").write_bytes(b""), "w.safetensors is not what was written"),
    "gone": (lambda f: (f / "w.safetensors").unlink(), "w.safetensors is gone"),
    "a map": (lambda f: (f / "cams" / "b.npz").write_bytes(b"b.npy"), "cams is not what was written"),
    "a map less": (lambda f: (f / "cams" / "b.npz").unlink(), "cams is not what was written"),
    "no list": (lambda f: (f / "done.json").write_text("[3]"), "done.json cannot be read"),
    "half a list": (lambda f: (f / "done.json").write_text('{"weights": '), "done.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_disk_has_damaged_is_made_again_and_named(tmp_path, capsys, damage):
    stage, _ = made(tmp_path)
    spoil, why = DAMAGES[damage]
    spoil(tmp_path)
    assert stages._finished(tmp_path, stage) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}/{why}")
    assert line.endswith(": stage write-cams is made again")
    assert not list(tmp_path.iterdir()), "nothing of it is left to be taken for whole"


def test_a_stage_is_done_only_with_all_that_it_makes(tmp_path):
    stage, _ = made(tmp_path)
    (tmp_path / "done.json").unlink()
    (tmp_path / "w.safetensors").unlink()
    assert stages._finish(tmp_path, stage, "k", 0.0) is None
    assert not (tmp_path / "done.json").exists()
