"""Writing and reading the store, and what happens to it when disks fill, files break and processes die."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from store_samples import counts, files_of, sample

from harness.errors import BadInput, StoreError
from harness.store import SCHEMA_VERSION, SCHEMAS, Results, Store, StoreWarning, digest, latest_runs, load
from harness.store.files import NewerFile
from harness.store.maintenance import compact, gc, verify
from harness.store.rows import json_of

V1 = Path(__file__).parent / "schema_v1"


def test_every_table_goes_round(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for table in SCHEMAS:
        path = store.write(table, "x", sample(table))
        assert path == tmp_path / table / "x.parquet" == store.path(table, "x")
        assert store.has(table, "x")
        assert not store.has(table, "y")
        assert pl.read_parquet_metadata(path)["schema_version"] == str(SCHEMA_VERSION)
    results = load(tmp_path)
    for table, schema in SCHEMAS.items():
        assert getattr(results, table).equals(sample(table))
        assert dict(getattr(results, table).schema) == schema


def test_empty_store_is_typed(tmp_path: Path) -> None:
    results = load(tmp_path / "nothing")
    for table, schema in SCHEMAS.items():
        assert dict(getattr(results, table).schema) == schema
        assert getattr(results, table).height == 0
    assert not (tmp_path / "nothing").exists()


def test_the_fixed_columns() -> None:
    assert list(SCHEMAS) == ["runs", "trials", "params", "evals", "counts", "curves", "steps", "artifacts", "claims"]
    assert list(SCHEMAS["counts"].items()) == [
        ("eval", pl.Utf8), ("image", pl.Utf8), ("class", pl.Int16), ("tp", pl.Int64), ("fp", pl.Int64), ("fn", pl.Int64)
    ]  # fmt: skip
    assert len(SCHEMAS["runs"]) == 31
    assert len(SCHEMAS["evals"]) == 16


def test_schema_version_one_opens(tmp_path: Path) -> None:
    """One file per table, written by the writer of version 1; they must open for ever."""
    results = load(V1)
    for table in SCHEMAS:
        written = pl.read_parquet(V1 / table / "sample.parquet")
        found = getattr(results, table)
        assert found.height == 2
        assert found.select(written.columns).equals(written)
        assert written.equals(sample(table).select(written.columns))


def test_older_version_with_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    old = sample("evals").drop("fusion", "seconds").with_columns(pl.col("step").cast(pl.Int32))
    old.write_parquet(tmp_path / "evals" / "a.parquet", metadata={"schema_version": "0"})
    Store(tmp_path).write("evals", "b", sample("evals", 4).tail(2))
    found = load(tmp_path).evals.sort("step")
    assert dict(found.schema) == SCHEMAS["evals"]
    assert sorted(found["fusion"].is_null()) == [False, False, True, True]
    assert sorted(found["step"]) == sorted(sample("evals", 4)["step"])


def foreign(root: Path, kind: str) -> Path:
    """A file of the table evals that this harness cannot read, and that is not damaged."""
    (root / "evals").mkdir(parents=True, exist_ok=True)
    path = root / "evals" / "a.parquet"
    if kind == "newer":
        sample("evals").with_columns(more=pl.lit(1)).write_parquet(path, metadata={"schema_version": "99"})
    else:
        path.symlink_to(root / "not mounted" / "a.parquet")
    return path


def unchanged(path: Path) -> tuple[int, int, int]:
    """What a write would change of a file or a link; that it was read is none of it."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize(("kind", "says"), [("newer", "schema version 99"), ("link", "not mounted/a.parquet, where")])
