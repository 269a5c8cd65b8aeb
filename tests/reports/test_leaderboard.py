"""The leaderboard against a store whose scores are worked out by hand, in every format."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from fixture_store import SWEEP, ToyStore, swapped_miou

from harness.cli.parsing import main
from harness.store import load
from reports.format.notebook import fragment
from reports.format.render import FORMATS, render
from reports.format.table import Column, Score, Section, Table, p_value
from reports.leaderboard import run
from reports.sections.leaderboard import Leaderboard, build

# (80-n)/(80+n) and (40-n)/(40+n): cam n=20; fsr n=10 and 8, mean of the two seeds; floor 80/120 and 0.
CAM_ROW = 100 * (60 / 100 + 20 / 60) / 2
FSR_SEEDS = (100 * (70 / 90 + 30 / 50) / 2, 100 * (72 / 88 + 32 / 48) / 2)
FSR_ROW = sum(FSR_SEEDS) / 2
FULL_ROW = 100 * (76 / 84 + 36 / 44) / 2
BOUND = "full (masks, upper bound)"
FLOOR = 100 * (80 / 120) / 2


@pytest.fixture(scope="module")
def board(toy_root: Path) -> Leaderboard:
    return build(load(toy_root), sweep=SWEEP)


def _rows(board: Leaderboard) -> dict[str, dict[str, object]]:
    return {str(r["method"]): dict(r) for s in board.table.sections if s.kind == "scores" for r in s.rows}


def _score(row: dict[str, object], quantity: str) -> Score:
    cell = row[quantity]
    assert isinstance(cell, Score)
    return cell


def _only(board: Leaderboard) -> Section:
    sections = [s for s in board.table.sections if s.kind == "scores"]
    assert len(sections) == 1
    return sections[0]


def test_scores_intervals_and_ranks_by_hand(board: Leaderboard) -> None:
    rows = _rows(board)
    fsr = _score(rows["fsr"], "segmentation")
    assert (fsr.value, fsr.low, fsr.high) == pytest.approx((FSR_ROW, *FSR_SEEDS))
    cam = _score(rows["cam"], "segmentation")
    assert (cam.value, cam.low, cam.high) == pytest.approx((CAM_ROW,) * 3)
    assert _score(rows["cam"], "cam").value == pytest.approx(swapped_miou(20))
    assert _score(rows["full"], "segmentation").value == pytest.approx(FULL_ROW)
    assert _score(rows["all background"], "segmentation").value == pytest.approx(FLOOR)
    assert [str(rows[m]["rank"]) for m in ("fsr", "twin", "cam", "full")] == ["1=", "1=", "3", "1"]
    assert rows["all background"].get("rank") is None
    assert (rows["fsr"]["seeds"], rows["cam"]["seeds"], rows["fsr"]["iterations"], rows["fsr"]["trials"]) == (
        2,
        1,
        300,
        2,
    )
    # Three runs of 1,800 s on 2 threads: the failed one is part of the price.
    assert str(rows["fsr"]["hours"]) == "3.00 core-h"


def test_the_chosen_trial_stands_where_no_final_was_needed_and_ties_take_the_lowest(board: Leaderboard) -> None:
    group = next(b.group for b in board.boards if b.group.head.method == "full")
    assert group.rows[0].keys == ("full0",)
    cam = next(r for b in board.boards for r in b.group.rows if r.method == "cam")
    assert cam.keys == ("cam0",)


def test_supervision_splits_sections_and_each_has_its_floor(board: Leaderboard) -> None:
    scores = [s for s in board.table.sections if s.kind == "scores"]
    assert [[r["method"] for r in s.rows] for s in scores] == [
        ["fsr", "twin", "cam", BOUND, "all background"],
        ["full", "all background"],
    ]
    assert "dataset toy, split test, 6 images; 2 classes; 0 classes excluded" in scores[0].caption
    subs = {c.id: c.sub for c in scores[0].columns}
    assert (subs["cam"], subs["pseudo"], subs["segmentation"]) == ("test, tags truth", "test, tags truth", "test")


@pytest.mark.parametrize(
    "words",
    [
        {"variant": "released"},
        {"tier": "lab"},
        {"supervision": "points"},
        {"dataset": "other"},
    ],
)
def test_rows_that_differ_are_never_ranked_together(toy: ToyStore, words: dict[str, str]) -> None:
    for name, extra in (("a", {}), ("b", words)):
        toy.trial(toy.run(name, name, **extra), name)
        toy.evaluate(name, "segmentation", 10)
    sections = [s for s in build(load(toy.root)).table.sections if s.kind == "scores"]
    assert sorted([r["method"] for r in s.rows] for s in sections) == [["a", "all background"], ["b", "all background"]]


def test_crf_split_protocol_and_budget_also_separate(toy: ToyStore) -> None:
    for name in "abcd":
        toy.run(name, name)
    for name, protocol in zip("abcd", ("held-out", "held-out", "oracle", "held-out"), strict=True):
        toy.trial(name, name, protocol=protocol)
    toy.trial("d1", "d", trial=1, status="pruned", reached=0.3)
    toy.evaluate("a", "segmentation", 10)
    toy.evaluate("a", "segmentation", 8, crf="coco")
    toy.evaluate("b", "segmentation", 10, split="val")
    toy.evaluate("c", "segmentation", 10)
    toy.evaluate("d", "segmentation", 10)
    board = build(load(toy.root))
    assert len(board.boards) == 5
    assert all(s.rows[0]["method"] in "abcd" and len(s.rows) == 2 for s in board.table.sections if s.kind == "scores")
    oracle = next(s for s in board.table.sections if s.rows[0]["method"] == "c")
    assert oracle.rows[0]["protocol"] == "oracle†"
    assert _score(dict(oracle.rows[0]), "segmentation").mark == "†"
    assert "† oracle: chosen on the split that is reported" in oracle.notes


def test_other_images_under_the_same_split_name_are_another_group(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.trial(toy.run("b", "b"), "b")
    toy.evaluate("a", "segmentation", 10)
    eval_id = toy.evaluate("b", "segmentation", 10)
    results = load(toy.root)
    renamed = pl.when(pl.col("eval") == eval_id).then(pl.col("image") + "x").otherwise(pl.col("image"))
    from dataclasses import replace

    moved = replace(results, counts=results.counts.with_columns(image=renamed))
    assert len(build(moved).boards) == 2
    assert len(build(results).boards) == 1


def test_failures_are_listed_with_class_and_message(board: Leaderboard) -> None:
    failed = board.table.sections[-1]
    assert failed.heading == "2 failed runs"
    assert [(r["method"], r["trial"], r["seed"], r["error"], r["message"]) for r in failed.rows] == [
        (m, 1, 0, "bug", "NonFiniteLoss: step 7, term ptc is nan") for m in ("fsr", "twin")
    ]


def test_thresholds_side_by_side_with_the_gap(toy_root: Path) -> None:
    rows = _rows(build(load(toy_root), thresholds=True))
    cam = rows["cam"]
    values = [_score(cam, f"cam_{rule}").value for rule in ("fixed", "held_out", "oracle")]
    assert values == pytest.approx([swapped_miou(n) for n in (24, 20, 16)])
    assert float(str(cam["cam_oracle_gap"])) == pytest.approx(swapped_miou(16) - swapped_miou(20), abs=0.05)
    assert (_score(cam, "cam_oracle").mark, _score(cam, "cam_held_out").mark) == ("†", "")
    assert _score(cam, "segmentation").value == pytest.approx(CAM_ROW)


def test_teacher_scores_only_when_asked(toy_root: Path, board: Leaderboard) -> None:
    teacher = build(load(toy_root), weights="teacher")
    value = _score(_rows(teacher)["fsr"], "segmentation").value
    assert value == pytest.approx((swapped_miou(9) + swapped_miou(7)) / 2)
    assert "cam" not in _rows(teacher)
    assert _score(_rows(board)["fsr"], "segmentation").value == pytest.approx(FSR_ROW)


def test_a_fixed_protocol_without_objective_has_its_row_and_a_missing_rule_is_marked(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a", protocol="fixed"), "a", protocol="fixed", objective=None)
    toy.evaluate("a", "cam", 20, rule="fixed")
    toy.trial(toy.run("b", "b"), "b")
    toy.evaluate("b", "cam", 20, rule="fixed")
    rows = _rows(build(load(toy.root)))
    assert (_score(rows["a"], "cam").mark, _score(rows["b"], "cam").mark) == ("", "‡")


def test_nothing_above_the_floor_is_said(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 35)
    section = _only(build(load(toy.root)))
    assert _score(dict(section.rows[0]), "segmentation").mark == "*"
    assert "* not significantly above all background" in section.notes


def test_scoring_tags_are_columns_of_their_own(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "cam", 10)
    toy.evaluate("a", "cam", 20, tags="none")
    section = _only(build(load(toy.root)))
    assert [(c.id, c.sub) for c in section.columns if c.facts] == [
        ("cam", "test, tags truth"),
        ("cam_none", "test, tags none"),
    ]
    assert _score(dict(section.rows[0]), "cam_none").value == pytest.approx(swapped_miou(20))


def test_maps_scored_otherwise_than_segmentation_stay_one_row_and_a_second_scoring_is_a_second(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "cam", 20, scales="0.5,1,1.5", flip=True)
    toy.evaluate("a", "segmentation", 10)
    assert len(_only(build(load(toy.root))).rows) == 2
    toy.evaluate("a", "segmentation", 8, scales="0.5,1", flip=True)
    section = _only(build(load(toy.root)))
    assert [str(r["inference"]) for r in section.rows if "inference" in r][:1] == ["scales 0.5,1, flip, fused by max"]


def test_a_retry_that_changed_a_normaliser_is_shown_but_not_ranked(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a", error_class="oom", error_message="retried with smaller groups"), "a")
    toy.trial(toy.run("b", "b"), "b")
    toy.evaluate("a", "segmentation", 4)
    toy.evaluate("b", "segmentation", 10)
    section = _only(build(load(toy.root)))
    assert [(r["method"], str(r.get("rank"))) for r in section.rows[:2]] == [("a", "None"), ("b", "1")]
    assert "not ranked: an out-of-memory retry changed a normaliser" in section.notes


def test_without_background_the_floor_is_the_most_frequent_class_and_absent_classes_are_counted(toy: ToyStore) -> None:
    config = json.dumps({"class_names": ["road", "sky", "car"]})
    toy.trial(toy.run("a", "a", config=config), "a")
    toy.evaluate("a", "segmentation", 10)
    section = _only(build(load(toy.root)))
    assert section.rows[-1]["method"] == "all the most frequent class"
    assert _score(dict(section.rows[-1]), "segmentation").value == pytest.approx(FLOOR)
    assert _score(dict(section.rows[0]), "segmentation").excluded == 1
    assert "3 classes; 1 class excluded" in section.caption


def test_rows_that_look_alike_are_told_apart_and_a_repeated_sweep_is_one_row(toy: ToyStore) -> None:
    for study in ("fsr-tags-aaaa", "fsr-tags-bbbb"):
        key = study[-4:]
        toy.trial(toy.run(key, "fsr", study=study), study)
        toy.trial(key, study, sweep="later")
        toy.evaluate(key, "segmentation", 10)
    methods = [r["method"] for r in _only(build(load(toy.root))).rows]
    assert methods == ["fsr (aaaa)", "fsr (bbbb)", "all background"]


def test_single_runs_outside_a_study_are_rows_with_their_seeds_together(toy: ToyStore) -> None:
    for seed in range(2):
        toy.run(f"r{seed}", "cam", seed=seed, device="NVIDIA H200", gpu_seconds=1800.0)
        toy.evaluate(f"r{seed}", "segmentation", 10 + seed)
    row = _rows(build(load(toy.root)))["cam"]
    assert (row["seeds"], row["trials"], str(row["hours"])) == (2, 1, "1.00 GPU-h")


def test_stopped_runs_without_times_are_said(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 10)
    toy.trial(toy.run("b", "a", trial=1, status="pruned", seconds=json.dumps({"reached": 0.4})), "a", trial=1,
              status="pruned", reached=0.4)  # fmt: skip
    section = _only(build(load(toy.root)))
    assert str(section.rows[0]["hours"]) == "1.00 core-h"
    assert "hours leave out 1 run that stopped without saying how long they took" in section.notes


def test_csv_numbers(board: Leaderboard) -> None:
    lines = list(csv.DictReader(io.StringIO(board.render("csv"))))
    assert [r["method"] for r in lines] == ["fsr", "twin", "cam", BOUND, "all background", "full", "all background"]
    fsr = lines[0]
    assert (fsr["segmentation_miou"], fsr["segmentation_low"], fsr["segmentation_high"]) == (
        "71.5657",
        "68.8889",
        "74.2424",
    )
    assert (fsr["cam_split"], fsr["cam_tags"], fsr["segmentation_rank"], fsr["hours_unit"]) == (
        "test",
        "truth",
        "1",
        "core-h",
    )
    assert (lines[2]["segmentation_miou"], lines[2]["pseudo_miou"], lines[2]["rank"]) == ("46.6667", "", "3")
    assert (lines[4]["segmentation_miou"], lines[4]["rank"], lines[4]["dataset"]) == ("33.3333", "", "toy")


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_every_text_format_shows_the_same_numbers(board: Leaderboard, form: str) -> None:
    text = board.render(form)
    interval = {"latex": r"71.6 {\scriptsize [68.9, 74.2]}", "html": "71.6 <small>[68.9, 74.2]</small>"}
    assert text.count(interval.get(form, "71.6 [68.9, 74.2]")) == 2
    for words in ("CAM", "pseudo mask", "segmentation", "held-out", "tags truth", "NonFiniteLoss", "all background",
                  "iterations", "trials", "core-h", "6 images"):  # fmt: skip
        assert words in text, words
    assert ("shapes\\_vit" if form == "latex" else "shapes_vit") in text


def test_markdown_row_is_exact(board: Leaderboard) -> None:
    assert ("| 3 | cam | 46.7 [46.7, 46.7] | – | 46.7 [46.7, 46.7] | 1 | default | tags | shapes_vit | 300 | 2 "
            "| 2.00 core-h | held-out |") in board.render("markdown").splitlines()  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 140])
def test_terminal_keeps_its_width(board: Leaderboard, width: int) -> None:
    text = board.render("terminal", width=width)
    assert max(map(len, text.splitlines())) <= width
    for words in ("71.6", "61.5", "57.0", "2 trials"):  # no score is lost
        assert words in text
    left_out = text[text.find("left out here:") :] if width < 140 else ""
    for column, words in {"hours": "3.00", "iterations": "300"}.items():
        assert words in text or column in left_out
    head = next(line for line in text.splitlines() if line.startswith(" rank"))
    assert head.split()[:2] == ["rank", "method"], "the score comes next"
    assert len(left_out.splitlines()) <= 3


def test_html_is_well_formed_and_needs_nothing_from_outside(board: Leaderboard) -> None:
    class Checker(HTMLParser):
        stack: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href"} & {a for a, _ in attrs}
            if tag not in ("meta", "line", "circle", "input"):
                self.stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.stack.pop() == tag

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    page = board.render("html")
    checker = Checker()
    checker.stack = []
    checker.feed(page)
    assert checker.stack == []
    assert "http:" not in page
    assert "https:" not in page


def test_html_escapes_what_a_run_says(toy: ToyStore) -> None:
    toy.run("bad", "a", status="failed", error_class="bug", error_message="<script>alert(1)</script>")
    assert "<script>alert" not in build(load(toy.root)).render("html")


def test_per_class_table_by_hand(board: Leaderboard) -> None:
    frame = board.per_class()
    fsr = frame.filter(pl.col("method") == "fsr", pl.col("target") == "segmentation").sort("class")
    assert fsr["name"].to_list() == ["background", "disc"]
    assert fsr["iou"].to_list() == pytest.approx([(70 / 90 + 72 / 88) / 2, (30 / 50 + 32 / 48) / 2])
    assert fsr["low"].to_list() == pytest.approx([70 / 90, 30 / 50])
    assert fsr["high"].to_list() == pytest.approx([72 / 88, 32 / 48])
    assert fsr.select("tp", "fp", "fn").rows() == [(6 * (70 + 72), 6 * 18, 6 * 18), (6 * (30 + 32), 6 * 18, 6 * 18)]
    assert frame.height == 18


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_arrow_and_parquet_write_the_per_class_table(
    toy_root: Path, tmp_path: Path, board: Leaderboard, form: str
) -> None:
    out = tmp_path / f"iou.{form}"
    assert main(run, [f"store={toy_root}", f"format={form}", f"out={out}"]) == 0
    read = pl.read_parquet(out) if form == "parquet" else pl.read_ipc(out)
    assert read.equals(board.per_class())
    piped = subprocess.run([sys.executable, "-m", "reports.leaderboard", f"store={toy_root}", f"format={form}"],
                           capture_output=True, check=True).stdout  # fmt: skip
    assert piped == out.read_bytes()


def test_per_class_sections(toy_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, [f"store={toy_root}", "per_class=true", "format=markdown"]) == 0
    assert "| 1 | disc | 63.3 [60.0, 66.7] | 63.3 [60.0, 66.7] | 33.3 [33.3, 33.3] |" in capsys.readouterr().out


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_store_is_no_error(tmp_path: Path, form: str) -> None:
    assert isinstance(build(load(tmp_path)).render(form), str)


@pytest.mark.parametrize(("word", "says"), [
    ("fromat=csv", "did you mean format"), ("format=html5", "did you mean html"), ("dataset=toi", "did you mean toy"),
    ("sweep=nosuch", SWEEP), ("tier=smok", "did you mean smoke"), ("weights=both", "known: student, teacher"),
    ("out=/no/such/folder/x", "does not exist"), ("per_class=perhaps", "per_class"),
])  # fmt: skip
def test_bad_words_end_with_2_and_the_nearest_names(toy_root: Path, word: str, says: str,
                                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert main(run, [f"store={toy_root}", word]) == 2
    assert says in capsys.readouterr().err


def test_all_problems_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, ["store=/no/such", "format=x", "weights=y"]) == 2
    assert capsys.readouterr().err.count("error:") == 3


def test_help_names_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run, ["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"{w}=" in text for w in ("store", "format", "out", "per_class", "thresholds", "weights", "sweep",
                                         "dataset", "tier"))  # fmt: skip


def test_neither_torch_nor_mlflow_is_imported(toy_root: Path) -> None:
    code = (f"import sys; from reports.leaderboard import run; run(['store={toy_root}', 'format=csv'])\n"
            "print({'torch', 'mlflow', 'ray'} & set(sys.modules), file=sys.stderr)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == "set()\n"


def test_the_upper_bound_and_other_programs_stand_where_one_can_compare(toy: ToyStore) -> None:
    """4 swaps of masks are 100 x (76/84 + 36/44) / 2 = 86.1; 6 of another program 79.5."""
    for key, method, more in (
        ("mine", "cam", {}),
        ("bound", "full", {"supervision": "masks"}),
        ("wide", "full", {"supervision": "masks", "backbone": "resnet50"}),
        ("theirs", "Theirs", {"tier": "paper", "protocol": "fixed", "config": json.dumps({"foreign": True})}),
    ):
        toy.run(key, method, **more)
        toy.trial(key, method) if key in ("mine", "bound") else None
    toy.trial("wide", "wide")
    for key, swaps in (("mine", 16), ("bound", 4), ("wide", 2), ("theirs", 6)):
        toy.evaluate(key, "segmentation", swaps)
    table = build(load(toy.root)).table
    tags, masks = table.sections
    lines = [(row.get("rank"), row["method"], row["segmentation"]) for row in tags.rows]
    assert [(str(rank), name, f"{score.value:.1f}") for rank, name, score in lines if isinstance(score, Score)] == [
        ("1", "cam", f"{swapped_miou(16):.1f}"),
        ("None", "full (masks, upper bound)", "86.1"),
        ("None", "Theirs (not trained here)", f"{swapped_miou(6):.1f}"),
        ("None", "all background", "33.3"),
    ]
    assert all(s.rank is None for _, _, s in lines[1:] if isinstance(s, Score))
    assert {row["method"] for row in masks.rows} == {"full", "all background"}
    assert "every row" in " ".join(tags.notes)
    assert "other images, not other seeds" in " ".join(tags.notes)
    alone = build(load(toy.root), tier="paper").table
    assert alone.sections[0].rows[0]["method"] == "Theirs"


def test_what_names_may_hold_is_neutralised_in_every_format(toy: ToyStore) -> None:
    evil = "\x1b[31mred\x1b[0m\u202e<img src=x onerror=alert(1)>[a](http://b)\nnext"
    toy.run("k", "=cmd|' /C calc'!A0", backbone=evil)
    toy.trial("k", "s")
    toy.evaluate("k", "segmentation", 4)
    board = build(load(toy.root))
    for form in FORMATS:
        text = board.render(form)
        assert not set("\x1b\u202e") & set(text), form
        assert "\\x1b[31mred" in text or form == "latex", form
    assert "<img" not in board.render("markdown")
    assert "<img" not in board.render("html")
    assert "](http" not in board.render("markdown")
    line = next(csv.DictReader(io.StringIO(board.render("csv"))))
    assert line["method"] == "'=cmd|' /C calc'!A0"
    assert "\n" not in line["backbone"]


def test_p_is_never_zero() -> None:
    assert str(p_value(0.0)) == str(p_value(1e-12)) == "< 0.0001"
    assert str(p_value(0.0123)) == "0.0123"
    assert p_value(math.nan) is None
    table = Table("t", (Section("h", (Column("p", "p"),), ({"p": p_value(3e-12)}, {"p": p_value(0.5)})),))
    assert render(table, "csv").splitlines() == ["p", "3e-12", "0.5000"]


def test_a_notebook_shows_the_tables_as_text(board: Leaderboard) -> None:
    shown = board._repr_html_()
    assert f"{CAM_ROW:.1f}" in shown
    assert shown.count("<table>") == sum(bool(section.rows) for section in board.table.sections)
    assert "<script" not in shown
    assert "<style" not in shown
    column = Column("a", "<b>")
    evil = Table("<script>x</script>", (Section("h", (column,), ({"a": "<img src=x>"},)),))
    told = fragment(evil)
    assert "<script" not in told
    assert "<img" not in told
    assert "&lt;img src=x&gt;" in told
