"""Merging, dropping and checking: rows never change, whatever is interrupted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from store_samples import add_run, counts, files_of, same, sample, with_outputs

from harness.cli.parsing import main
from harness.errors import StoreError
from harness.store import Store, StoreWarning, digest, load, maintenance, merging, reading
from harness.store.__main__ import run
from harness.store.files import in_pieces, write_atomic
from harness.store.maintenance import _alone, compact, compact_many, reopen, verify
from harness.store.reading import read_files


def filled(root: Path, keys: str = "abcd") -> Store:
    store = Store(root)
    for key in keys:
        add_run(store, key)
    return store


def test_compact_changes_no_row(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = load(tmp_path)
    made = compact(tmp_path)
    assert {p.parent.name for p in made} == {"runs", "params", "evals", "counts", "curves"}
    assert sum(name.endswith(".parquet") for name in files_of(tmp_path)) == 5
    assert same(load(tmp_path), before)
    assert digest(load(tmp_path)) == digest(before)
    assert compact(tmp_path) == []
    for key in "abcd":
        assert store.has("counts", key)
        assert store.read("counts", key).equals(before.counts.filter(pl.col("eval") == f"e{key}"))
    assert not store.has("counts", "z")
    add_run(store, "e")
    compact(tmp_path)
    assert len(list((tmp_path / "counts").iterdir())) == 1
    assert load(tmp_path).counts.height == 15
    assert verify(tmp_path).sound


def test_merged_files_are_still_written_once(tmp_path: Path) -> None:
    store = filled(tmp_path)
    compact(tmp_path)
    before = files_of(tmp_path)
    store.write("counts", "a", counts("ea"))
    assert files_of(tmp_path) == before
    with pytest.raises(StoreError, match="already written"):
        store.write("counts", "a", counts("ea", 5))
    again = sample("runs", 1).with_columns(key=pl.lit("a"), status=pl.lit("failed"))
    assert store.write("runs", "a", again, again=True).stem == "a~2"


@pytest.mark.parametrize(("together", "at_last"), [(256, 1), (3, 2), (2, 2)])
@pytest.mark.parametrize("removals", [0, 1, 3])
def test_compact_that_dies_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int, together: int, at_last: int
) -> None:
    """Also where the merged file and what it holds would come to different pieces the next time."""
    filled(tmp_path)
    before = load(tmp_path)
    monkeypatch.setattr(merging, "TOGETHER", together)
    unlink, left = Path.unlink, [removals]

    def dying(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".parquet":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            compact(tmp_path)
    assert any("compact-" in name for name in files_of(tmp_path))
    assert same(load(tmp_path), before)
    compact(tmp_path)
    assert same(load(tmp_path), before)
    assert len(list((tmp_path / "counts").iterdir())) == at_last
    assert not any(name.endswith("/a.parquet") for name in files_of(tmp_path))


def tables_of(root: Path) -> set[str]:
    """Those with a merged file."""
    return {Path(name).parent.name for name in files_of(root) if "compact-" in name}


def test_merging_that_fails_is_told_and_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    before = load(tmp_path)
    monkeypatch.setattr(maintenance, "MANY", 2)
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".parquet" and self.parent.name == "evals":
            raise PermissionError(errno.EPERM, "not permitted")
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(StoreError, match="could not be merged"):
            compact_many(tmp_path)
    assert "runs" not in tables_of(tmp_path), "merged last: its files apart tell that something is left to do"
    assert same(load(tmp_path), before)
    assert compact_many(tmp_path)
    assert tables_of(tmp_path) == {"runs", "params", "evals", "counts", "curves"}
    assert same(load(tmp_path), before)


def test_a_reader_waits_while_files_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    scan, misses = reading.scan_files, [7]

    def moving(*words: Any) -> pl.LazyFrame:
        misses[0] -= 1
        if misses[0] >= 0:
            raise FileNotFoundError("merged away")
        return scan(*words)

    monkeypatch.setattr(reading, "scan_files", moving)
    assert load(tmp_path, ["runs"]).runs.height == 4
    misses[0] = 1000
    monkeypatch.setattr(reading, "_PATIENCE_S", 0.1)
    with pytest.raises(StoreError, match="kept changing"):
        load(tmp_path, ["runs"])


def test_two_merged_files_that_overlap_count_once(tmp_path: Path) -> None:
    store = filled(tmp_path, "ab")
    compact(tmp_path)
    old = next((tmp_path / "counts").iterdir())
    kept = old.read_bytes()
    add_run(store, "c")
    compact(tmp_path)
    old.write_bytes(kept)
    assert load(tmp_path).counts.height == 9


def test_full_disk_while_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    before = files_of(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full"):
            compact(tmp_path)
    after = files_of(tmp_path)
    after.pop(".maintenance.lock")
    assert after == before


def test_files_that_may_be_written_anew_are_not_merged(tmp_path: Path) -> None:
    store = filled(tmp_path, "ab")
    store.write("counts", "orphan", counts("lost"))
    add_run(store, "p", "pruned")
    compact(tmp_path)
    assert {p.stem for p in (tmp_path / "counts").iterdir() if "compact" not in p.name} == {"orphan", "p"}
    store.path("counts", "orphan").unlink()
    store.write("counts", "orphan", counts("lost", 7))
    assert load(tmp_path).counts.height == 16


def test_compact_sets_damaged_files_aside(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.path("counts", "b").write_bytes(b"broken")
    with pytest.warns(StoreWarning, match=r"counts/b\.parquet"):
        compact(tmp_path)
    assert load(tmp_path).counts.height == 9


def test_merged_file_without_its_contents_is_damaged(tmp_path: Path) -> None:
    filled(tmp_path)
    counts("x").with_columns(pl.col("class").cast(pl.Int16)).write_parquet(tmp_path / "counts" / "compact-0.parquet")
    assert [d.path.name for d in verify(tmp_path).damaged] == ["compact-0.parquet"]
    with pytest.warns(StoreWarning, match="does not say what it holds"):
        assert load(tmp_path).counts.height == 12


def test_compact_reads_and_merges_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, "abcdef")
    before = load(tmp_path)
    size = store.path("counts", "a").stat().st_size
    monkeypatch.setattr("harness.store.merging.PIECE", 4 * size - 1)
    largest = []

    def watched(table: str, files: list[Path], column: str | None = None) -> pl.DataFrame:
        largest.append(len(files) if table == "counts" else 0)
        return read_files(table, files, column)

    monkeypatch.setattr("harness.store.merging.read_files", watched)
    compact(tmp_path)
    assert max(largest) == 3
    assert len(list((tmp_path / "counts").iterdir())) == 2
    assert same(load(tmp_path), before)
    monkeypatch.setattr("harness.store.merging.PIECE", size)
    assert compact(tmp_path) == [], "files as large as a piece stay as they are"


@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_a_run_is_taken_out_of_merged_files_to_be_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Also where the process dies after any number of steps."""
    store = filled(tmp_path, "abc")
    before = load(tmp_path)
    compact(tmp_path)
    left = [steps]

    def counted(function: Any) -> Any:
        def dying(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return dying

    with monkeypatch.context() as patch:
        patch.setattr("harness.store.merging.write_atomic", counted(write_atomic))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            reopen(tmp_path, "b")
    assert same(load(tmp_path), before)
    reopen(tmp_path, "b")
    assert same(load(tmp_path), before)
    for table in ("evals", "counts", "params", "curves"):
        assert store.path(table, "b").exists()
    store.path("counts", "b").unlink()
    assert not store.has("counts", "b")
    assert load(tmp_path).counts.height == 6


def test_one_maintenance_at_a_time(tmp_path: Path) -> None:
    filled(tmp_path)
    with _alone(tmp_path), pytest.raises(StoreError, match="another compact or gc"):
        compact(tmp_path)
    compact(tmp_path)


def test_pieces_hold_so_many_bytes_and_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abcdef"]
    for file, size in zip(files, (5, 5, 5, 20, 1), strict=False):
        file.write_bytes(b"x" * size)
    assert not files[-1].exists()
    a, b, c, d, e, gone = files
    assert list(in_pieces(files, 10)) == [[a, b], [c], [d], [e, gone]]
    assert list(in_pieces(files, 100, 4)) == [[a, b, c, d], [e, gone]]
    assert list(in_pieces([], 10)) == []


def test_many_files_are_merged_and_few_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(maintenance, "MANY", 4)
    assert compact_many(tmp_path) == []
    add_run(Store(tmp_path), "e")
    before = load(tmp_path)
    with _alone(tmp_path):
        assert compact_many(tmp_path) == []
    assert len(compact_many(tmp_path)) == 5
    assert same(load(tmp_path), before)
    assert compact_many(tmp_path) == [], "files that are merged do not lie apart"


def test_verify_names_and_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert verify(tmp_path).sound
    store.path("curves", "c").write_bytes(b"broken")
    store.path("counts", "d").unlink()
    before = files_of(tmp_path)
    report = verify(tmp_path)
    assert [d.path for d in report.damaged] == [store.path("curves", "c")]
    assert report.incomplete == ("ed",)
    assert report.files == 19
    assert files_of(tmp_path) == before


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = with_outputs(tmp_path)
    word = f"store={tmp_path}"
    assert main(run, ["verify", word]) == 0
    assert "0 damaged" in capsys.readouterr().out
    assert main(run, ["gc", word, "keep=none"]) == 0
    assert "MiB freed" in capsys.readouterr().out
    assert main(run, ["compact", word]) == 0
    assert "merged files written" in capsys.readouterr().out
    assert main(run, ["compact", word]) == 0
    assert "nothing to merge" in capsys.readouterr().out
    store.write("claims", "x", sample("claims")).write_bytes(b"broken")
    assert main(run, ["verify", word]) == 1
    assert "claims/x.parquet" in capsys.readouterr().out


def test_help_and_bad_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("export-mlflow", "compact", "gc", "verify", "store=", "mlflow=", "keep="))
    assert main(run, ["compakt"]) == 2
    assert "compact" in capsys.readouterr().err
    assert main(run, ["verify", f"store={tmp_path / 'none'}"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(run, ["verify", f"store={tmp_path}", "keep=none"]) == 2
    assert main(run, ["export-mlflow", f"store={tmp_path}", "mlflow=off"]) == 2
