"""ACDC: volumes become slices, patients stay whole, and damaged volumes are named."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import miniatures
import nibabel
import numpy as np
import pytest

from harness.datasets import acdc, open_dataset
from harness.datasets.acdc.volumes import read_images, read_labels, volume_shape
from harness.datasets.splits import carve, plan_splits
from harness.errors import BadInput, Problem


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acdc, "SIZES", miniatures.ACDC_SIZES)


def refusal(root: Path, **words: str) -> list[Problem]:
    with pytest.raises(BadInput) as caught:
        open_dataset("acdc", root=str(root), **words)
    return caught.value.problems


def patients(ids: tuple[str, ...]) -> set[str]:
    return {image_id[:10] for image_id in ids}


def test_slices_read_as_they_were_written(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    dataset = open_dataset("acdc", root=str(tmp_path))
    assert (dataset.name, dataset.family) == ("acdc", "acdc")
    assert (dataset.class_names, dataset.has_background) == (("background", "RV", "Myo", "LV"), True)
    assert dataset.splits() == {"train": True, "val": True, "test": True}
    every = dataset.ids("train") + dataset.ids("val") + dataset.ids("test")
    assert len(set(every)) == len(every) == 17 * 2 * miniatures.ACDC_SLICES
    dataset.check(every)
    image, labels = miniatures.acdc_volume("patient003", 12)
    for z in range(miniatures.ACDC_SLICES):
        name = f"patient003_frame12_slice{z + 1:02d}"
        assert dataset.size(name) == (16, 20)
        assert np.array_equal(dataset.mask(name), labels[:, :, z].T)
        assert dataset.tags(name).tolist() == ([1.0, 1.0, 1.0] if z < 2 else [0.0, 0.0, 0.0])
        grey = dataset.image(name)
        assert grey.shape == (16, 20, 3)
        assert (grey[..., 0] == grey[..., 2]).all()
        low, high = np.percentile(image, (0.5, 99.5))
        assert np.array_equal(grey[..., 1], np.rint(np.clip((image[:, :, z].T - low) / (high - low), 0, 1) * 255))


def test_patients_stay_whole(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    dataset = open_dataset("acdc", root=str(tmp_path))
    parts = [patients(dataset.ids(split)) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [10, 5, 2]
    assert parts[2] == set(miniatures.ACDC_TESTING)
    groups = [{int(name[-3:]) % 5 for name in part} for part in parts[:2]]
    assert groups == [set(range(5)), set(range(5))], "every diagnosis on both sides"
    carved = carve(dataset, dataset.ids("train"))
    assert 0 < len(carved) < len(dataset.ids("train"))
    assert patients(tuple(carved)).isdisjoint(patients(tuple(set(dataset.ids("train")) - carved)))


def test_without_testing_patients_a_test_split_is_taken_from_training(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path, testing=False, below="ACDC")
    found = acdc.survey(root=str(tmp_path))
    dataset = found.opened()
    assert [len(patients(dataset.ids(split))) for split in ("train", "val", "test")] == [5, 5, 5]
    assert dataset.name == "acdc:ACDC"
    plan = plan_splits(dataset)
    assert (plan.report_name, plan.tune_name) == ("test", "val")


def test_testing_patients_without_labels_have_no_masks(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    for path in tmp_path.glob("ACDC/database/testing/*/*_gt.nii.gz"):
        path.unlink()
    dataset = open_dataset("acdc", root=str(tmp_path))
    assert dataset.splits() == {"train": True, "val": True, "test": False}
    plan = plan_splits(dataset)
    assert (plan.report_name, plan.tune_name) == ("val", "train-carved")
    assert patients(plan.train).isdisjoint(patients(plan.tune))


def test_lists_of_patients_are_followed(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    base = tmp_path / "ACDC/database"
    miniatures.save_list(base / "train.txt", ["patient001", "patient002"])
    miniatures.save_list(base / "val.txt", ["patient003"])
    found = acdc.survey(root=str(base))
    dataset = found.opened()
    assert patients(dataset.ids("train")) == {"patient001", "patient002"}
    assert dataset.splits() == {"train": True, "val": True}
    assert dataset.name == "acdc:database", "a part of the patients is no ACDC"
    (warning,) = found.warnings
    assert warning.found.startswith("14 of 17 patients are in no list: patient004, patient005, ")
    assert "acdc:database" in warning.fix
    miniatures.save_list(base / "val.txt", ["patient003", "patient001", "patient077", "../patient001"])
    found = [p.found for p in refusal(base)]
    assert any("1 lines are no ids" in text for text in found)
    assert any("1 patients of val are not there: patient077" in text for text in found)
    assert any("1 ids stand in more than one of train.txt, val.txt: patient001" in text for text in found)


def test_lists_of_all_patients_are_the_whole_dataset(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    base = tmp_path / "ACDC/database"
    every = [*miniatures.ACDC_TRAINING, *miniatures.ACDC_TESTING]
    for name, own in (("train", every[:9]), ("val", every[9:12]), ("test", every[12:])):
        miniatures.save_list(base / f"{name}.txt", own)
    found = acdc.survey(root=str(base))
    assert (found.opened().name, found.warnings) == ("acdc", [])


def test_lists_that_leave_nothing_to_score_are_refused(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    base = tmp_path / "ACDC/database"
    miniatures.save_list(base / "train.txt", ["patient001", "patient002"])
    (problem,) = refusal(base)
    assert problem.found == "no patients of val or test with labels: nothing would be scored"
    assert "train.txt with val.txt, test.txt or both" in problem.fix
    (base / "train.txt").rename(base / "val.txt")
    (problem,) = refusal(base)
    assert (problem.where, problem.found) == (
        str(base / "val.txt"),
        "a list of patients, but there is no train.txt",
    )


def test_one_patient_cannot_be_trained_on_and_scored(tmp_path: Path) -> None:
    miniatures.acdc(tmp_path, testing=False)
    for patient in (tmp_path / "ACDC/database/training").iterdir():
        if patient.name != "patient001":
            shutil.rmtree(patient)
    assert "nothing would be scored" in refusal(tmp_path)[-1].found


def test_a_folder_of_something_else_is_no_part_of_acdc(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    found = acdc.survey(root=str(tmp_path))
    assert [p.found for p in found.errors] == ["no folders patient001, patient002, ..."]
    assert found.warnings == []


@pytest.mark.parametrize("name", ["patient002_frame01", "patient002_frame01_gt"])
def test_damage_that_only_gzips_checksum_tells_is_named(tmp_path: Path, whole: None, name: str) -> None:
    miniatures.acdc(tmp_path)
    path = _volume(tmp_path, name)
    good = path.read_bytes()
    read = read_labels if name.endswith("_gt") else read_images
    right = read(path)
    named = []
    for bit in np.random.default_rng(0).choice(8 * len(good), 64, replace=False):
        data = bytearray(good)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(data))
        try:
            assert np.array_equal(read(path), right)
            assert gzip.decompress(data) == gzip.decompress(good), "the flip changed what is inside"
        except BadInput as error:
            named += [problem.where for problem in error.problems]
    assert set(named) == {str(path)}
    assert len(named) > 50, "the others lie in gzip's own header, or among repeated bytes"
    for short in (good[:-4], good[:-8], good[:-1]):
        path.write_bytes(short)
        with pytest.raises(BadInput, match="damaged or cut off"):
            read(path)
    path.write_bytes(good)
    assert np.array_equal(read(path), right)


def test_a_file_made_to_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.datasets.acdc.volumes.MAX_HEADER", 1000)
    path = tmp_path / "v.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), path)
    assert read_images(path).shape == (2, 4, 4)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(5000)))
    with pytest.raises(BadInput, match="more than 1064 bytes for its 32 voxels"):
        read_images(path)


def _volume(root: Path, name: str = "patient002_frame01_gt") -> Path:
    return root / f"ACDC/database/training/{name[:10]}/{name}.nii.gz"


def test_another_shape_is_named(tmp_path: Path, whole: None) -> None:
    miniatures.acdc(tmp_path)
    _, labels = miniatures.acdc_volume("patient002", 1)
    nibabel.save(nibabel.Nifti1Image(labels[:, :, :2], np.eye(4)), _volume(tmp_path))
    (problem,) = refusal(tmp_path)
    assert problem.where == str(_volume(tmp_path))
    assert problem.found == "mask volume of 20x16x2 voxels, image of 20x16x3"


@pytest.mark.parametrize("name", ["patient002_frame01", "patient002_frame01_gt"])
def test_volumes_cut_off_are_named(tmp_path: Path, whole: None, name: str) -> None:
    miniatures.acdc(tmp_path)
    path = _volume(tmp_path, name)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    dataset = open_dataset("acdc", root=str(tmp_path))
    with pytest.raises(BadInput) as caught:
        dataset.check(dataset.ids("train") + dataset.ids("val"))
    assert {p.where for p in caught.value.problems} == {str(path)}
    path.write_bytes(path.read_bytes()[:30])
    assert [p.where for p in refusal(tmp_path)] == [str(path)]
    path.write_bytes(b"")
    assert [p.where for p in refusal(tmp_path)] == [str(path)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda labels: np.where(labels == 3, 4, labels), "label 4, but the 4 classes"),
        (lambda labels: labels * 0.5, "values that are no label numbers"),
        (lambda labels: labels - 1.0, "values that are no label numbers"),
        (lambda labels: labels * np.nan, "values that are no label numbers"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, whole: None, change: object, found: str) -> None:
    miniatures.acdc(tmp_path)
    _, labels = miniatures.acdc_volume("patient002", 1)
    changed = change(labels)
    changed = changed.astype(np.uint8 if changed.dtype.kind in "iu" else np.float32)
    nibabel.save(nibabel.Nifti1Image(changed, np.eye(4)), _volume(tmp_path))
    dataset = open_dataset("acdc", root=str(tmp_path))
    with pytest.raises(BadInput) as caught:
        dataset.check(dataset.ids("train") + dataset.ids("val"))
    assert caught.value.problems[0].where == str(_volume(tmp_path))
    assert found in caught.value.problems[0].found


def test_missing_parts_are_named(tmp_path: Path, whole: None) -> None:
    root = miniatures.acdc(tmp_path)
    _volume(root).unlink()
    (problem,) = refusal(root)
    assert "1 volumes of" in problem.found
    assert "patient002_frame01.nii.gz" in problem.found
    for path in _volume(root).parent.iterdir():
        path.unlink()
    assert any(p.found == "no patient002_frame*.nii.gz" for p in refusal(root))
    assert "no folders patient001" in refusal(tmp_path / "ACDC/database/testing/patient101")[-1].found
    assert refusal(root, masks="x")[0].where == "data.masks"


def test_the_film_and_other_volumes_are_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2, 5), np.int16), np.eye(4)), tmp_path / "film.nii.gz")
    with pytest.raises(BadInput, match="4x4x2x5 voxels, one stack of slices expected"):
        volume_shape(tmp_path / "film.nii.gz")
    single = np.zeros((4, 5, 2, 1), np.int16)
    nibabel.save(nibabel.Nifti1Image(single, np.eye(4)), tmp_path / "one.nii")
    assert volume_shape(tmp_path / "one.nii") == (2, 5, 4)
    assert read_images(tmp_path / "one.nii").shape == (2, 5, 4)
    with pytest.raises(BadInput, match="there is no such file"):
        read_labels(tmp_path / "none.nii")


def test_random_bytes_give_our_errors_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3) % 4, np.eye(4)), path)
    good = path.read_bytes()
    refused = 0
    for i in range(400):
        data = bytearray(good if i % 2 else rng.bytes(int(rng.integers(500))))
        for _ in range(i % 7):
            if data:
                data[int(rng.integers(min(len(data), 400)))] = int(rng.integers(256))
        path.write_bytes(bytes(data) if i % 3 else gzip.compress(bytes(data)))
        for read in (read_images, read_labels):
            try:
                read(path)
            except BadInput as error:
                refused += error.problems[0].where == str(path)
    assert refused > 300
