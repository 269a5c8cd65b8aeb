"""What a plug-in adds to its base, against scores that are worked out by hand."""

from __future__ import annotations

import pytest
from fixture_store import SWEEP, ToyStore, swapped_miou

from harness.store import load
from reports.sections.leaderboard import build


def scored(toy: ToyStore, method: str, swaps: int, *, cam: int | None = None, **words: object) -> None:
    key = f"{method}-{words.get('study', '')}"
    toy.trial(toy.run(key, method, **words), str(words.get("study") or method), objective=0.5)
    toy.evaluate(key, "segmentation", swaps)
    if cam is not None:
        toy.evaluate(key, "cam", cam)


def sections(tmp_path) -> list:
    table = build(load(tmp_path), sweep=SWEEP).table
    return [s for s in table.sections if s.heading.startswith("What plug-ins add")]


def test_differences_to_the_base_by_hand(tmp_path):
    toy = ToyStore(tmp_path)
    scored(toy, "cam", 20, cam=24)
    scored(toy, "cam+plug", 10, cam=16)
    scored(toy, "cam+other", 25)
    scored(toy, "fsr", 12)
    (found,) = sections(tmp_path)
    assert [c.id for c in found.columns] == ["method", "base", "cam", "cam_p", "segmentation", "segmentation_p"]
    rows = {str(r["method"]): r for r in found.rows}
    assert list(rows) == ["cam+plug", "cam+other"]
    assert {r["base"] for r in found.rows} == {"cam"}
    for method, swaps in (("cam+plug", 10), ("cam+other", 25)):
        cell = rows[method]["segmentation"]
        assert cell.value == pytest.approx(swapped_miou(swaps) - swapped_miou(20))
        assert (cell.low, cell.high) == pytest.approx((cell.value, cell.value)), "all images are alike"
    assert rows["cam+plug"]["cam"].value == pytest.approx(swapped_miou(16) - swapped_miou(24))
    assert "cam" not in rows["cam+other"], "it made no CAM"


def test_only_the_base_alone_on_the_same_network_is_a_base(tmp_path):
    toy = ToyStore(tmp_path)
    scored(toy, "cam", 20, backbone="vit_tiny_patch16_224")
    scored(toy, "cam+plug", 10)
    assert sections(tmp_path) == []
    scored(toy, "cam", 30, study="same")
    (found,) = sections(tmp_path)
    assert found.rows[0]["segmentation"].value == pytest.approx(swapped_miou(10) - swapped_miou(30))


def test_without_plug_ins_nothing_is_said(tmp_path):
    toy = ToyStore(tmp_path)
    scored(toy, "cam", 20)
    scored(toy, "fsr", 10)
    assert sections(tmp_path) == []
