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
from harness.datasets import open_dataset
from harness.datasets.labels import IGNORE
from harness.datasets.weak.sheet import PAINT, TILE, contact_sheet
from harness.datasets.weak.write import MANIFEST, SHEET

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
        (["kind=points", f"out={tmp_path}", "split=trian"], "no split trian"),
        (["kind=clicks", "number=0", f"out={tmp_path}"], "at least 1"),
    ):
        assert data.main([*words, *extra]) == 2
        assert text in capsys.readouterr().err


def test_every_label_shows_on_the_sheet() -> None:
    label = np.full((600, 900), IGNORE, np.uint8)
    label[599, 899], label[300, 400] = 5, 0
    sheet = contact_sheet([("a", np.zeros((600, 900, 3), np.uint8), label)] * 2, columns=3)
    assert sheet.shape[1] == 3 * (TILE[1] + 6)
    for value in (0, 5):
        assert (sheet == PAINT[value]).all(-1).sum() >= 8
