"""The rows of one run: absent, damaged, merged while they are read, or only some of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from store_samples import counts, sample

from harness.errors import StoreError
from harness.store import Store
from harness.store.files import check_version
from harness.store.maintenance import compact


def test_read_one_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("counts", "a", counts("a"))
    assert store.read("counts", "a").height == 3
    with pytest.raises(StoreError, match="no counts/b"):
        store.read("counts", "b")
    store.path("counts", "a").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"a\.parquet cannot be read"):
        store.read("counts", "a")


def test_a_file_that_is_merged_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for key in "ab":
        store.write("runs", key, sample("runs", 1).with_columns(key=pl.lit(key), status=pl.lit("done")))
        store.write("params", key, sample("params").with_columns(key=pl.lit(key)))
    listed = []

    def merging(file: Path) -> None:
        if not listed:
            listed.append(file)
            compact(tmp_path)
        check_version(file)

    monkeypatch.setattr("harness.store.reading.check_version", merging)
    assert store.read("params", "b")["key"].to_list() == ["b", "b"]
    assert listed == [store.path("params", "b")]
    assert not store.path("params", "b").exists()


def test_of_a_file_only_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in "ab":
        store.write("counts", key, pl.concat([counts(f"{key}1"), counts(f"{key}2", 2)]))
        store.write("evals", key, sample("evals", 1).with_columns(key=pl.lit(key), eval=pl.lit(f"{key}1")))
        store.write("runs", key, sample("runs", 1).with_columns(key=pl.lit(key), status=pl.lit("done")))
    assert store.read("counts", "b", pl.col("eval") == "b2")["image"].to_list() == ["i0", "i1"]
    assert store.read("counts", "b", pl.col("eval") == "a1").is_empty()
