"""Leaderboards of large stores: counts of the shown evals alone, scores without intervals."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from fixture_store import ToyStore, swapped_miou, toy_store

from harness.cli.parsing import main
from harness.errors import StoreError
from harness.store import load
from harness.store.maintenance import compact
from reports.format.table import Rank, Score
from reports.leaderboard import run
from reports.rows.row import Filters
from reports.rows.rows import load_rows, rows_of
from reports.sections.leaderboard import build


def test_only_the_evals_of_rows_are_read_and_with_trials_those_of_their_studies(toy_root: Path) -> None:
    rows = rows_of(load(toy_root), Filters())
    shown = {e for row in rows for scored in row.scores.values() for e in scored.evals}
    results = load_rows(toy_root, Filters())
    assert rows_of(results, Filters()) == rows
    assert set(results.counts["eval"]) == shown
    # `full1` is a trial that was not chosen, teachers are other networks.
    assert not {e for e in shown if e.startswith("full1") or "teacher" in e}
    more = set(load_rows(toy_root, Filters(), trials=True).counts["eval"])
    assert more - shown == set(load(toy_root).counts["eval"]) - shown


@pytest.mark.parametrize("thresholds", [False, True])
def test_the_leaderboard_is_that_of_all_counts(toy_root: Path, tmp_path: Path, thresholds: bool) -> None:
    whole = build(load(toy_root), thresholds=thresholds, by_class=True).render("markdown")
    part = load_rows(toy_root, Filters(), trials=thresholds)
    assert build(part, thresholds=thresholds, by_class=True).render("markdown") == whole


def test_merged_files_and_files_of_other_names_are_found(tmp_path: Path) -> None:
    toy = toy_store(tmp_path / "store")
    whole = build(load(toy.root)).render("markdown")
    for n, file in enumerate(sorted((toy.root / "counts").glob("*.parquet"))[:4]):
        os.rename(file, file.with_name(f"copied{n}.parquet"))
    assert build(load_rows(toy.root, Filters())).render("markdown") == whole
    assert compact(toy.root)
    assert build(load_rows(toy.root, Filters())).render("markdown") == whole


def test_lost_counts_are_named(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    name = toy.evaluate("a", "segmentation", 10)
    (toy.root / "counts" / f"{name}.parquet").unlink()
    with pytest.raises(StoreError, match=f"no counts of eval {name}"):
        build(load_rows(toy.root, Filters()))


def test_scores_without_intervals_are_the_same_scores_unranked(toy_root: Path) -> None:
    with_them, without = (build(load(toy_root), intervals=i) for i in (True, False))
    assert [b.group.rows for b in with_them.boards] == [b.group.rows for b in without.boards]
    for one, other in zip(with_them.boards, without.boards, strict=True):
        for cells, plain in zip((*one.scores, one.baseline), (*other.scores, other.baseline), strict=True):
            assert {q: (s.value, s.excluded) for q, s in cells.items()} == {
                q: (s.value, s.excluded) for q, s in plain.items()
            }
            assert all(math.isnan(s.low) and math.isnan(s.high) and s.rank is None for s in plain.values())
    lines = [row for s in without.table.sections if s.kind == "scores" for row in s.rows]
    assert not any(isinstance(line["rank"], Rank) for line in lines if "rank" in line)
    scores = {line["method"]: line["segmentation"] for line in lines if isinstance(line["segmentation"], Score)}
    assert scores["cam"].value == pytest.approx(swapped_miou(20))
    notes = " ".join(note for s in without.table.sections for note in s.notes)
    assert "without intervals" in notes
    assert "rank by" not in notes
    assert "significantly" not in notes


def test_the_command_says_scores_alone(toy_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, [f"store={toy_root}", "intervals=false", "format=markdown"]) == 0
    out = capsys.readouterr().out
    assert f"{swapped_miou(20):.1f} [–, –]" in out
