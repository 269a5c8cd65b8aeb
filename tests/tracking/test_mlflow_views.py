"""What MLflow opens on: saved views with the scores that runs have, and a description; people's own stay."""

from __future__ import annotations

import json
from typing import Any

from harness.tracking.mlflow_views import BOARDS, NOTE, PREFIX, RUNS, note, views

SCORED = ["miou/cam/test/oracle"] * 9 + ["miou/cam/test/held-out"] * 8 + ["miou/segmentation/test"] * 2 + [
    "miou/segmentation/val", "objective", "train/cls", "seconds/method",
]  # fmt: skip


def _state(tags: dict[str, str], view: str) -> dict[str, Any]:
    return dict(json.loads(json.loads(tags[PREFIX + view])["state"]))


def test_the_first_view_has_runs_by_the_score_of_masks() -> None:
    state = _state(views(SCORED, {}), RUNS)
    assert state["searchFilter"] == "tags.kind = 'run'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`miou/segmentation/test`", False)
    assert state["selectedColumns"][:4] == [
        "metrics.`miou/segmentation/test`", "metrics.`miou/segmentation/val`", "metrics.`miou/cam/test/held-out`",
        "metrics.`objective`",
    ]  # fmt: skip
    assert "params.`method`" in state["selectedColumns"]
    assert state["columnOrder"][4:] == state["selectedColumns"], (
        "behind MLflow's own columns; widths count with an order"
    )
    assert set(state["columnWidths"]) == set(state["columnOrder"])
    assert "metrics.`train/cls`" not in state["selectedColumns"]


def test_a_threshold_that_saw_the_truth_is_no_headline() -> None:
    cams = [name for name in SCORED if "segmentation" not in name]
    assert _state(views(cams, {}), RUNS)["orderByKey"] == "metrics.`miou/cam/test/held-out`"


def test_runs_without_scores_are_not_sorted_by_one() -> None:
    assert "orderByKey" not in _state(views(["train/cls"], {}), RUNS)


def test_the_menu_lists_runs_before_studies_before_sweeps() -> None:
    found = {tag: json.loads(text) for tag, text in views(SCORED, {}).items()}
    newest_first = sorted(found, key=lambda tag: -found[tag]["createdAt"])
    assert newest_first == [PREFIX + view for view in (RUNS, "studies", "sweeps")]


def test_a_view_is_set_once_and_what_somebody_saved_stays() -> None:
    first = views(SCORED, {})
    assert views(SCORED, first) == {}
    more = [*SCORED, *["miou/segmentation/val"] * 5]
    assert set(views(more, first)) == {PREFIX + RUNS, PREFIX + "studies"}
    theirs = json.dumps({**json.loads(first[PREFIX + RUNS]), "updatedAt": 1700000000000})
    assert set(views(more, first | {PREFIX + RUNS: theirs})) == {PREFIX + "studies"}


def test_the_description_leads_to_boards_unless_somebody_wrote_one() -> None:
    (text,) = note([("cam on toy", "#/a"), ("fsr on toy", "#/b")], {}).values()
    assert text == f"{BOARDS}[cam on toy](#/a) · [fsr on toy](#/b)"
    assert note([("cam on toy", "#/a")], {NOTE: text}) == {NOTE: f"{BOARDS}[cam on toy](#/a)"}
    assert note([("cam on toy", "#/a")], {NOTE: f"{BOARDS}[cam on toy](#/a)"}) == {}
    assert note([("cam on toy", "#/a")], {NOTE: "Our runs for the thesis."}) == {}
    assert note([], {}) == {}
