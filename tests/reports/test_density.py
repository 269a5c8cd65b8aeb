"""mIoU over label density: settings, differences by hand, the picture, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from fixture_store import ToyStore, swapped_miou
from PIL import Image

from harness.cli.parsing import main
from harness.store import load
from reports.density import SCHEMA, run
from reports.rows.densities import settings_of
from reports.rows.row import Filters
from reports.sections.densities import picture

SHARES = {"points": "0.043", "clicks20": "0.20", "clicks100": "1.00", "scribbles": "2.31"}


def scored(toy: ToyStore, method: str, labels: str, swaps: int, *, density: str | None = None, **other: object) -> None:
    """A study of one run on `labels` whose prediction swaps that many pixels."""
    options = dict(other.pop("options", {}))  # type: ignore[call-overload]
    study = "-".join([method, labels, *map(str, options.values()), *map(str, other.values())])
    text = f"{density or SHARES.get(labels)} % of pixels, 3.0 marks an image"
    facts = {"train": "aa", "report": "rr"} | ({} if labels == "masks" else {"density": text})
    config = json.dumps({"class_names": ["background", "disc"], "options": options})
    values = {"supervision": labels, "split_fingerprints": json.dumps(facts), "config": config, **other}
    toy.trial(toy.run(study, method, study=study, **values), study)
    toy.evaluate(study, "segmentation", swaps)


@pytest.fixture
def dense(toy: ToyStore) -> ToyStore:
    """`pce` gains with clicks, `agmm` loses; points and scribbles stand alone; `full` is the bound."""
    for labels, pce, agmm in (("points", 20, 18), ("clicks20", 15, 12), ("clicks100", 10, 14), ("scribbles", 9, 8)):
        scored(toy, "pce", labels, pce)
        scored(toy, "agmm", labels, agmm)
    scored(toy, "full", "masks", 4)
    return toy


def test_points_stand_by_share_with_differences_by_hand(dense: ToyStore) -> None:
    (setting,) = settings_of(load(dense.root), Filters())
    assert [p.labels for p in setting.points if p.row.method == "pce"] == [
        "points", "clicks20", "clicks100", "scribbles",
    ]  # fmt: skip
    assert [p.share for p in setting.points[::2]] == pytest.approx([0.00043, 0.002, 0.01, 0.0231])
    steps = {(p.row.method, p.labels): p.step for p in setting.points}
    assert {key for key, step in steps.items() if step} == {("pce", "clicks100"), ("agmm", "clicks100")}
    gain = steps["pce", "clicks100"]
    assert 100 * gain.value == pytest.approx(swapped_miou(10) - swapped_miou(15))
    loss = steps["agmm", "clicks100"]
    assert 100 * loss.value == pytest.approx(swapped_miou(14) - swapped_miou(12))
    assert loss.high < 0
    gaps = {(p.row.method, p.labels): 100 * p.gap.value for p in setting.points}
    assert gaps["agmm", "scribbles"] == pytest.approx(swapped_miou(4) - swapped_miou(8))
    assert 100 * setting.full[1].value == pytest.approx(swapped_miou(4))


def test_lengths_of_scribbles_are_one_line_and_styles_are_not(dense: ToyStore) -> None:
    scored(dense, "pce", "scribbles", 12, density="1.10", options={"scribble_length": "0.5"})
    scored(dense, "pce", "scribbles", 11, density="1.20", options={"scribble_style": "curve"})
    (setting,) = settings_of(load(dense.root), Filters())
    found = {p.labels: p for p in setting.points if p.row.method == "pce"}
    assert 100 * found["scribbles"].step.value == pytest.approx(swapped_miou(9) - swapped_miou(12))
    assert found["scribbles length 0.5"].step is None
    assert found["scribbles style curve"].step is None


def test_other_sizes_data_and_ablations_are_never_one_line(dense: ToyStore) -> None:
    scored(dense, "pce", "clicks50", 5, density="0.50", backbone="shapes_cnn")
    scored(dense, "pce", "clicks50", 5, density="0.50", iterations=900)
    scored(dense, "pce", "clicks50", 5, density="0.50", options={"n_train": "8"})
    found = settings_of(load(dense.root), Filters())
    assert sorted(len(s.points) for s in found) == [1, 1, 1, 8]
    assert [s.full is None for s in found if len(s.points) == 1] == [True] * 3


def test_a_picture_that_is_the_same_every_time(dense: ToyStore, tmp_path: Path, capsys) -> None:
    for name in ("a.png", "b.png", "a.svg", "a.pdf"):
        assert main(run, [f"store={dense.root}", f"picture={tmp_path / name}"]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 600
    drawn = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {words} -->" in drawn for words in ("pce", "agmm", "full, masks", "clicks100"))
    assert "more − fewer" in capsys.readouterr().out


def test_a_single_density_has_no_panel_beside_several(dense: ToyStore) -> None:
    several = settings_of(load(dense.root), Filters())
    scored(dense, "pce", "clicks50", 5, density="0.50", iterations=900)
    both = settings_of(load(dense.root), Filters())
    (single,) = (s for s in both if len(s.points) == 1)
    assert picture(both, "png") == picture(several, "png") != picture([single], "png")


def test_the_table_fits_a_narrow_terminal_and_the_frame_holds_it(
    dense: ToyStore, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(run, [f"store={dense.root}"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "0.043" in text
    assert "one seed of every row" in text
    out = tmp_path / "out.parquet"
    assert main(run, [f"store={dense.root}", "format=parquet", f"out={out}"]) == 0
    read = pl.read_parquet(out)
    assert (read.height, read.columns) == (8, list(SCHEMA))
    assert read["step"].null_count() == 6


def test_bad_words_and_a_store_without_sparse_labels(toy: ToyStore, tmp_path: Path, capsys) -> None:
    scored(toy, "full", "masks", 4)
    assert main(run, [f"store={toy.root}", f"picture={tmp_path / 'no' / 'a.bmp'}"]) == 2
    assert capsys.readouterr().err.count("error:") == 2
    assert main(run, [f"store={toy.root}", f"picture={tmp_path / 'a.png'}"]) == 2
    assert "says how much they label" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
    assert main(run, [f"store={toy.root}"]) == 0
    assert "no finished run on sparse labels" in capsys.readouterr().out
