"""Stores that nobody's run left like that: every command that reads one answers in a line or two, never a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import harness.store.__main__ as store_command
import reports.ablations
import reports.compare
import reports.density
import reports.leaderboard
import reports.main_results
import reports.page.__main__ as page
from harness import sweep
from harness.cli.parsing import main
from harness.engine.heartbeat import FILE, read_heartbeats
from harness.store import SCHEMAS, Store, StoreWarning
from harness.store.outlines import sweeps

OUTLINE = {"sweep": "5weep", "pid": 1, "words": [{}], "studies": [{"id": "cam", "trials": 2, "seeds": [0]}]}


def commands(store: Path, out: Path) -> dict[str, tuple[Callable[[list[str]], int], list[str]]]:
    at = f"store={store}"
    return {
        "leaderboard": (reports.leaderboard.run, [at, "intervals=false", "thresholds=true", "per_class=true"]),
        "main_results": (reports.main_results.run, [at, "paper=fsr"]),
        "ablations": (reports.ablations.run, [at, "paper=fsr", "table=4"]),
        "compare": (reports.compare.run, ["cam", "full", at]),
        "density": (reports.density.run, [at]),
        "status": (sweep.run, ["status", at]),
        "verify": (store_command.run, ["verify", at]),
        "compact": (store_command.run, ["compact", at]),
        "gc": (store_command.run, ["gc", at, "keep=last"]),
        "optuna": (store_command.run, ["export-optuna", at, f"out={out}/o.db"]),
    }


def changed(store: Path, table: str, name: str, **values: Any) -> None:
    """One row's file, its columns with other values."""
    path = store / table / f"{name}.parquet"
    rows = pl.read_parquet(path).select(list(SCHEMAS[table]))
    path.unlink()
    rows = rows.with_columns(pl.lit(value, SCHEMAS[table][column]).alias(column) for column, value in values.items())
    Store(store).write(table, name, rows)


