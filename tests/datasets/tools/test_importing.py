"""Foreign CAM folders become the files that `harness.evaluate cams=` reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniatures import cams_of

from harness import data
from harness.datasets.tools.importing import import_cams, target
from harness.errors import BadInput

MAPS = np.random.default_rng(0).random((2, 5, 6)).astype(np.float32)
LAYOUTS: dict[str, Any] = {
    "clip-es": {"keys": np.array([7, 2]), "attn_highres": MAPS.astype(np.float16)},
    "sipe": {"keys": np.array([0, 8, 3]), "IS_CAM": np.concatenate([MAPS[:1] * 0 + 0.5, MAPS])},
    "irn, sfc": {"keys": torch.tensor([7, 2]), "cam": torch.zeros(2, 2, 2), "high_res": MAPS},
    "irn without high_res": {"keys": torch.tensor([7, 2]), "cam": torch.from_numpy(MAPS).double().numpy()},
    "padded keys": {"keys": np.array([0, 8, 3]), "hr_cam": MAPS},
    "mctformer": {7: MAPS[0], 2: MAPS[1]},
    "text keys": {"7": MAPS[0], "2": MAPS[1]},
    "torch tensors": {7: torch.from_numpy(MAPS[0]), 2: torch.from_numpy(MAPS[1])},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_maps(layout: str, tmp_path: Path) -> None:
    np.save(tmp_path / "2007_1.npy", LAYOUTS[layout])
    done = import_cams(tmp_path, tmp_path / "out", ["2007_1", "2007_2"], 20)
    assert (done.written, done.kept, done.missing, done.foreign) == (1, 0, ("2007_2",), ())
    with np.load(tmp_path / "out/2007_1.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["cam", "classes"]
        assert file["classes"].dtype == np.int16
        assert file["cam"].dtype == np.float16
        assert file["classes"].tolist() == [2, 7]
        np.testing.assert_array_equal(file["cam"], MAPS[::-1].astype(np.float16))


def test_images_without_a_class() -> None:
    for content in ({"keys": np.zeros(0, int)}, {}, {"keys": np.array([-1]), "attn_highres": np.zeros((3, 4, 4))}):
        classes, cam = cams_of(content, "x", 20)
        assert classes.shape == (0,)
        assert cam.shape[0] == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (np.zeros((2, 2)), "an array of shape"),
        ({"keys": np.array([1]), "cam": np.zeros((2, 3, 3))}, "1 keys for 2 maps"),
        ({"keys": np.array([1]), "cam": np.zeros((3, 3))}, "cam of shape"),
        ({"keys": np.array([1.5]), "cam": np.zeros((1, 3, 3))}, "keys"),
        ({"keys": np.array([1])}, "no maps beside its keys"),
        ({"keys": np.array([20]), "cam": np.zeros((1, 3, 3))}, "20 foreground classes"),
        ({"keys": np.array([1, 1]), "cam": np.zeros((2, 3, 3))}, "classes 1, 1"),
        ({"a": np.zeros((3, 3))}, "keys 'a', class numbers expected"),
        ({1: np.zeros((3, 3)), 2: np.zeros((3, 4))}, "several shapes"),
        ({1: "text"}, "a str for a class, a map"),
        ({1: np.zeros((1, 3, 3))}, "an array of shape (1, 3, 3) and type float64 for a class, a map"),
        (np.zeros((4, 3, 3)), "harness.evaluate cams= reads them as they are"),
        ({1: np.full((3, 3), np.nan)}, "undefined values"),
        ({1: np.full((3, 3), 2.0)}, "normalise=true"),
        ({1: np.full((3, 3), -1.0)}, "normalise=true"),
    ],
)
def test_what_holds_no_cam_is_named(content: Any, text: str) -> None:
    with pytest.raises(BadInput, match=r"f\.npy") as caught:
        cams_of(content, "f.npy", 20)
    assert text in str(caught.value)


def test_raw_scores_are_normalised_when_asked_for() -> None:
    _, cam = cams_of({3: np.array([[-2.0, 0.0], [5.0, 10.0]])}, "x", 20, normalise=True)
    np.testing.assert_array_equal(cam, [[[0, 0], [0.5, 1]]])


def test_good_files_are_written_all_errors_come_and_the_next_call_goes_on(
    voc_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, cams, out = voc_folder(), tmp_path / "cams", tmp_path / "out"
    cams.mkdir()
    for i in range(8):
        np.save(cams / f"a{i}.npy", {i % 2: MAPS[0]})
    np.save(cams / "stranger.npy", {0: MAPS[0]})
    (cams / "a2.npy").write_bytes(b"junk")
    np.save(cams / "a3.npy", {"keys": np.array([9]), "cam": MAPS[:1]})
    words = ["import-cams", "data=folder", f"data.root={root}", f"cams={cams}", f"out={out}"]
    assert data.main(words) == 2
    text = capsys.readouterr().err
    assert "a2.npy: refused" in text
    assert "a3.npy: classes 9" in text
    assert len(list(out.glob("*.npz"))) == 6
    assert not list(out.glob(".*"))
    before = {path.name: path.stat().st_ino for path in out.glob("*.npz")}
    for i in (2, 3):
        np.save(cams / f"a{i}.npy", {0: MAPS[1]})
    np.save(cams / "a4.npy", {1: MAPS[1]})
    os.utime(cams / "a4.npy", ns=(1, 1))
    assert data.main(words) == 0
    told = capsys.readouterr().out
    assert "3 files converted" in told
    assert "5 were there already" in told
    assert "images have none: a8" in told
    assert "stranger.npy" in told
    after = {path.name: path.stat().st_ino for path in out.glob("*.npz")}
    assert {name for name, inode in after.items() if before.get(name) == inode} == {
        f"a{i}.npz" for i in (0, 1, 5, 6, 7)
    }
    assert data.main([*words, "again=true"]) == 0
    assert "8 files converted" in capsys.readouterr().out


def test_words_and_folders_are_answered(voc_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = voc_folder()
    (tmp_path / "empty").mkdir()
    assert data.main(["import-cams", "data=folder", f"data.root={root}"]) == 2
    for source, text in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "empty: no .npy files in it")):
        with pytest.raises(BadInput, match=text):
            import_cams(source, tmp_path / "out", ["a"], 3)
    np.save(tmp_path / "empty/a.npy", {0: MAPS[0]})
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        import_cams(tmp_path / "empty", tmp_path / "file/out", ["a"], 3)
    assert target(Path("o"), "train/000001") == Path("o/train~000001.npz")


def test_other_options_convert_again_and_equal_ones_do_not(tmp_path: Path) -> None:
    cams, out = tmp_path / "cams", tmp_path / "out"
    cams.mkdir()
    for i in range(4):
        np.save(cams / f"a{i}.npy", {1: np.array([[0.0, 0.25], [0.5, 0.5]])})
    ids = [f"a{i}" for i in range(4)]

    def call(**options: Any) -> tuple[int, int, float]:
        done = import_cams(cams, out, ids, **{"num_classes": 3, "dataset": "voc", **options})
        with np.load(out / "a2.npz") as file:
            return done.written, done.kept, float(file["cam"].max())

    assert call() == (4, 0, 0.5)
    assert call() == (0, 4, 0.5)
    assert call(normalise=True) == (4, 0, 1.0)
    assert call(normalise=True) == (0, 4, 1.0)
    (out / "a2.npz").write_bytes((out / "a2.npz").read_bytes()[:-3])
    np.save(cams / "a3.npy", {1: np.array([[0.0, 0.25], [0.5, 0.5]])})
    assert call(normalise=True) == (2, 2, 1.0)
    assert call() == (4, 0, 0.5)
    assert call(num_classes=2) == (4, 0, 0.5)
    assert call(num_classes=2, dataset="coco") == (4, 0, 0.5)
    with pytest.raises(BadInput, match="1 foreground classes"):
        call(num_classes=1)


def test_coco_names_in_every_form_and_unclear_ones(tmp_path: Path) -> None:
    ids = [f"COCO_train2014_{number:012d}" for number in (9, 25, 30)] + ["COCO_val2014_000000000042"]
    for name in ("000000000009", "25", "COCO_train2014_000000000030", "COCO_val2014_000000000009", "000000000042"):
        np.save(tmp_path / f"{name}.npy", {0: MAPS[0]})
    done = import_cams(tmp_path, tmp_path / "out", ids, 80)
    assert (done.written, done.missing, done.foreign) == (4, (), ("COCO_val2014_000000000009.npy",))
    assert {path.stem for path in (tmp_path / "out").iterdir()} == set(ids)
    np.save(tmp_path / "9.npy", {0: MAPS[0]})
    with pytest.raises(BadInput, match=r"1 images have two files: 000000000009\.npy and 9\.npy"):
        import_cams(tmp_path, tmp_path / "out", ids, 80)
    (tmp_path / "9.npy").rename(tmp_path / "000001.npy")
    with pytest.raises(BadInput, match=r"000001\.npy \(train/000001 or val/000001\)"):
        import_cams(tmp_path, tmp_path / "out", [*ids, "train/000001", "val/000001"], 80)
    (tmp_path / "000001.npy").rename(tmp_path / "val~000001.npy")
    assert import_cams(tmp_path, tmp_path / "out", [*ids, "train/000001", "val/000001"], 80).missing == (
        "train/000001",
    )


def test_one_fault_of_all_files_is_told_once(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(9)]
    for n, image_id in enumerate(ids):
        np.save(tmp_path / f"{image_id}.npy", {"cat" if n % 2 else "dog": MAPS[0]})  # type: ignore[arg-type]
    with pytest.raises(BadInput) as caught:
        import_cams(tmp_path, tmp_path / "out", ids, 20)
    (problem,) = caught.value.problems
    assert problem.found == "keys 'dog', class numbers expected; likewise 8 more: i1.npy, i2.npy, i3.npy, i4.npy, ..."


def test_maps_of_true_and_false_are_maps() -> None:
    classes, cam = cams_of({3: MAPS[0] > 0.5}, "x", 20)
    assert classes.tolist() == [3]
    np.testing.assert_array_equal(cam[0], (MAPS[0] > 0.5).astype(np.float16))


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("a.jpg.npy", "name each file <id>.npy"),
        ("b.npy", "name the dataset that they belong to: data=... data.root=..."),
    ],
)
def test_names_that_are_no_ids_are_told_as_what_they_are(tmp_path: Path, name: str, fix: str) -> None:
    np.save(tmp_path / name, np.zeros((1, 2, 2), np.float32))
    with pytest.raises(BadInput) as caught:
        import_cams(tmp_path, tmp_path / "out", ["a"], 20)
    assert [problem.fix for problem in caught.value.problems] == [fix]


def test_archives_are_named_as_what_needs_no_import(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", classes=np.array([1]), cam=MAPS[:1])
    with pytest.raises(BadInput, match=f"need no import .*: harness.evaluate cams={tmp_path}"):
        import_cams(tmp_path, tmp_path / "out", ["i"], 20)
