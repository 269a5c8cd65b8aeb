"""The page's text: what it says of poor stores, what it does with names, what the command refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fixture_store import ToyStore, frame, swapped_miou
from plotly.offline import get_plotlyjs
from rasters import rasters

from benchmarks.many_runs import many_runs
from harness.cli.parsing import main
from reports.page.__main__ import run
from reports.page.build import page_of
from reports.page.charts.cost import _places

RESULTS = Path(__file__).parents[3] / "docs" / "results"
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


def figures(text: str) -> dict[str, list[dict[str, Any]]]:
    """The figures of a page by the title above them."""
    found = re.findall(
        r'<h3>([^<]*)</h3>(?:\s*<p>[^<]*</p>)?\s*<div[^>]*>\s*<div class="chart"[^>]*>\s*<script[^>]*>(.*?)</script>',
        text,
    )
    out: dict[str, list[dict[str, Any]]] = {}
    for title, figure in found:
        out.setdefault(title.partition(" · ")[0], []).append(json.loads(figure))
    return out


def test_charts_hold_the_numbers_of_the_rows(toy_root: Path) -> None:
    found = figures(page_of(toy_root))
    costs = {t["name"]: (t["x"], t["y"]) for t in found["segmentation"][0]["data"] if "name" in t}
    assert costs["cam"] == ([2.0], [pytest.approx(swapped_miou(20), rel=1e-3)])
    (heat,) = found["CAM"][1]["data"]
    assert heat["customdata"][0][1][1] == "disc"
    assert heat["z"][-1] == [pytest.approx(100 * 60 / 100, rel=1e-3), pytest.approx(100 * 20 / 60, rel=1e-3)]
    (stages,) = found["toy"]
    assert {t["name"]: sum(t["x"]) for t in stages["data"]}.keys() == {"method", "scoring"}


def test_hours_of_a_recipe_of_several_stages_are_told_stage_by_stage(toy: ToyStore) -> None:
    spent = {"start": 36.0, "method": 3600.0, "stages": 1800.0, "score": 720.0}
    by_stage = {"train": 2880.0, "write-cams": 1800.0, "train-segmenter": 720.0}
    for name, seconds in (("cam", {"method": 1800.0, "score": 360.0}), ("irn", {**spent, "by_stage": by_stage})):
        toy.trial(toy.run(name, name, seconds=json.dumps(seconds)), name)
        toy.evaluate(name, "segmentation", 10)
    found = figures(page_of(toy.root))
    # Two threads; cam, the cheaper one, first.
    bars = {t["name"]: t["x"] for t in found["By stage"][0]["data"]}
    assert bars == {
        "train": pytest.approx([1.0, 1.6]), "write-cams": pytest.approx([0.0, 1.0]),
        "train-segmenter": pytest.approx([0.0, 0.4]), "scoring": pytest.approx([0.2, 0.4]),
        "start, build, stopped runs": pytest.approx([0.0, 0.02]),
    }  # fmt: skip
    assert {t["name"]: sum(t["x"]) for t in found["toy"][0]["data"]}["method"] == pytest.approx(3.0)


def test_curves_meet_their_points(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    for rule, swaps, threshold in (("fixed", 24, 0.5), ("held-out", 20, 0.3), ("oracle", 16, 0.2)):
        name = toy.evaluate("a", "cam", swaps, rule=rule, threshold=threshold)
    rows = [
        {"eval": name, "class": c, "threshold": at, "tp": 6 * (size - n), "fp": 6 * n, "fn": 6 * n}
        for at, n in ((0.2, 16), (0.3, 20), (0.5, 24)) for c, size in ((0, 80), (1, 40))
    ]  # fmt: skip
    toy.store.write("curves", name, frame("curves", rows))
    text = page_of(toy.root)
    line, *points = figures(text)["CAM"][-1]["data"]
    assert line["x"] == [0.2, 0.3, 0.5]
    assert line["y"] == pytest.approx([swapped_miou(n) for n in (16, 20, 24)], rel=1e-3)
    at = {p["x"][0]: p["y"][0] for p in points if p["x"] != [None]}
    assert at == pytest.approx(dict(zip(line["x"], line["y"], strict=True)))
    price = text.partition("Price of choosing a threshold without the reported split: CAM")[2].partition("</table>")[0]
    assert f"+{swapped_miou(16) - swapped_miou(20):.1f} <small>" in price


def test_loss_terms_are_drawn_as_means_over_seeds(toy: ToyStore) -> None:
    for seed, shift in enumerate((0.0, 1.0)):
        toy.trial(toy.run(f"k{seed}", "fsr", seed=seed, study="s"), "s", role="final")
        toy.evaluate(f"k{seed}", "segmentation", 10)
        rows = [{"key": f"k{seed}", "stage": "train", "step": step, "name": name, "value": at + shift - step / 10}
                for name, at in (("cls", 2.0), ("seg", 3.0)) for step in range(4)]  # fmt: skip
        toy.store.write("steps", f"k{seed}", frame("steps", rows))
    (chart,) = figures(page_of(toy.root))["fsr"]
    drawn = {t["name"]: (t["x"], t["y"]) for t in chart["data"]}
    assert drawn["cls"] == ([0, 1, 2, 3], pytest.approx([2.5, 2.4, 2.3, 2.2]))
    assert drawn["seg"][1] == pytest.approx([3.5, 3.4, 3.3, 3.2])


def test_a_tuned_study_shows_optunas_views(tmp_path: Path) -> None:
    many_runs(tmp_path, studies=2, trials=10, images=4, steps=20)
    text = page_of(tmp_path)
    found = figures(text)
    assert {"History: method0", "Importance: method0", "Parallel coordinates: method0"} <= found.keys()
    assert "Default beside tuned" in text
    assert "What moved the score: method0" in text
    expected = found["Expected best of k trials"][0]["data"][0]["y"]
    assert expected == sorted(expected)
    assert len(expected) in (8, 9)
    history = found["History: method0"][0]
    seen = [v for v in history["data"][0]["y"] if v is not None]
    assert max(seen) == pytest.approx(max(expected), rel=1e-3), "in per cent, as the best of k"
    assert history["layout"]["yaxis"]["title"]["text"] == "objective in %"
    assert history["layout"]["xaxis"]["dtick"] == 1
    *lines, _ = found["Parallel coordinates: method0"][0]["data"]
    assert [what for what, _ in lines[0]["customdata"]] == ["objective in %", "depth", "norm", "ratio"]
    by_score = sorted(lines, key=lambda line: line["y"][0])
    colours = [by_score[at]["line"]["color"] for at in (0, -1)]
    assert colours == ["rgb(140, 150, 160)", "rgb(217, 114, 46)"], "grey the worst, orange the best, on any ground"
    assert "plot_bgcolor" not in found["Parallel coordinates: method0"][0]["layout"]
    assert "--least:386px" in text, "three knobs and the objective"


def test_two_trials_are_no_history(tmp_path: Path) -> None:
    many_runs(tmp_path, studies=2, trials=2, images=4, steps=4, pruned=0)
    text = page_of(tmp_path)
    assert "Default beside tuned" in text
    assert not [title for title in figures(text) if title.startswith(("History", "Parallel"))]
    assert text.count("fewer than 3 finished trials, so no history and no parallel coordinates") == 1


def test_charts_name_the_network_where_it_alone_tells_rows_apart(toy: ToyStore) -> None:
    for key, backbone in (("a", "shapes_vit"), ("b", "shapes_cnn")):
        toy.run(key, "full", backbone=backbone, study=key)
        toy.evaluate(key, "segmentation", 10 if key == "a" else 12)
    toy.run("c", "pce", study="c")
    toy.evaluate("c", "segmentation", 8)
    (heat,) = (f["data"][0] for f in figures(page_of(toy.root))["segmentation"] if f["data"][0]["type"] == "heatmap")
    names = {line[0][0] for line in heat["customdata"]}
    assert names == {"full · shapes_vit", "full · shapes_cnn", "pce"}


def test_rows_say_what_they_learned_from_and_where_they_come_from(toy: ToyStore) -> None:
    prints = json.dumps({"train": "0123456789", "report": "abcdefghij"})
    for seed in (0, 1):
        key = toy.run(
            f"key{seed}", "fsr", seed=seed, study="s", split_fingerprints=prints, pretraining="vit.safetensors"
        )
        toy.trial(key, "s", role="final")
        toy.evaluate(key, "segmentation", 10)
    text = page_of(toy.root)
    for words in (
        "vit.safetensors",
        "c0ffee",
        "0, 1",
        "key0, key1",
        "train 01234567, report abcdefgh",
        "cpu, fp32, 1 x 2",
    ):
        assert words in text, words
    assert ("python -m harness.sweep methods=fsr data=toy variant=default tier=smoke protocol=held-out trials=1 "
            "seeds=2 backbone=shapes_vit") in text  # fmt: skip


def test_a_row_is_made_again_by_the_words_of_its_sweep(toy: ToyStore) -> None:
    toy.trial(toy.run("k", "fsr", sweep="abc"), "fsr", sweep="abc")
    toy.evaluate("k", "segmentation", 10)
    words = [
        {"methods": "cam", "seeds": "9"},
        {"plan": "p.yaml", "methods": "fsr,toco", "trials": "4", "dry_run": "true"},
    ]
    outline = {"sweep": "abc", "pid": 1, "words": words, "studies": []}
    (toy.root / "sweeps").mkdir()
    (toy.root / "sweeps" / "abc.json").write_text(json.dumps(outline))
    assert "python -m harness.sweep methods=fsr,toco trials=4<" in page_of(toy.root)


def test_the_committed_board_of_photos_shows_none() -> None:
    text = page_of(RESULTS / "msrc21_tags")
    own = list(rasters(get_plotlyjs().encode(), "plotly.min.js"))  # a dot of one pixel
    assert list(rasters(text.encode(), "board.html")) == own
    assert "pictures are not in the store" in text
    assert "65.7 <small>[62.6, 68.0]" in text


def test_the_committed_page_of_shapes_has_pictures_and_stays_small() -> None:
    page = RESULTS.parent / "board.html"
    assert page.stat().st_size <= 8e6
    text = page.read_text(encoding="utf-8")
    assert len(list(rasters(text.encode(), page.name))) > 40
    # CAMs and pseudo masks that a recipe's stages made are gone with their maps (keep=maps): five cells an image of
    # three methods. Nothing else is missing.
    missing = re.search(r"(\d+) of \d+ pictures are not in the store", text)
    assert missing is None or int(missing[1]) <= 5 * 4


def test_names_stand_where_they_cover_nothing() -> None:
    # Alone a name stands to the right of its point; of two close ones the second has no room there; at the right end
    # of the chart there is none at all.
    assert _places([(1.0, 10.0, "a"), (2.0, 90.0, "b")]) == ["middle right", "middle left"]
    assert _places([(1.0, 50.0, "long name"), (1.06, 50.0, "b"), (2.0, 10.0, "c")])[:2] == [
        "middle left",
        "middle right",
    ]


def test_no_tuned_study_says_so(toy: ToyStore) -> None:
    toy.trial(toy.run("a", "a"), "a")
    toy.evaluate("a", "segmentation", 10)
    assert "Nothing was tuned here" in page_of(toy.root)


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