def test_one_foreign_file_blocks_no_other_and_is_left_alone(tmp_path: Path, kind: str, says: str) -> None:
    path = foreign(tmp_path, kind)
    store, before = Store(tmp_path), unchanged(path)
    for name in ("b", "c"):
        rows = sample("evals", 1).with_columns(eval=pl.lit(name), key=pl.lit(name))
        store.write("evals", name, rows)
        store.write("runs", name, sample("runs", 1).with_columns(key=pl.lit(name), status=pl.lit("done")))
    with pytest.warns(StoreWarning, match=says):
        assert sorted(load(tmp_path).evals["eval"]) == ["b", "c"]
    with pytest.warns(StoreWarning, match=says):
        assert [p.parent.name for p in compact(tmp_path)] == ["evals", "runs"]
    with pytest.warns(StoreWarning, match=says):
        assert sorted(load(tmp_path).evals["eval"]) == ["b", "c"]
    assert unchanged(path) == before
    report = verify(tmp_path)
    assert [says in why for why in report.left_out] == [True]
    assert (report.damaged, report.sound) == ((), False)
    with pytest.raises(StoreError, match=f"nothing is dropped while .*{says}"):
        gc(tmp_path, "none")


def test_a_newer_file_is_not_read_by_name_nor_written_over(tmp_path: Path) -> None:
    path = foreign(tmp_path, "newer")
    before = path.read_bytes()
    with pytest.raises(NewerFile, match="update it"):
        Store(tmp_path).read("evals", "a")
    with pytest.raises(NewerFile, match="update it"):
        Store(tmp_path).write("evals", "a", sample("evals"), again=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[1]", '"a"', "[" * 100_000, "nul", '{"a": 1}}'])
def test_json_that_is_none_is_named(text: str) -> None:
    with pytest.raises(StoreError, match=r"run k7: its config is (no JSON|JSON, but a \w+ and no object)"):
        json_of({"key": "k7", "config": text}, "config")
    assert json_of({"key": "k7", "config": None}, "config") == {}
    assert json_of({"key": "k7", "config": '{"a": 1}'}, "config") == {"a": 1}


@pytest.mark.parametrize("name", ["st [1]", "gl_*", "gl_?", "100%", "a#b", "a b"])
def test_a_store_of_any_name_is_read_by_its_name(tmp_path: Path, name: str) -> None:
    """Beside stores whose names the pattern would match."""
    for folder in (name, "gl_a", "gl_b", "st 1"):
        Store(tmp_path / folder).write("counts", "e", counts(folder))
        Store(tmp_path / folder).write("runs", "k", sample("runs", 1).with_columns(status=pl.lit("done")))
    for place in (tmp_path / name, (tmp_path / name).as_uri()):
        assert set(load(place).counts["eval"]) == {name}
        assert Store(place).read("counts", "e").height == 3
    Store(tmp_path / name).write("counts", "f", counts("f"))
    compact(tmp_path / name)
    assert load(tmp_path / name).counts.height == 6
    assert verify(tmp_path / name).files == 3


def test_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write("counts", "e", counts())
    stamp = path.stat().st_mtime_ns
    assert store.write("counts", "e", counts()) == path
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(StoreError, match="already written, with other content"):
        store.write("counts", "e", counts(rows=4))
    assert load(tmp_path).counts.height == 3


def test_again_keeps_every_attempt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = sample("runs", 1)

    def attempt(status: str, started: str) -> pl.DataFrame:
        return row.with_columns(key=pl.lit("k"), status=pl.lit(status), started=pl.lit(started))

    first = store.write("runs", "k", attempt("failed", "2026-01-01T10:00:00+00:00"))
    assert store.write("runs", "k", attempt("done", "2026-01-01T09:00:00+00:00"), again=True).stem == "k~2"
    assert store.write("runs", "k", attempt("failed", "2026-01-01T10:00:00+00:00"), again=True) == first
    assert store.write("runs", "k", attempt("failed", "2026-01-01T12:30:00+02:00"), again=True).stem == "k~3"
    runs = load(tmp_path).runs
    assert runs.height == 3
    assert latest_runs(runs)["status"].to_list() == ["done"]
    failed = latest_runs(runs.filter(pl.col("status") == "failed"))
    assert failed["started"].to_list() == ["2026-01-01T12:30:00+02:00"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop("tp"), r"missing columns \['tp'\]"),
        (lambda d: d.with_columns(extra=1), r"unknown columns \['extra'\]"),
        (lambda d: d.with_columns(pl.col("class") + 40000), "does not fit"),
        (lambda d: d.with_columns(tp=0.5), "fractions"),
        (lambda d: d.with_columns(tp=float("nan")), "does not fit|fractions"),
        (lambda d: d.with_columns(tp=pl.lit("1")), "holds String"),
        (lambda d: d.with_columns(image=pl.lit("same")), "two rows with the same eval, image, class"),
        (lambda d: d.with_columns(image=None), r"null in \['image'\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        Store(tmp_path).write("counts", "e", change(counts()))
    assert files_of(tmp_path) == {}


def test_whole_floats_and_categories_fit(tmp_path: Path) -> None:
    frame = counts().with_columns(pl.col("tp").cast(pl.Float64), pl.col("image").cast(pl.Categorical))
    Store(tmp_path).write("counts", "e", frame)
    assert load(tmp_path).counts["tp"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "compact-1", "a b"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a file"):
        Store(tmp_path).write("counts", name, counts())
    with pytest.raises(StoreError, match="no table 'scores'"):
        Store(tmp_path).write("scores", "x", counts())


@pytest.mark.parametrize("call", ["fsync", "replace", "write", "open"])
def test_full_disk_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = Store(tmp_path)
    store.write("counts", "a", counts("a"))
    before = files_of(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: Any) -> None:
        raise full

    def half(path: Path, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise full

    with monkeypatch.context() as patch:
        if call in ("fsync", "replace"):
            patch.setattr(os, call, fail)
        else:
            patch.setattr(Path, "write_bytes", half if call == "write" else fail)
        with pytest.raises(StoreError, match="the disk is full"):
            store.write("counts", "b", counts("b"))
        with pytest.raises(BadInput, match="the disk is full"):
            store.check_writable()
    assert files_of(tmp_path) == before
    store.write("counts", "b", counts("b"))
    assert load(tmp_path).counts.height == 6


def test_real_file_size_limit(tmp_path: Path) -> None:
    """The system itself refuses a large file; a small one still goes in."""
    code = """
import resource, sys, polars as pl
from harness.errors import StoreError
from harness.store import Store
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
frame = lambda n: pl.DataFrame({"key": [f"{i * 2654435761 % 2**32:x}" for i in range(n)], "knob": "k",
                                "value": 0.5, "text": ""})
try:
    store.write("params", "large", frame(20000))
except StoreError as error:
    assert "larger than the system allows" in str(error), error
    store.write("params", "small", frame(10))
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert list(files_of(tmp_path)) == ["params/small.parquet"]


def test_root_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file/below", f"file://{tmp_path}/file"):
        with pytest.raises(BadInput, match="file is a file, no folder"):
            Store(root)
    with pytest.raises(BadInput, match="not a folder"):
        Store("s3://bucket/results")
    assert Store(f"file://{tmp_path}/a%20b").root == tmp_path / "a b"
    Store(tmp_path / "new" / "store").check_writable()
    assert files_of(tmp_path / "new") == {}


def test_half_written_files_are_ignored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write("counts", "e", counts())
    (path.parent / ".f.parquet.123.abc.tmp").write_bytes(path.read_bytes()[:100])
    (path.parent / "notes.txt").write_text("not a table")
    assert load(tmp_path).counts.height == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "footer", "columns"])
def test_damaged_file_is_named_and_set_aside(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    for name in "abc":
        store.write("counts", name, counts(name))
    path = store.path("counts", "b")
    content = path.read_bytes()
    broken = {
        "empty": b"",
        "cut": content[:-30],
        "text": b"hello" * 50,
        "footer": content[:-60] + b"\xff" * 40 + content[-20:],
    }
    if damage == "columns":
        counts("b").with_columns(tp=pl.lit("many")).write_parquet(path)
        broken["columns"] = path.read_bytes()
    path.write_bytes(broken[damage])
    why = {"footer": "its bytes have changed", "columns": "data type mismatch.*"}.get(
        damage, "it is cut short, or no Parquet file"
    )
    with pytest.warns(StoreWarning, match=rf"counts/b\.parquet is damaged \({why}\); moved to .*damaged"):
        results = load(tmp_path)
    assert sorted(results.counts["eval"].unique()) == ["a", "c"]
    assert (tmp_path / "damaged" / "counts-b.parquet").read_bytes() == broken[damage]
    assert not store.has("counts", "b")
    store.write("counts", "b", counts("b"))
    assert load(tmp_path).counts.height == 9
    path.write_bytes(broken[damage])
    with pytest.warns(StoreWarning, match=r"counts-b\.2\.parquet"):
        load(tmp_path)


def test_damaged_file_that_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).write("counts", "a", counts("a")).write_bytes(b"")

    def fail(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StoreError, match=r"a\.parquet is damaged .* read-only file system"):
        load(tmp_path)


def test_load_some_tables(tmp_path: Path) -> None:
    for table in SCHEMAS:
        Store(tmp_path).write(table, "x", sample(table))
    results = load(tmp_path, ["runs", "evals"])
    assert sorted(results.tables) == ["evals", "runs"]
    for table in set(SCHEMAS) - {"runs", "evals"}:
        with pytest.raises(
            StoreError, match=rf"{table} was not loaded: name it, as in load\(path, tables=\['{table}'\]\)"
        ):
            getattr(results, table)
    assert repr(results) == "Results(runs: 2 rows, evals: 2 rows)"
    more = results.with_tables(**load(tmp_path, ["counts"]).tables)
    assert sorted(more.tables) == ["counts", "evals", "runs"]
    assert more.runs.equals(results.runs)
    assert pickle.loads(pickle.dumps(results)).tables.keys() == results.tables.keys()
    with pytest.raises(StoreError, match="no table"):
        load(tmp_path, ["scores"])


def test_many_writers_at_once(tmp_path: Path) -> None:
    def work(n: int) -> None:
        for m in range(5):
            Store(tmp_path).write("counts", f"e{(n + m) % 8}", counts(f"e{(n + m) % 8}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load(tmp_path).counts.height == 24
    assert len(files_of(tmp_path)) == 8


def test_digest_is_of_what_must_be_equal(tmp_path: Path) -> None:
    def build(root: Path, order: str, seconds: float, **changes: Any) -> Results:
        store = Store(root)
        for k in order:
            run = sample("runs", 1).with_columns(key=pl.lit(k), status=pl.lit("done"), gpu_seconds=seconds)
            store.write("runs", k, run)
            store.write("params", k, sample("params", 1).with_columns(key=pl.lit(k)))
            store.write("evals", k, sample("evals", 1).with_columns(key=pl.lit(k), eval=pl.lit(f"e{k}")))
            made = counts(f"e{k}")
            store.write("counts", k, made.with_columns(**changes) if k == "b" else made)
        return load(root)

    one, two = build(tmp_path / "1", "abc", 1.0), build(tmp_path / "2", "cab", 99.0)
    assert digest(one) == digest(two)
    assert digest(one, "a") == digest(two, "a") != digest(one, "b")
    other = build(tmp_path / "3", "abc", 1.0, tp=pl.col("tp") + 1)
    assert digest(other) != digest(one)
    assert digest(other, "a") == digest(one, "a")
    assert digest(other, "b") != digest(one, "b")
    assert digest(load(tmp_path / "none")) != digest(one)
    failed = sample("runs", 1).with_columns(key=pl.lit("a"), status=pl.lit("failed"), started=pl.lit("2020-01-01"))
    Store(tmp_path / "1").write("runs", "a", failed, again=True)
    assert digest(load(tmp_path / "1")) == digest(one)
