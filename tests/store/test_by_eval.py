"""Rows of an eval without a filter, merged files that are not listed at every write, many files read in one pass."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from store_samples import add_run, sample

from harness.store import Store, files, load, maintenance, reading
from harness.store.by_eval import ByEval
from harness.store.schema import SCHEMAS


def _counts(name: str, images: int) -> pl.DataFrame:
    rows = [{"eval": name, "image": f"i{n}", "class": 0, "tp": n, "fp": 1, "fn": 2} for n in range(images)]
    return pl.DataFrame(rows, schema=SCHEMAS["counts"])


def test_slices_are_what_a_filter_gives_also_of_an_eval_in_two_places() -> None:
    table = pl.concat([_counts("b", 3), _counts("a", 2), _counts("b", 1), _counts("c", 4)], rechunk=False)
    by_eval = ByEval(table)
    assert list(by_eval) == ["b", "a", "c"]
    assert len(by_eval) == 3
    for name in by_eval:
        assert by_eval[name].equals(table.filter(pl.col("eval") == name))
    assert by_eval.of(["c", "lost", "a", "c"]).equals(pl.concat([_counts("c", 4), _counts("a", 2)]))
    assert by_eval.of([]).schema == table.schema
    with pytest.raises(KeyError):
        by_eval["lost"]


def test_an_empty_table_has_no_evals() -> None:
    assert dict(ByEval(pl.DataFrame(schema=SCHEMAS["counts"]))) == {}


def test_a_table_of_many_files_is_one_chunk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n in range(5):
        store.write("counts", f"e{n}", _counts(f"e{n}", 2))
    assert load(tmp_path, ["counts"]).counts.n_chunks() == 1


def test_writing_lists_no_folder_but_once_and_sees_what_is_merged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, listed = Store(tmp_path), []
    real = files.list_files

    def watched(root: Path, table: str) -> list[Path]:
        listed.append(table)
        return real(root, table)

    monkeypatch.setattr(files, "list_files", watched)
    for n in range(4):
        store.write("counts", f"e{n}", _counts(f"e{n}", 2))
    assert listed == ["counts"]
    for n in range(4):
        store.write("evals", f"e{n}", sample("evals", 1).with_columns(eval=pl.lit(f"e{n}"), key=pl.lit("k")))
    store.write("runs", "k", sample("runs", 1).with_columns(key=pl.lit("k"), status=pl.lit("done")))
    assert maintenance.compact(tmp_path)
    assert not store.path("counts", "e2").exists()
    assert store.has("counts", "e2")
    assert not store.has("counts", "e9")


def test_rows_of_a_few_runs_are_read_from_their_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are written under the run, of a later scoring under the eval; rungs have names of their own."""
    store = Store(tmp_path)
    for key in ("k0", "k1", "k2"):
        add_run(store, key)
    again = sample("evals", 1).with_columns(eval=pl.lit("x9"), key=pl.lit("k1"))
    store.write("evals", "x9", again)
    store.write("counts", "x9", _counts("x9", 2))
    step = sample("steps", 1).with_columns(key=pl.lit("k1"))
    store.write("steps", "k1-rung50", step)
    opened: list[Path] = []
    real = reading.scan_files

    def watched(table: str, found: list[Path], path_column: str | None = None) -> pl.LazyFrame:
        opened.extend(found)
        return real(table, found, path_column)

    monkeypatch.setattr(reading, "scan_files", watched)
    found = reading.load_of(tmp_path, ("counts", "steps", "params"), keys=["k1"], evals=["ek1", "x9"])
    assert set(found.counts["eval"]) == {"ek1", "x9"}
    assert found.steps.equals(step)
    assert set(found.params["key"]) == {"k1"}
    assert {p.stem for p in opened} == {"k1", "x9", "k1-rung50"}
    maintenance.compact(tmp_path)
    merged = reading.load_of(tmp_path, ("counts",), keys=["k1"], evals=["ek1", "x9"])
    assert merged.counts.sort("eval", "image").equals(found.counts.sort("eval", "image"))


def test_one_damaged_file_among_many_is_named_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n in range(6):
        store.write("counts", f"e{n}", _counts(f"e{n}", 2))
    store.path("counts", "e3").write_bytes(store.path("counts", "e3").read_bytes()[:-9])
    assert [item.path.name for item in reading.find_damaged(tmp_path, "counts")] == ["e3.parquet"]


@pytest.mark.parametrize("version", ["1", "99", "x"])
def test_the_version_is_read_from_the_end_of_a_file_and_from_all_of_it_alike(tmp_path: Path, version: str) -> None:
    path = tmp_path / "x.parquet"
    _counts("e", 3).write_parquet(path, metadata={"schema_version": version})
    assert files._says_today(path) == (version == "1")
    assert bool(files.why_left_out(path)) == (version != "1")
    path.write_bytes(path.read_bytes()[:-4])
    assert not files._says_today(path)
