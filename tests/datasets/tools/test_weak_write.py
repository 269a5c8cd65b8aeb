"""`weak-labels` writes what is derived, the same bytes each time, and a sheet to look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.io.colours import PALETTE
from harness.datasets.tools.sheet import TILE, contact_sheet
from harness.datasets.tools.write import kind_word
from harness.datasets.weak.manifest import MANIFEST, SHEET
from harness.errors import BadInput

Maker = Callable[..., Path]


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["points", "scribbles", "clicks", "blocks"])
def test_same_seed_same_bytes_and_what_is_written_is_read_again(kind: str, voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    words = ["weak-labels", f"kind={kind}", "data=folder", f"data.root={root}"]
    name = "clicks20" if kind == "clicks" else kind
    for out in ("one", "two"):
        assert data.main([*words, f"out={tmp_path / out}"]) == 0
    assert data.main([*words, f"out={tmp_path / 'other'}", "seed=1"]) == 0
    one, two, other = (written(tmp_path / out / "weak" / name) for out in ("one", "two", "other"))
    assert one == two
    assert one.keys() == other.keys()
    assert one != other
    derived = open_dataset("folder", root=str(root))
    dataset = open_dataset("folder", root=str(root), options={"weak": str(tmp_path / "one")})
    ids = dataset.ids("train")
    for image_id in ids:
        np.testing.assert_array_equal(dataset.weak(image_id, name), derived.weak(image_id, name))
    assert dataset.weak_fingerprint(ids, name).startswith("files ")
    manifest = json.loads(one[MANIFEST])
    assert (manifest["kind"], manifest["seed"], manifest["split"]) == (name, 0, "train")
    assert manifest["files"] == {i: hashlib.sha256(one[f"{i}.png"]).hexdigest() for i in ids}
    assert manifest["masks"] == dataset.fingerprint(ids)
    with Image.open(tmp_path / "one/weak" / name / f"{ids[0]}.png") as image:
        assert image.mode == "P"
    assert (tmp_path / "one/weak" / name / SHEET).stat().st_size > 1000


def test_shapes_writes_its_own(tmp_path: Path) -> None:
    words = ["weak-labels", "kind=scribbles", "data=shapes", "data.n_train=3", "data.n_val=1", "data.n_test=1"]
    assert data.main([*words, f"out={tmp_path}"]) == 0
    dataset = open_dataset("shapes", options={"n_train": "3"})
    found = np.asarray(Image.open(tmp_path / "weak/scribbles/train~000001.png"))
    np.testing.assert_array_equal(found, dataset.weak("train/000001", "scribbles"))
    assert data.main([*words, f"out={tmp_path}", "seed=1"]) == 2


def test_bad_words_exit_2(voc_folder: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder()
    (tmp_path / "file").write_text("")
    words = ["weak-labels", "data=folder", f"data.root={root}"]
    for extra, text in (
        ([], "kind: not given"),
        (["kind=dots", f"out={tmp_path}"], "no weak labels are called 'dots'"),
        (["kind=points", f"out={tmp_path / 'file/x'}"], "cannot write"),
        (["kind=points", f"out={tmp_path}", "split=trian"], "split: 'trian' is unknown"),
        (["kind=clicks", "number=0", f"out={tmp_path}"], "at least 1"),
    ):
        assert data.main([*words, *extra]) == 2
        assert text in capsys.readouterr().err


def test_every_label_shows_on_the_sheet() -> None:
    label = np.full((600, 900), IGNORE, np.uint8)
    label[599, 899], label[300, 400] = 5, 0
    sheet = contact_sheet([("a", np.zeros((600, 900, 3), np.uint8), label)] * 2, columns=3, grow=True)
    assert sheet.shape[1] == 3 * (TILE[1] + 6)
    for value in (0, 5):
        assert (sheet == PALETTE[value]).all(-1).sum() >= 8


def painted(label: np.ndarray, value: int, **words: bool) -> int:
    sheet = contact_sheet([("", np.full((*label.shape, 3), 90, np.uint8), label)], columns=1, **words)
    return int((sheet[14:] == PALETTE[value]).all(-1).sum())


def test_dots_alone_grow_on_the_sheet_and_none_eats_another() -> None:
    """On a tile of the picture's own size: a dot becomes 7x7, two near ones share the ground, a stroke stays."""
    label = np.full(TILE, IGNORE, np.uint8)
    label[100, 100], label[100, 104] = 3, 2
    areas = sorted((painted(label, 3, grow=True), painted(label, 2, grow=True)))
    assert areas == [38, 39], "7x11 pixels, divided evenly"
    for share in (0.001, 0.5):
        stroke = np.full(TILE, IGNORE, np.uint8)
        stroke[50:53, 20:200] = 4
        stroke[120 : 120 + int(share * 100)] = 5
        assert painted(stroke, 4, grow=False) == 3 * 180