def as_file(table: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        shutil.rmtree(store / table, ignore_errors=True)
        (store / table).write_text("x")

    return damage


def as_loop(store: Path) -> None:
    shutil.rmtree(store / "runs")
    (store / "runs").symlink_to("runs")


def beside(make: Callable[[Path], object], table: str = "runs") -> Callable[[Path], None]:
    return lambda store: make(store / table / "z.parquet") and None


def of_run(**values: Any) -> Callable[[Path], None]:
    return lambda store: changed(store, "runs", "cam0", **values)


def outlines(store: Path) -> None:
    for i, text in enumerate((json.dumps({**OUTLINE, "pid": "x", "studies": [3]}), '{"sweep": ', "[1]")):
        (store / "sweeps" / f"{i}.json").write_text(text)
    (store / "sweeps" / "gone.json").symlink_to("/nowhere/x")
    os.mkfifo(store / "sweeps" / "pipe.json")
    assert sweeps(store) == [OUTLINE]


def nulls(store: Path) -> None:
    for table in ("runs", "trials", "evals", "counts", "params"):
        row = pl.DataFrame([dict.fromkeys(SCHEMAS[table])], schema=dict(SCHEMAS[table]))
        row.write_parquet(store / table / "z.parquet")


def odd_eval(store: Path) -> None:
    name = min((store / "evals").glob("*.parquet")).stem
    changed(store, "evals", name, target="soul", threshold=float("nan"), scales="x", images=-1)


def heartbeats(store: Path) -> None:
    texts = ("[1]", '{"key": "a", "updated": "x"}', '{"key": "a", "pid": "y"}', '{"key": "a", "losses": 3}', "", "{",
             '{"key": "a", "losses": {"seg": "x"}}', '{"key": "a", "pid": 99999999999}',
             '{"key": "a", "updated": 1e999}',
             '{"key": "a", "folder": 3, "stage": 7, "step": 1, "pid": 1}', "[" * 9999)  # fmt: skip
    for i, text in enumerate(texts):
        (store / "work" / str(i)).mkdir(parents=True)
        (store / "work" / str(i) / FILE).write_text(text)
    (store / "work" / "pipe").mkdir()
    os.mkfifo(store / "work" / "pipe" / FILE)
    assert [found["stage"] for found in read_heartbeats(store)] == [7]


FOREIGN = pl.DataFrame({"a": [1], "key": ["x"]})
TYPES = pl.DataFrame({"key": [3], "seed": ["x"]})
ODD: Mapping[str, Callable[[Path], None]] = {
    "runs is a file": as_file("runs"),
    "counts is a file": as_file("counts"),
    "sweeps and work are files": lambda store: as_file("sweeps")(store) or as_file("work")(store),
    "runs is a link to itself": as_loop,
    "a folder": beside(Path.mkdir),
    "a link to itself": beside(lambda path: path.symlink_to(path.name)),
    "a pipe": beside(os.mkfifo),
    "a foreign table": beside(FOREIGN.write_parquet),
    "other types": beside(TYPES.write_parquet),
    "an unknown version": beside(lambda path: FOREIGN.write_parquet(path, metadata={"schema_version": "abc"})),
    "nothing but nulls": nulls,
    "a config cut off": of_run(config='{"a": '),
    "a config of other types": of_run(config=json.dumps({"method": 3, "class_names": "x", "knobs": [1]})),
    "seconds of other types": of_run(seconds=json.dumps({"method": "x", "score": [1]})),
    "a time in words": of_run(started="yesterday", status="sleeping", supervision=None),
    "a pretraining cut off": of_run(pretraining="{"),
    "an eval of another target": odd_eval,
    "outlines of others": outlines,
    "heartbeats of others": heartbeats,
}


@pytest.fixture
def store(toy_root: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "store"
    shutil.copytree(toy_root, copy)
    (copy / "sweeps").mkdir(exist_ok=True)
    (copy / "sweeps" / "5weep.json").write_text(json.dumps(OUTLINE))
    return copy


def answered(store: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, tuple[int, str]]:
    """Exit code and what is said beside the report, by command."""
    found = {}
    for name, (run, argv) in commands(store, out).items():
        if names and name not in names:
            continue
        printed, said = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        monkeypatch.setattr(sys, "stdout", printed)
        monkeypatch.setattr(sys, "stderr", said)
        try:
            found[name] = (main(run, argv), said.getvalue())
        finally:
            monkeypatch.undo()
    return found


@pytest.mark.filterwarnings("ignore::harness.store.StoreWarning")
@pytest.mark.parametrize("odd", ODD)
def test_no_store_ends_in_a_traceback(store: Path, tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ODD[odd](store)
    for name, (code, said) in answered(store, tmp_path, monkeypatch).items():
        assert code in (0, 1, 2), name
        assert "Traceback" not in said, name
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code != 0) or (name == "verify" and not errors), name
        assert len(said.splitlines()) <= 6, said


@pytest.mark.filterwarnings("ignore::harness.store.StoreWarning")
@pytest.mark.parametrize("odd", ["a folder", "a link to itself", "a pipe", "a foreign table", "an unknown version"])
def test_one_odd_file_blocks_no_other(store: Path, tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ODD[odd](store)
    names = ("leaderboard", "status", "compact", "density")
    assert {name: code for name, (code, _) in answered(store, tmp_path, monkeypatch, *names).items()} == dict.fromkeys(
        names, 0
    )
    assert os.path.lexists(store / "runs" / "z.parquet") == (odd != "a foreign table")


def test_a_folder_among_the_files_is_named(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "runs" / "z.parquet").mkdir()
    with pytest.warns(StoreWarning, match=r"runs/z\.parquet is a folder, no plain file; left out"):
        found = answered(store, tmp_path, monkeypatch, "leaderboard", "gc")
    assert found["leaderboard"][0] == 0
    assert found["gc"][0] == 1
    assert "nothing is dropped while it is not known what runs need" in found["gc"][1]


@pytest.mark.parametrize("what", ["a file", "a link to itself", "nothing"])
def test_what_is_no_folder_is_no_store(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    if what == "a file":
        store.write_text("x")
    elif what == "a link to itself":
        store.symlink_to("store")
    for name, (code, said) in answered(store, tmp_path, monkeypatch).items():
        assert code in (0, 1, 2), name
        assert said.count("error: ") == (code != 0), (name, said)
        assert "Traceback" not in said, name


def test_a_folder_that_may_not_be_read_is_said(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    real = os.scandir
    with monkeypatch.context() as patched:
        for name, (run, argv) in commands(store, tmp_path).items():
            patched.setattr(os, "scandir", lambda path: refused(path) if str(path).endswith("/trials") else real(path))
            said = io.StringIO()
            patched.setattr(sys, "stderr", said)
            patched.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
            code = main(run, argv)
            assert code in (0, 1), (name, said.getvalue())
            assert said.getvalue().count("error: ") == code, name
            assert not code or "trials could not be read: permission denied" in said.getvalue()


@pytest.mark.filterwarnings("ignore::harness.store.StoreWarning")
def test_the_page_of_odd_rows_is_written(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_run(started="yesterday", supervision=None, backbone=None)(store)
    odd_eval(store)
    assert page.run([f"store={store}", f"out={tmp_path}/b.html"]) == 0
    assert (tmp_path / "b.html").stat().st_size > 10_000
