"""Ablations told apart, choices of tuned rows against an oracle's, and Dice where papers report it."""

import csv
import io
import json

import pytest
from fixture_store import ToyStore, swapped_miou

from harness.store import load
from reports.format.table import Score
from reports.sections.leaderboard import build


def config(**more: object) -> str:
    return json.dumps({"class_names": ["background", "disc"], **more})


def swapped_dice(n: int) -> float:
    """Dice, in percent, of class 1 (the only one in the foreground): 2tp / (2tp + fp + fn)."""
    return 100 * (40 - n) / 40


def test_rows_that_differ_in_ablation_stand_apart_with_its_name(toy: ToyStore) -> None:
    for name, swaps in (("none", 20), ("unc", 10)):
        toy.trial(toy.run(name, "fsr", study=f"fsr-{name}", config=config(ablation=name)), f"fsr-{name}")
        toy.evaluate(name, "segmentation", swaps)
    board = build(load(toy.root), by_class=True)
    section = board.table.sections[0]
    assert [(r["method"], r.get("ablation")) for r in section.rows] == [
        ("fsr", "unc"), ("fsr", "none"), ("all background", None)]  # fmt: skip
    assert [c.title for c in board.table.sections[1].columns[2:]] == ["fsr (unc)", "fsr (none)"]
    lines = list(csv.DictReader(io.StringIO(board.render("csv"))))
    assert [line["ablation"] for line in lines[:2]] == ["unc", "none"]


def test_no_ablation_no_column(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 10)
    assert "ablation" not in [c.id for c in build(load(toy.root)).table.sections[0].columns]


def test_single_runs_of_one_config_are_one_row_whatever_they_were_called(toy: ToyStore) -> None:
    for seed, name in enumerate(("", "both")):
        toy.run(f"r{seed}", "fsr", seed=seed, config=config(ablation=name))
        toy.evaluate(f"r{seed}", "segmentation", 10)
    rows = build(load(toy.root)).table.sections[0].rows
    assert [(r["method"], r["seeds"]) for r in rows if r["method"] == "fsr"] == [("fsr", 2)]


def test_a_study_run_again_by_newer_code_is_two_rows(toy: ToyStore) -> None:
    for version in (1, 2):
        for seed in range(2):
            key = toy.run(f"v{version}s{seed}", "fsr", seed=seed, study="s", versions=json.dumps({"fsr": version}),
                          started=f"2026-01-0{version}T00:00:00+00:00")  # fmt: skip
            toy.trial(key, "s", role="final")
            toy.evaluate(key, "segmentation", 10 * version)
    rows = [r for r in build(load(toy.root)).table.sections[0].rows if str(r["method"]).startswith("fsr")]
    assert [r["seeds"] for r in rows] == [2, 2]
    assert len({r["method"] for r in rows}) == 2


def test_held_out_choice_oracle_choice_and_gap(toy: ToyStore) -> None:
    # Tuning prefers trial 1, the reported split trial 2; for CAMs trial 0 with the oracle's threshold.
    for trial, objective, held_out, oracle, seg in ((0, 0.5, 14, 8, 20), (1, 0.6, 13, 12, 16), (2, 0.4, 18, 10, 12)):
        key = toy.run(f"t{trial}", "fsr", study="s", trial=trial)
        toy.trial(key, "s", trial=trial, objective=objective)
        toy.evaluate(key, "cam", held_out)
        toy.evaluate(key, "cam", oracle, rule="oracle")
        toy.evaluate(key, "segmentation", seg)
    toy.trial(toy.run("p", "fsr", study="s", trial=3, status="pruned"), "s", trial=3, status="pruned", reached=0.5)
    found = [s for s in build(load(toy.root), thresholds=True).table.sections if s.kind == "choices"]
    assert len(found) == 1
    cam, seg = found[0].rows
    assert (cam["target"], cam["chosen"], cam["best"]) == ("CAM", 1, 0)
    assert (seg["target"], seg["chosen"], seg["best"]) == ("segmentation", 1, 2)
    values = [c.value for c in (seg["held_out"], seg["oracle"], seg["gap"]) if isinstance(c, Score)]
    assert values == pytest.approx([swapped_miou(16), swapped_miou(12), swapped_miou(12) - swapped_miou(16)])
    gap = cam["gap"]
    assert isinstance(gap, Score)
    assert gap.value == pytest.approx(swapped_miou(8) - swapped_miou(13))
    assert not [s for s in build(load(toy.root)).table.sections if s.kind == "choices"]


def test_untuned_and_oracle_rows_have_no_choice_to_show(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    for trial in range(2):
        key = toy.run(f"b{trial}", "b", trial=trial)
        toy.trial(key, "b", trial=trial, protocol="oracle")
        toy.evaluate(key, "segmentation", 10)
    toy.evaluate("a", "segmentation", 10)
    assert not [s for s in build(load(toy.root), thresholds=True).table.sections if s.kind == "choices"]


def test_dice_beside_iou_on_acdc(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a", dataset="acdc"), "a")
    toy.evaluate("a", "segmentation", 10)
    board = build(load(toy.root), by_class=True)
    section = board.table.sections[0]
    assert "segmentation_dice" in [c.id for c in section.columns]
    dice, floor = (r["segmentation_dice"] for r in section.rows)
    assert isinstance(dice, Score)
    assert isinstance(floor, Score)
    assert (dice.value, floor.value) == pytest.approx((swapped_dice(10), 0.0))
    assert next(csv.DictReader(io.StringIO(board.render("csv"))))["segmentation_dice_mean"] == "75.0000"
    assert [s.heading.split()[1] for s in board.table.sections[1:]] == ["IoU", "Dice"]
    frame = board.per_class().sort("class")
    assert frame["dice"].to_list() == pytest.approx([2 * 70 / 160, 0.75])
    assert frame["iou"].to_list() == pytest.approx([70 / 90, 0.6])


def test_no_dice_elsewhere(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 10)
    board = build(load(toy.root))
    assert "segmentation_dice" not in [c.id for c in board.table.sections[0].columns]
    assert board.per_class()["dice"].null_count() == 2
