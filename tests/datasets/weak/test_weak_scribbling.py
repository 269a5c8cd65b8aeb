"""`data.scribble_length` and `data.scribble_style`: shorter strokes are parts of longer ones, of whatever source."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.weak.curves import curve
from harness.datasets.weak.derive import derive
from harness.datasets.weak.scribbling import Scribbling, parse_scribbling
from harness.datasets.weak.shortened import shortened
from harness.errors import BadInput

RATIOS = (0.0, 0.3, 0.5, 0.8, 1.0)


def mask() -> np.ndarray:
    """Two discs and a bar on background, with a void frame."""
    y, x = np.mgrid[:120, :160]
    out = np.zeros((120, 160), np.uint8)
    out[np.hypot(y - 40, x - 40) < 25] = 1
    out[np.hypot(y - 80, x - 120) < 30] = 2
    out[100:108, 10:90] = 3
    out[:2] = IGNORE
    return out


@pytest.mark.parametrize("style", ["skeleton", "curve"])
@pytest.mark.parametrize("has_background", [True, False])
def test_derived_strokes_are_nested_and_keep_every_class(style, has_background):
    truth = mask()
    maps = [
        derive(truth, "scribbles", "a", has_background=has_background, how=Scribbling(ratio, style)) for ratio in RATIOS
    ]
    held = [set(np.unique(m)) for m in maps]
    assert all(h == held[0] for h in held)
    assert {1, 2, 3} <= held[0]
    for shorter, longer in pairwise(maps):
        labelled = shorter != IGNORE
        assert (longer[labelled] == shorter[labelled]).all()
        assert (longer != IGNORE).sum() > labelled.sum()
    for m in maps:
        assert (m[m != IGNORE] == truth[m != IGNORE]).all()
    assert (maps[0] == 1).sum() <= 9, "a point of the stroke, three pixels wide"


def test_whole_strokes_along_middle_lines_are_what_they_were():
    truth = mask()
    plain = derive(truth, "scribbles", "a", has_background=True)
    assert (plain == derive(truth, "scribbles", "a", has_background=True, how=Scribbling(1.0, "skeleton"))).all()
    assert (plain != derive(truth, "scribbles", "a", has_background=True, how=Scribbling(1.0, "curve"))).any()


def test_a_curve_is_one_run_of_neighbours_inside_and_follows_its_generator():
    inside = mask() == 2
    path = curve(inside, np.random.default_rng(3))
    assert path == curve(inside, np.random.default_rng(3))
    assert path != curve(inside, np.random.default_rng(4))
    assert all(inside[p] for p in path)
    steps = np.abs(np.diff(np.array(path), axis=0)).max(1)
    assert set(steps.tolist()) == {1}
    assert len(path) > 15
    assert curve(np.zeros((3, 3), bool), np.random.default_rng(0)) == []
    assert curve(np.eye(1, dtype=bool), np.random.default_rng(0)) == [(0, 0)]


def test_strokes_of_pixels_are_cut_to_their_middle():
    """A bar of 3x31 and a dot: half keeps 15 cells of the skeleton and a border of 2; the dot stays."""
    label = np.full((20, 60), IGNORE, np.uint8)
    label[5:8, 10:41] = 4
    label[15, 50] = 2
    half = shortened(label, 0.5)
    columns = np.flatnonzero((half == 4).any(0))
    assert (columns[0] - 10, 40 - columns[-1]) == pytest.approx((6, 6), abs=2)
    assert 15 <= len(columns) <= 19
    assert half[15, 50] == 2
    nested = [shortened(label, r) != IGNORE for r in RATIOS]
    assert all((a <= b).all() for a, b in pairwise(nested))
    for ratio in RATIOS:
        assert ndimage.label(shortened(label, ratio) == 4, np.ones((3, 3)))[1] == 1


def test_options_reach_shapes_and_its_fingerprint():
    small = {"n_train": "3", "n_val": "1", "n_test": "1"}
    whole = open_dataset("shapes", options=small)
    spots = open_dataset("shapes", options={**small, "scribble_length": "0"})
    curves = open_dataset("shapes", options={**small, "scribble_style": "curve"})
    i = whole.ids("train")[0]
    assert ((spots.weak(i, "scribbles") != IGNORE) <= (whole.weak(i, "scribbles") != IGNORE)).all()
    assert (spots.weak(i, "scribbles") != whole.weak(i, "scribbles")).any()
    assert (spots.weak(i, "points") == whole.weak(i, "points")).all()
    texts = [d.weak_fingerprint((i,), "scribbles") for d in (whole, spots, curves)]
    assert texts == ["", "length 0", "style curve"]
    assert spots.weak_fingerprint((i,), "points") == ""


def test_bad_words_are_named_together():
    with pytest.raises(BadInput) as caught:
        parse_scribbling({"scribble_length": "2", "scribble_style": "kurve"})
    assert [p.where for p in caught.value.problems] == ["data.scribble_length", "data.scribble_style"]
    with pytest.raises(BadInput, match="did you mean scribble_length, scribble_style"):
        open_dataset("shapes", options={"scribble_lenght": "1"})


def folder(path, xml: bool = False):
    """A folder of one training image with a scribble of 41 pixels at y = 20."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "scribbles"):
        (path / name).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (64, 48), (90, 120, 60)).save(path / f"JPEGImages/{name}.jpg")
        truth = np.zeros((48, 64), np.uint8)
        truth[10:30] = 1
        Image.fromarray(truth).save(path / f"SegmentationClass/{name}.png")
    for split, name in (("train", "a"), ("val", "b")):
        (path / f"ImageSets/Segmentation/{split}.txt").write_text(name + "\n")
    (path / "classes.txt").write_text("background\nthing\n")
    if xml:
        points = "".join(f"<point><X>{x}</X><Y>20</Y></point>" for x in (10, 50))
        text = f"<annotation><polygon><tag>thing</tag>{points}</polygon></annotation>"
        (path / "scribbles/a.xml").write_text(text)
    else:
        drawn = np.full((48, 64), IGNORE, np.uint8)
        drawn[19:22, 10:51] = 1
        Image.fromarray(drawn).save(path / "scribbles/a.png")
    return path


@pytest.mark.parametrize("xml", [False, True])
def test_scribbles_of_files_are_shortened_and_keep_their_style(tmp_path, xml):
    root = str(folder(tmp_path, xml))
    whole = open_dataset("folder", root=root)
    half = open_dataset("folder", root=root, options={"scribble_length": "0.5"})
    widths = [np.ptp(np.flatnonzero((d.weak("a", "scribbles") == 1).any(0))) for d in (whole, half)]
    assert widths[0] == pytest.approx(42, abs=2)
    assert widths[1] == pytest.approx(22, abs=3)
    assert whole.weak_fingerprint(("a",), "scribbles") != half.weak_fingerprint(("a",), "scribbles")
    curved = open_dataset("folder", root=root, options={"scribble_style": "curve"})
    with pytest.raises(BadInput, match=r"data\.scribble_style: scribbles are read from"):
        curved.weak_fingerprint(("a",), "scribbles")
