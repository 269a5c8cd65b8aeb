"""`reports.compare`: two rows paired on the same images, against resampling by hand and a store with known scores."""

import csv
import io

import polars as pl
import pytest
from fixture_store import ToyStore, swapped_miou, toy_store

import harness.store
from harness.cli.parsing import main
from harness.errors import BadInput
from harness.scoring.intervals import resample
from reports import compare as module
from reports.compare import compare
from reports.rows.row import Filters
from reports.rows.rows import rows_of
from reports.sections.beside import beside


@pytest.fixture
def toy(tmp_path):
    return toy_store(tmp_path / "store")


def tables(toy):
    return harness.store.load(toy.root)


def test_two_rows_on_the_same_images(toy):
    found = compare(tables(toy), "fsr", "cam")
    assert (found.quantity.target, found.images) == ("segmentation", 6)
    mean = found.lines[0]
    fsr = (swapped_miou(10) + swapped_miou(8)) / 2
    assert 100 * mean.a.value == pytest.approx(fsr)
    assert 100 * mean.b.value == pytest.approx(swapped_miou(20))
    assert 100 * mean.difference.value == pytest.approx(fsr - swapped_miou(20))
    assert mean.difference.low > 0
    assert mean.p < 0.05
    assert [(x.label, x.name) for x in found.lines[1:]] == [(0, "background"), (1, "disc")]
    disc = found.lines[2]
    assert disc.difference.value == pytest.approx((30 / 50 + 32 / 48) / 2 - 20 / 60)


def test_it_is_the_resampling_of_the_leaderboard(tmp_path):
    toy = ToyStore(tmp_path / "store")
    for name, swaps in (("one", (3, 9, 14, 2, 7, 5)), ("two", (8, 9, 12, 6, 9, 1))):
        toy.trial(toy.run(name, name), name)
        toy.evaluate(name, "segmentation", swaps)
    results = tables(toy)
    frames = [
        [results.counts.filter(pl.col("eval").str.starts_with(n)).select("image", "class", "tp", "fp", "fn")]
        for n in ("one", "two")
    ]
    drawn = resample(frames, classes=True)
    found = compare(results, "one", "two")
    assert found.lines[0].difference == drawn.difference(0, 1)
    assert [x.difference for x in found.lines[1:]] == drawn.class_differences(0, 1)
    back = compare(results, "two", "one").lines[0].difference
    assert back.value == -found.lines[0].difference.value
    assert (back.low, back.high) == pytest.approx((-found.lines[0].difference.high, -found.lines[0].difference.low))


def test_rows_by_study_and_key_and_with_or_without_crf(toy):
    toy.evaluate("cam0", "segmentation", 12, crf="toco")
    results = tables(toy)
    assert compare(results, "fsr0", "cam0").lines[0].b.value == pytest.approx(swapped_miou(20) / 100)
    with_crf = compare(results, "cam", "cam", crf="toco")
    assert with_crf.lines[0].a.value == pytest.approx(swapped_miou(12) / 100)
    assert with_crf.lines[0].difference.value == 0
    assert with_crf.lines[0].p == 1
    assert compare(results, "fsr", "cam", target="cam").quantity.target == "cam"
    cam, crf = (r for r in rows_of(results, Filters()) if r.method == "cam")
    assert (cam.targets, cam.inference.crf) == (("cam", "segmentation"), "none")
    assert (crf.targets, crf.inference.crf) == (("segmentation",), "toco")


def test_names_that_fit_nothing_or_several(toy):
    toy.trial(toy.run("other0", "cam", tier="lab"), "other")
    toy.evaluate("other0", "segmentation", 20)
    results = tables(toy)
    with pytest.raises(BadInput) as caught:
        compare(results, "camm", "cam")
    text = str(caught.value)
    assert "'camm' names no row" in text
    assert "did you mean cam" in text
    assert "'cam' names 2 rows" in text
    assert "other0" in text
    with pytest.raises(BadInput, match="the rows share no pseudo"):
        compare(results, "fsr", "full", target="pseudo")


def test_rows_of_other_images_are_refused(tmp_path):
    toy = ToyStore(tmp_path / "store")
    for name in ("one", "two"):
        toy.trial(toy.run(name, name), name)
        toy.evaluate(name, "segmentation", 4)
    results = tables(toy)
    other = results.counts.with_columns(
        image=pl.when(pl.col("eval").str.starts_with("two")).then(pl.col("image") + "x").otherwise("image")
    )
    with pytest.raises(BadInput, match="different images"):
        compare(harness.store.Results(**{**vars(results), "counts": other}), "one", "two")


def test_every_format(toy, capfdbinary, tmp_path):
    words = ["fsr", "cam", f"store={toy.root}"]
    for form, start in (("terminal", b"fsr against cam"), ("markdown", b"## fsr against cam"), ("html", b"<!")):
        assert main(module.run, [*words, f"format={form}"]) == 0
        out = capfdbinary.readouterr().out
        assert start.lower() in out.lower(), form
        assert b"disc" in out
    assert main(module.run, [*words, "format=csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))
    assert [line["name"] for line in lines] == ["mean", "background", "disc"]
    assert float(lines[0]["difference_difference"]) > 0
    assert main(module.run, [*words, "format=parquet", f"out={tmp_path}/x.parquet"]) == 0
    frame = pl.read_parquet(tmp_path / "x.parquet")
    assert frame["class"].to_list() == [None, 0, 1]
    assert main(module.run, ["fsr", f"store={toy.root}"]) == 2
    assert main(module.run, [*words, "target=masks"]) == 2
    assert b"target" in capfdbinary.readouterr().err


def test_one_eval_beside_all_others(toy):
    results = tables(toy)
    (eval_id,) = results.evals.filter(
        pl.col("key") == "cam0", pl.col("target") == "segmentation"
    )["eval"]  # fmt: skip
    text = beside(results, eval_id)
    assert f"mIoU {swapped_miou(20):.1f}" in text
    other = text[text.index("Beside other rows") :]
    assert [line.split()[0] for line in other.splitlines() if line.strip().startswith(("fsr", "twin", "full"))]
    assert f"{swapped_miou(20) - (swapped_miou(4)):.1f}" in other
