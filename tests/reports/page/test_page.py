"""The page's text: what it says of poor stores, what it does with names, what the command refuses."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from fixture_store import ToyStore, swapped_miou

from harness.cli.parsing import main
from reports.page.__main__ import run
from reports.page.build import page_of

SCORE = f"{swapped_miou(10):.1f} <small>"


def test_it_is_made_again_byte_by_byte(toy_root: Path) -> None:
    assert page_of(toy_root) == page_of(toy_root)


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    assert "No finished run with scores yet" in text
    assert "no runs" in text


def test_a_store_of_failures_lists_them(toy: ToyStore) -> None:
    toy.run("bad", "fsr", status="failed", error_class="oom", error_message="out of memory at step 3")
    text = page_of(toy.root)
    assert "No finished run with scores yet" in text
    assert "out of memory at step 3" in text


def test_a_store_of_an_older_schema_has_a_page(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 10)
    for table, later in {"runs": ["threads", "decoder", "git_commit"], "evals": ["fusion", "crf"]}.items():
        for file in (toy.root / table).glob("*.parquet"):
            pl.read_parquet(file).drop(later).write_parquet(file)
    assert SCORE in page_of(toy.root)


def test_a_half_written_file_costs_its_rows_only(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 10)
    whole = (toy.root / "runs" / "a.parquet").read_bytes()
    (toy.root / "runs" / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(match="damaged"):
        text = page_of(toy.root)
    assert SCORE in text


def test_names_with_markup_are_text(toy: ToyStore) -> None:
    evil = "<img src=x onerror=alert(1)></script><b>x"
    toy.trial(toy.run("a", evil, backbone=evil), "a")
    toy.evaluate("a", "segmentation", 10)
    text = page_of(toy.root)
    assert "<img src=x" not in text
    assert "</script><b>" not in text
    assert "&lt;img src=x" in text


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["store=nowhere"], "nowhere is no folder"),
        (["out=nowhere/board.html"], "nowhere does not exist"),
        (["wieghts=teacher"], "did you mean weights"),
        (["weights=both"], "'both' is unknown"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], found: str, toy_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = [] if any(w.startswith("store") for w in words) else [f"store={toy_root}"]
    assert main(run, [*store, *words]) == 2
    assert found in capsys.readouterr().err
