"""What servers take: archives unpacked and read as their own tools read them."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from safetensors.torch import save_file

from harness import predict
from harness.cli.parsing import Parsed, main
from harness.cli.predict_words import PredictWords
from harness.cli.run_words import BackboneWords
from harness.datasets.acdc.volumes import read_images, volume_shape
from harness.datasets.cityscapes import CLASSES as CITYSCAPES
from harness.datasets.coco.names import CLASSES as COCO
from harness.datasets.io.colours import COLOURS
from harness.datasets.voc import CLASSES as VOC
from harness.errors import BadInput
from harness.evaluation.published import published_run
from harness.plan.build import build_method
from harness.plan.pretrained import RANDOM
from harness.prediction.layouts import competition, problems_of, write
from harness.prediction.outputs import encoded
from harness.prediction.photos import Labels, Photo, Photos, listed
from harness.store.pretraining import named

LABELS_HW = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
TRAINED = {"pretraining": "none", "dataset": "voc", "masks": None, "labels": "tags", "tags": "Annotations"}


def masks_of(folder: Path, **labels: np.ndarray) -> dict[str, Path]:
    out = {}
    for name, label in labels.items():
        out[name] = folder / f"{name}.png"
        out[name].write_bytes(encoded(label))
    return out


def photos_of(ids) -> dict[str, Photo]:
    return {image_id: Photo(Path(image_id)) for image_id in ids}


def test_voc_is_one_archive_with_index_pngs_in_the_folder_of_the_competition(tmp_path):
    masks = masks_of(tmp_path, **{"2008_000006": LABELS_HW, "2008_000008": LABELS_HW.T.copy()})
    (path,) = write("voc-test", tmp_path / "out", masks, photos_of(masks), TRAINED)
    assert path.name == "results.tgz"
    with tarfile.open(path, "r:gz") as archive:
        folder = "results/VOC2012/Segmentation/comp5_test_cls"
        assert archive.getnames() == [f"{folder}/2008_000006.png", f"{folder}/2008_000008.png"]
        archive.extractall(tmp_path / "unpacked", filter="data")
    for name, label in (("2008_000006", LABELS_HW), ("2008_000008", LABELS_HW.T)):
        with Image.open(tmp_path / "unpacked" / folder / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert np.asarray(picture).tolist() == label.tolist()
            assert picture.getpalette()[:9] == [*COLOURS[0], *COLOURS[1], *COLOURS[2]]
    before = path.read_bytes()
    write("voc-test", tmp_path / "out", masks, photos_of(masks), TRAINED)
    assert path.read_bytes() == before, "equal masks give equal bytes"


@pytest.mark.parametrize(
    ("changed", "number", "why"),
    [
        ({}, 5, "random initialisation"),
        ({"pretraining": "timm deit_base"}, 6, "pretrained: timm deit_base"),
        ({"pretraining": named("none").stored()}, 5, "random"),
        ({"pretraining": named("timm deit_base.fb_in1k").stored()}, 6, "timm deit_base.fb_in1k: ImageNet-1k, labels"),
        ({"tags": None}, 6, "SBD"),
        ({"masks": "SegmentationClass", "labels": "masks", "tags": None}, 5, "random"),
        ({"masks": "SegmentationClassAug", "labels": "masks"}, 6, "SBD"),
        ({"dataset": "voc:part"}, 6, "voc:part"),
    ],
)
def test_the_competition_depends_on_what_was_trained_on(changed, number, why):
    found, told = competition({**TRAINED, **changed})
    assert (found, why in told) == (number, True)
    assert competition({})[0] == 6


def test_cityscapes_is_a_zip_of_grey_label_ids_under_the_names_of_frames(tmp_path):
    image_id = "berlin/berlin_000000_000019_leftImg8bit"
    label = np.stack([np.arange(19, dtype=np.uint8), np.arange(19, dtype=np.uint8)[::-1]])
    (tmp_path / "m.png").write_bytes(encoded(label))
    (path,) = write("cityscapes", tmp_path / "out", {image_id: tmp_path / "m.png"}, photos_of([image_id]), {})
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["berlin_000000_000019.png"]
        with archive.open("berlin_000000_000019.png") as file, Image.open(file) as picture:
            assert picture.mode == "L"
            # The evaluation's own labels: road 7, sidewalk 8, building 11, ..., motorcycle 32, bicycle 33.
            row = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
            assert np.asarray(picture).tolist() == [row, row[::-1]]


def test_coco_is_json_with_runs_that_pycocotools_reads(tmp_path):
    # Class 12 is category 13 (12 is no category), 80 is 90.
    label = np.array([[0, 12, 12], [80, 12, 0]], np.uint8)
    masks = masks_of(tmp_path, COCO_val2014_000000000042=label)
    (path,) = write("coco", tmp_path / "out", masks, photos_of(masks), {})
    found = json.loads(path.read_text())
    assert [(e["image_id"], e["category_id"]) for e in found] == [(42, 13), (42, 90)]
    for entry, own in zip(found, (12, 80), strict=True):
        assert entry["segmentation"]["size"] == [2, 3]
        assert (rle.decode(entry["segmentation"]) == (label == own)).all()
    assert found[1]["segmentation"]["counts"] == "114", "one pixel skipped, one set, four left, in columns"


@pytest.fixture
def patients(tmp_path) -> Path:
    """Two patients with two frames of three slices each, as ACDC's archive has them."""
    rng = np.random.default_rng(0)
    affine = np.diag([1.5, 1.25, 10.0, 1.0])
    for n in (101, 102):
        folder = tmp_path / "testing" / f"patient{n}"
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text("ED: 12\nES: 1\nGroup: NOR\n" if n == 101 else "Group: NOR\n")
        for name in ("frame01", "frame12", "frame01_gt", "4d"):
            voxels = rng.integers(0, 900, (5, 4, 3)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / f"patient{n}_{name}.nii.gz")
    return tmp_path / "testing"


