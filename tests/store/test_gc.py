"""Dropping what is not kept: never rows, nothing of runs that are not done, nothing outside the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_samples import add_run, files_of, same, with_outputs

from harness.errors import BadInput
from harness.store import load
from harness.store.maintenance import gc


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
