"""Merging, dropping and checking: rows never change, whatever is interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from store_samples import counts, files_of, same, sample

from harness.errors import BadInput, StoreError
from harness.store import Store, StoreWarning, digest, load
from harness.store.__main__ import run
from harness.store.files import write_atomic
from harness.store.maintenance import _alone, compact, gc, reopen, verify
from harness.store.reading import read_files
from harness.words import main


def add_run(store: Store, key: str, status: str = "done", artifacts: dict[str, str] | None = None) -> None:
    """A made-up run with all its tables, in the engine's order: `runs` last."""
    named = {"key": pl.lit(key)}
    store.write("params", key, sample("params", 3).with_columns(**named))
    store.write("evals", key, sample("evals", 1).with_columns(**named, eval=pl.lit(f"e{key}"), images=3))
    store.write("counts", key, counts(f"e{key}"))
    store.write("curves", key, sample("curves", 4).with_columns(eval=pl.lit(f"e{key}")))
    for kind, path in (artifacts or {}).items():
        row = pl.DataFrame({"key": key, "kind": kind, "path": path, "digest": "d"})
        store.write("artifacts", f"{key}-{kind}", row)
    store.write("runs", key, sample("runs", 1).with_columns(**named, status=pl.lit(status)), again=True)


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


@pytest.mark.parametrize("removals", [0, 1, 3])
def test_compact_that_dies_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int) -> None:
    filled(tmp_path)
    before = load(tmp_path)
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
    assert len(list((tmp_path / "counts").iterdir())) == 1


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


def with_outputs(root: Path) -> Store:
    """Two done runs and one that is not, each with weights, maps, a picture and a work folder."""
    store = Store(root)
    for key, status in (("a", "done"), ("b", "done"), ("f", "failed")):
        paths = {
            "weights": f"cache/s{key}/weights.safetensors",
            "cams": f"cache/c{key}/cams",
            "example": f"work/{key}/example.png",
        }
        for path in (*paths.values(), f"work/{key}/progress.json", f"cache/s{key}/training.json"):
            target = root / path / "0.npy" if path.endswith("cams") else root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"x" * 100)
        add_run(store, key, status, paths)
    (root / "cache" / "unnamed").mkdir()
    (root / "cache" / "unnamed" / "done.json").write_text("{}")
    return store


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("last,best", {"cache/sa", "cache/sb"}),
        ("best", {"cache/sa", "cache/sb"}),
        ("maps", {"cache/ca", "cache/cb", "cache/unnamed"}),
        ("last,maps", {"cache/sa", "cache/sb", "cache/ca", "cache/cb", "cache/unnamed"}),
        ("none", set()),
    ],
)
def test_gc_drops_what_keep_does_not_name(tmp_path: Path, keep: str, left: set[str]) -> None:
    with_outputs(tmp_path)
    before = load(tmp_path)
    size = sum(len(c) for c in files_of(tmp_path).values())
    dropped = gc(tmp_path, keep, idle_seconds=-1)
    found = {str(p.relative_to(tmp_path)) for p in (tmp_path / "cache").iterdir()}
    assert found == left | {"cache/sf", "cache/cf"}
    assert sum(len(c) for c in files_of(tmp_path).values()) == size - dropped.size
    assert {str(p.relative_to(tmp_path)) for p in (tmp_path / "work").rglob("*") if p.is_file()} == {
        "work/a/example.png", "work/b/example.png", "work/f/example.png", "work/f/progress.json"
    }  # fmt: skip
    assert same(load(tmp_path), before)
    assert gc(tmp_path, keep, idle_seconds=-1).paths == ()


def test_gc_leaves_shared_recent_and_foreign_files(tmp_path: Path) -> None:
    store = with_outputs(tmp_path / "store")
    shared = {"weights": "cache/sa/weights.safetensors"}
    add_run(store, "g", "failed", shared)
    outside = tmp_path / "precious"
    outside.write_text("x")
    add_run(store, "h", "done", {"weights": str(outside), "cams": "../precious", "other": "counts"})
    store.path("counts", "h").with_name(".h.parquet.1.x.tmp").write_text("half")
    dropped = gc(tmp_path / "store", "none")
    assert (tmp_path / "store" / "cache" / "sa" / "weights.safetensors").exists()
    assert not (tmp_path / "store" / "cache" / "sb").exists()
    assert outside.exists()
    assert load(tmp_path / "store").counts.height == 15
    assert dropped.recent == 1
    gc(tmp_path / "store", "none", idle_seconds=-1)
    assert not list((tmp_path / "store").rglob("*.tmp"))


def test_gc_beside_a_run_that_removes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_outputs(tmp_path)
    listed, found = Path.rglob, []

    def vanishing(self: Path, pattern: str) -> list[Path]:
        files = list(listed(self, pattern))
        if self.name in ("unnamed", "a"):
            found.extend(files)
            for file in files:
                file.unlink(missing_ok=True)
        return files

    monkeypatch.setattr(Path, "rglob", vanishing)
    dropped = gc(tmp_path, "none", idle_seconds=3600)
    assert {f.name for f in found} == {"done.json"}
    assert tmp_path / "cache" / "unnamed" not in dropped.paths
    assert dropped.recent == 1


def test_gc_refuses_unknown_words(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'lats' is unknown\n.*last"):
        gc(tmp_path, "lats")


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