def test_acdc_is_volumes_of_both_phases_where_the_images_lie(patients, tmp_path):
    photos = listed(patients, tmp_path / "out", None)
    assert len(photos) == 2 * 2 * 3, "neither labels nor films"
    one = photos["patient101/patient101_frame12_slice03"]
    assert (one.read()[..., 1] == read_images(one.path)[2]).all()
    rng = np.random.default_rng(1)
    found = {}
    for n, image_id in enumerate(photos):
        (tmp_path / f"{n}.png").write_bytes(encoded(rng.integers(0, 4, (4, 5)).astype(np.uint8)))
        found[image_id] = tmp_path / f"{n}.png"
    *_, path = write("acdc", tmp_path / "out", found, photos, {})
    with zipfile.ZipFile(path) as archive:
        names = [f"patient{n}_{phase}.nii.gz" for n in (101, 102) for phase in ("ED", "ES")]
        assert archive.namelist() == names
        archive.extractall(tmp_path / "unpacked")
    for name, frame in (("patient101_ED", "patient101_frame12"), ("patient102_ED", "patient102_frame01")):
        made = nibabel.load(tmp_path / "unpacked" / f"{name}.nii.gz")
        source = patients / frame[:10] / f"{frame}.nii.gz"
        assert volume_shape(tmp_path / "unpacked" / f"{name}.nii.gz") == volume_shape(source)
        assert (made.affine == nibabel.load(source).affine).all()
        assert made.get_data_dtype() == np.uint8
        for z in range(3):
            mask = np.asarray(Image.open(found[f"{frame[:10]}/{frame}_slice{z + 1:02d}"]))
            assert (mask == np.asarray(made.dataobj)[:, :, z].T).all()


def test_acdc_needs_both_phases(patients, tmp_path):
    photos = {i: p for i, p in listed(patients, tmp_path / "out", None).items() if "frame01" in i}
    (tmp_path / "m.png").write_bytes(encoded(np.zeros((4, 5), np.uint8)))
    with pytest.raises(BadInput, match="has one frame"):
        write("acdc", tmp_path / "out", dict.fromkeys(photos, tmp_path / "m.png"), photos, {})


def test_other_labels_and_names_are_refused_with_both_numbers():
    def told(layout: str, names: tuple[str, ...], *ids: str) -> str:
        return "\n".join(map(str, problems_of(layout, Labels(names, names[0] == "background"), photos_of(ids))))

    assert "takes 21 labels" in told("voc-test", ("background", "cat", "dog"), "2008_000006")
    assert "this network has 3 labels, not 21" in told("voc-test", ("background", "cat", "dog"), "2008_000006")
    assert "but not the same" in told("coco", (*COCO[:-1], "x"), "42")
    assert "1 of 2 images have no name of voc-test: cat" in told("voc-test", VOC, "2008_000006", "cat")
    assert "several images are called berlin_000000_000019" in told(
        "cityscapes", CITYSCAPES, "a/berlin_000000_000019", "b/berlin_000000_000019_leftImg8bit"
    )
    assert told("coco", COCO, "COCO_val2014_000000000042", "7") == ""


def test_the_command_writes_an_archive_of_all_images_or_none(tmp_path, capsys):
    """A network of VOC's 21 labels, randomly initialised, as a file of weights."""
    words = PredictWords(method="full", backbone=BackboneWords(name="shapes_vit"), decoder="deeplabv3plus", crop=48)
    words.data.name = "voc"
    run = published_run(Parsed(words, {}, {}, {}), "voc", "cpu", [])
    save_file(build_method(run, Photos(Labels(VOC, True), {}), RANDOM).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "photos").mkdir()
    for name in ("2008_000006", "2008_000008"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(
            tmp_path / f"photos/{name}.jpg"
        )
    argv = [
        f"weights={tmp_path}/w.safetensors", "method=full", "data=voc", "backbone=shapes_vit", "decoder=deeplabv3plus",
        "crop=48", f"images={tmp_path}/photos", f"out={tmp_path}/out", "layout=voc-test",
    ]  # fmt: skip
    assert main(predict.run, argv) == 0
    said = capsys.readouterr().out
    assert "competition 6: what the file of weights was trained on is not known" in said
    assert "it holds 2 images; the server expects 1,456" in said
    with tarfile.open(tmp_path / "out/server/results.tgz") as archive:
        assert len(archive.getnames()) == 2
        for name in archive.getnames():
            own = tmp_path / "out/masks" / name.rpartition("/")[2]
            assert archive.extractfile(name).read() == own.read_bytes()
    (tmp_path / "photos/2008_000009.jpg").write_bytes(b"no photo")
    (tmp_path / "out/server/results.tgz").unlink()
    assert main(predict.run, argv) == 1
    assert "which takes all images or none" in capsys.readouterr().err
    assert not (tmp_path / "out/server/results.tgz").exists()
    (tmp_path / "photos/cat.jpg").write_bytes(b"")
    assert main(predict.run, argv) == 2
    assert "1 of 4 images have no name of voc-test: cat" in capsys.readouterr().err
