"""Rows trained on other labels stand in sections of their own, which say what differs; none are paired."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest
from fixture_store import ToyStore

from harness.errors import BadInput, StoreError
from harness.store import Results, load
from reports.compare import compare
from reports.format.table import Section, Table
from reports.sections.beside import beside
from reports.sections.leaderboard import build


def scored(toy: ToyStore, name: str, *, swaps: int = 10, fingerprints: dict[str, str], labels: str = "tags",
           **config: object) -> str:  # fmt: skip
    """A study of one run that was made from this data."""
    text = json.dumps({"class_names": ["background", "disc"], **config})
    key = toy.run(name, name, config=text, split_fingerprints=json.dumps(fingerprints), supervision=labels)
    toy.trial(key, name)
    return toy.evaluate(key, "segmentation", swaps)


def sections(toy: ToyStore) -> list[Section]:
    return [s for s in build(load(toy.root)).table.sections if s.kind == "scores"]


def names(found: list[Section]) -> list[list[str]]:
    return sorted(sorted(str(r["method"]) for r in s.rows[:-1]) for s in found)


CLEAN = {"train": "aaaaaaaaaa", "tune": "t", "report": "rrrrrrrrrr"}


def test_noisy_tags_are_a_section_of_their_own_that_says_so(toy: ToyStore) -> None:
    scored(toy, "clean", fingerprints=CLEAN, options={"tune": "auto"})
    scored(toy, "also", fingerprints=CLEAN, options={"tune": "auto"})
    noisy = CLEAN | {"train": "bbbbbbbbbb"}
    scored(toy, "noisy", fingerprints=noisy, options={"tune": "auto", "tag_noise": "0.5"})
    found = sections(toy)
    assert names(found) == [["also", "clean"], ["noisy"]]
    ends = {str(s.rows[0]["method"]): s.heading.partition(" · CRF none")[2] for s in found}
    assert (ends["noisy"], ends["also"]) == (" · data.tag_noise 0.5", " · data.tag_noise default")
    assert str(next(s for s in found if s.rows[0]["method"] == "noisy").rows[0]["rank"]) == "1"


def test_corrected_masks_and_other_label_files_too(toy: ToyStore) -> None:
    for name, fingerprints in (
        ("one", CLEAN),
        ("two", CLEAN | {"weak": "files 0123456789"}),
        ("three", {"train": "cccccccccc", "report": "ssssssssss"}),
    ):
        scored(toy, name, fingerprints=fingerprints, options={"weak": "a"}, labels="scribbles")
    found = sections(toy)
    assert names(found) == [["one"], ["three"], ["two"]]
    assert {str(s.rows[0]["method"]): s.heading.partition(" · CRF none · ")[2] for s in found} == {
        "one": "training data aaaaaaaa · sparse labels a",
        "two": "training data aaaaaaaa · sparse labels 23456789",
        "three": "training data cccccccc · sparse labels a",
    }


def test_sparse_labels_that_a_row_does_not_read_do_not_part_it(toy: ToyStore) -> None:
    for name in "ab":
        scored(toy, name, fingerprints=CLEAN, options={"weak": name})
    assert names(sections(toy)) == [["a", "b"]]


def test_equal_data_says_nothing_and_a_tuning_split_does_not_part(toy: ToyStore) -> None:
    scored(toy, "a", fingerprints=CLEAN)
    scored(toy, "b", fingerprints=CLEAN | {"tune": "u"})
    (section,) = sections(toy)
    assert section.heading.endswith("CRF none")


def test_results_of_another_program_stand_with_the_only_data_that_they_may_be_of(toy: ToyStore) -> None:
    scored(toy, "ours", fingerprints=CLEAN)
    scored(toy, "foreign", fingerprints={"report": CLEAN["report"]})
    scored(toy, "elsewhere", fingerprints={"report": "ssssssssss"})
    assert names(sections(toy)) == [["elsewhere"], ["foreign", "ours"]]
    scored(toy, "noisy", fingerprints=CLEAN | {"train": "bbbbbbbbbb"})
    assert names(sections(toy)) == [["elsewhere"], ["foreign"], ["noisy"], ["ours"]]


def changed(toy: ToyStore, eval_id: str) -> Results:
    """The store with one missed pixel more in one image of an eval."""
    results = load(toy.root)
    at = (pl.col("eval") == eval_id) & (pl.col("image") == "toy_3") & (pl.col("class") == 1)
    return replace(results, counts=results.counts.with_columns(fn=pl.col("fn") + at.cast(pl.Int64)))


def test_rows_with_other_true_pixels_are_named_not_paired(toy: ToyStore) -> None:
    scored(toy, "a", fingerprints=CLEAN)
    moved = changed(toy, scored(toy, "b", fingerprints=CLEAN, swaps=12))
    says = r"a of a and b of b cannot be paired: they differ in the true pixels of class 1 of image 'toy_3'"
    with pytest.raises(StoreError, match=says):
        build(moved)
    with pytest.raises(BadInput, match=says):
        compare(moved, "a", "b")


def test_an_eval_stands_beside_rows_with_its_true_pixels_only(toy: ToyStore) -> None:
    mine = scored(toy, "a", fingerprints=CLEAN)
    moved = changed(toy, scored(toy, "b", fingerprints=CLEAN))
    assert "Beside other rows" in beside(load(toy.root), mine)
    assert "Beside other rows" not in beside(moved, mine)


def test_a_comparison_says_that_the_training_data_differ(toy: ToyStore) -> None:
    scored(toy, "a", fingerprints=CLEAN)
    scored(toy, "b", fingerprints=CLEAN | {"train": "bbbbbbbbbb"})
    assert compare(load(toy.root), "a", "b").table().sections[0].caption.endswith("unlike: training data")
    assert "unlike" not in compare(load(toy.root), "a", "a").table().sections[0].caption


def test_square_brackets_are_text_in_a_terminal(toy: ToyStore) -> None:
    message = "KeyError: [bold] of weights[red] is not there [/]"
    toy.run("bad", "a[b]", status="failed", error_class="bug", error_message=message)
    report = build(load(toy.root))
    table = report.table
    odd = Table("title [red]", tuple(replace(s, caption="cap [dim]", notes=("note [/b]",)) for s in table.sections))
    text = replace(report, table=odd).render("terminal", width=200)
    for words in (message, "a[b]", "title [red]", "cap [dim]", "note [/b]"):
        assert words in text