def test_strokes_of_small_pictures_stay_lines_on_the_sheet() -> None:
    label = np.full((96, 128), IGNORE, np.uint8)
    label[40:42, 10:50] = 6
    assert painted(label, 6, grow=False) == 5 * 100  # 2.5 times in both directions


@pytest.mark.parametrize("kind", ["pionts", "../../../esc", "masks", "clicks0", "tags"])
def test_a_wrong_kind_makes_no_folder(kind: str, voc_folder: Maker, tmp_path: Path, capsys) -> None:
    words = ["weak-labels", "data=folder", f"data.root={voc_folder()}", f"kind={kind}", f"out={tmp_path / 'out'}"]
    before = sorted(tmp_path.rglob("*"))
    assert data.main(words) == 2
    assert f"kind: no weak labels are called {kind!r}" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_kind_and_number_name_one_kind() -> None:
    assert kind_word("clicks", None) == "clicks20"
    assert kind_word("clicks", 7) == kind_word("clicks7", 7) == kind_word("clicks7", None) == "clicks7"
    assert kind_word("points", None) == "points"
    for kind, number, text in (
        ("clicks20", 50, "number: 50, but kind=clicks20\n    fix: kind=clicks number=50, or no number"),
        ("points", 3, "number: 3, but kind=points"),
        ("pionts", None, "kind: no weak labels are called 'pionts'\n    fix: did you mean points?"),
    ):
        with pytest.raises(BadInput) as caught:
            kind_word(kind, number)
        assert str(caught.value).startswith(text)


def test_labels_of_an_earlier_run_do_not_stay(voc_folder: Maker, tmp_path: Path, capsys) -> None:
    root = voc_folder()
    words = ["weak-labels", "kind=points", "data=folder", f"data.root={root}", f"out={tmp_path / 'out'}"]
    folder = tmp_path / "out/weak/points"
    assert data.main(words) == 0
    listed = (root / "ImageSets/Segmentation/train.txt").read_text()
    (root / "ImageSets/Segmentation/train.txt").write_text(listed.replace("a3\n", ""))
    assert data.main(words) == 0
    assert not (folder / "a3.png").exists()
    assert len(list(folder.glob("*.png"))) == 11 + 1
    Image.new("L", (32, 24)).save(folder / "foreign.png")
    capsys.readouterr()
    assert data.main(words) == 2
    assert "1 other PNGs, which would be read with the labels: foreign.png" in capsys.readouterr().err
    assert (folder / "foreign.png").exists()


def test_a_label_that_differs_from_its_manifest_is_refused(voc_folder: Maker, tmp_path: Path) -> None:
    root = voc_folder()
    out = tmp_path / "out"
    assert data.main(["weak-labels", "kind=points", "data=folder", f"data.root={root}", f"out={out}"]) == 0
    folder = out / "weak/points"
    (folder / "a4.png").write_bytes((folder / "a5.png").read_bytes())

    def answer() -> str:
        dataset = open_dataset("folder", root=str(root), options={"weak": str(out)})
        with pytest.raises(BadInput) as caught:
            dataset.weak_fingerprint(dataset.ids("train"), "points")
        return str(caught.value)

    assert "points/a4.png: differs from what manifest.json says of it" in answer()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]["a5"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert "points/a5.png: is not in manifest.json" in answer()
    folder.rename(out / "weak/scribbles")
    dataset = open_dataset("folder", root=str(root), options={"weak": str(out)})
    with pytest.raises(BadInput, match=r"scribbles/manifest\.json: these are points, scribbles are expected here"):
        dataset.weak("a1", "scribbles")
    (out / "weak/scribbles" / MANIFEST).write_text('{"made by": "someone else"}')
    assert open_dataset("folder", root=str(root), options={"weak": str(out)}).weak("a4", "scribbles").shape == (24, 32)


def test_what_is_written_for_void_images_is_read_again(voc_folder: Maker, mask_writer, tmp_path: Path) -> None:
    root = voc_folder()
    mask_writer(root / "SegmentationClass/a0.png", np.full((24, 32), IGNORE))
    out = tmp_path / "out"
    for kind in ("points", "blocks"):
        assert data.main(["weak-labels", f"kind={kind}", "data=folder", f"data.root={root}", f"out={out}"]) == 0
    dataset = open_dataset("folder", root=str(root), options={"weak": str(out)})
    for kind in ("points", "blocks"):
        assert dataset.weak_fingerprint(dataset.ids("train"), kind).startswith("files ")
    assert (dataset.weak("a0", "points") == IGNORE).all()
