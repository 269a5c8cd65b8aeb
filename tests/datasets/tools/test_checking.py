"""`check`: its report, what is remembered between processes, and reading on all cores."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.datasets import open_dataset
from harness.datasets.disk import facts, looking
from harness.datasets.io import reading
from harness.datasets.tools import checking
from harness.errors import BadInput

Maker = Callable[..., Path]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, used from one image on; nothing is known yet."""
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(looking, "KEEP_FACTS_FROM", 1)
    return tmp_path / "cache"


def as_new_process(root: Path) -> None:
    facts.forget(root)
    facts._loaded.discard(str(root))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that are read from now on."""
    files: list[str] = []
    for name in ("read_index", "verify_image"):
        read = getattr(facts, name)
        monkeypatch.setattr(facts, name, lambda path, read=read: files.append(Path(path).name) or read(path))
    return files


def test_the_report_counts_images_and_pixels(voc_folder: Maker) -> None:
    root = voc_folder()
    report = checking.check(checking.survey("folder", root=str(root)))
    assert (report.name, report.layout, report.exit_code, report.files) == ("folder:mini", "VOC layout", 0, 34)
    train, val, test = report.splits
    assert (train.name, train.images, train.masks) == ("train", 12, 12)
    assert train.images_by_label == {0: 12, 1: 6, 2: 6, 255: 12}
    assert train.pixels_by_label == {0: 12 * 618, 1: 6 * 104, 2: 6 * 104, 255: 12 * 46}
    assert [split.images_by_label[1] + split.images_by_label[2] for split in (val, test)] == [3, 2]
    dataset = open_dataset("folder", root=str(root))
    assert train.fingerprint == dataset.fingerprint(dataset.ids("train"))
    text = report.text()
    assert "  train          12 images,     12 masks, fingerprint " + train.fingerprint[:12] in text
    assert "    1 cat               6        2        1      7.63%" in text
    assert "  255 (ignore) covers 5.99% of all pixels" in text
    assert "0 errors, 0 warnings; 34 files read" in text


def test_exit_codes(voc_folder: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(root / "JPEGImages/a0.jpg", exif=exif)
    assert data.main(["check", "data=folder", f"data.root={root}"]) == 0
    text = capsys.readouterr().out
    assert "0 errors, 1 warning; " in text
    assert "a0.jpg: EXIF orientation 3" in text
    assert "exiftool -Orientation=" in text
    (root / "SegmentationClass/a1.png").write_bytes(b"")
    assert data.main(["check", "data=folder", f"data.root={root}"]) == 1
    assert "a1.png: empty file" in capsys.readouterr().out
    for words in (
        [f"data.root={root}/no"],
        [f"data.root={root}", "data.x=1"],
        [f"data.root={root}", "data.masks=../a"],
    ):
        assert data.main(["check", "data=folder", *words]) == 2
    assert "known: annotations, classes, drop, keep, masks, pseudo, root" in capsys.readouterr().err
    assert data.main(["check", "data=foldr"]) == 2
    assert "did you mean folder?" in capsys.readouterr().err
    assert data.main(["check", "data.name=shapes", "data.n_train=2", "data.n_val=1", "data.n_test=1"]) == 0
    assert "  train           2 images," in capsys.readouterr().out


def test_words_that_are_wrong_exit_2_before_anything_is_read(
    voc_folder: Maker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = voc_folder(classes=None)
    files = counted(monkeypatch)
    for word, text, found in (
        ("data.masks", "SegmentationClassAug", "there is no folder"),
        ("data.masks", "a/b", "'a/b'"),
        ("data.weak", "/nope", "there is no /nope"),
        ("data.tags", "/nope.json", "there is no /nope.json"),
        ("data.tags", "nope.json", f"there is no {Path.cwd() / 'nope.json'} and no {root / 'nope.json'}"),
    ):
        assert data.main(["check", "data=folder", f"data.root={root}", f"{word}={text}"]) == 2
        assert f"{word}: {found}" in capsys.readouterr().err
    assert files == []
    with pytest.raises(BadInput, match=r"data\.weak: no value given\n    fix: data\.weak=<path>"):
        checking.survey("folder", root=str(root), options={"weak": ""})
    voc = miniatures.voc(root.parent)
    assert data.main(["check", "data=voc", f"data.root={voc}", "data.masks=SegmentationClassAugg"]) == 2
    assert "the folders here are" in capsys.readouterr().err
    assert data.main(["check", "data=voc", f"data.root={voc}", "data.tags=nope.json"]) == 2
    assert f"and no {voc / 'VOC2012/nope.json'}" in capsys.readouterr().err


def _checked(root: Path) -> None:
    dataset = open_dataset("folder", root=str(root))
    dataset.check(dataset.ids("train") + dataset.ids("val"))


def test_masks_of_0_and_255_are_no_dataset(voc_folder: Maker, mask_writer: Callable[..., None]) -> None:
    """Foreground painted white is 255, ignore: what is left is one class, which any method learns perfectly."""
    for classes in (None, ("background", "cat")):
        root = voc_folder(classes=classes)
        if classes is None:
            (root / "classes.txt").unlink(missing_ok=True)
        for path in (root / "SegmentationClass").iterdir():
            mask_writer(path, np.where(np.arange(24 * 32).reshape(24, 32) % 5, 0, 255), palette=False)
        report = checking.check(checking.survey("folder", root=str(root)))
        (error,) = report.errors
        assert error.where == str(root / "SegmentationClass")
        assert error.found == "nothing to tell apart in the masks: 0 is their only label but 255 (ignore)"
        assert error.fix.startswith("255 is no class: number the foreground 1, 2, ...")
        with pytest.raises(BadInput, match="nothing to tell apart"):
            _checked(root)


def test_without_a_mask_to_score_there_is_an_error(voc_folder: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder(lists={"train": [f"a{i}" for i in range(12)], "val": ["v0", "v1"]})
    for image_id in ("v0", "v1"):
        (root / f"SegmentationClass/{image_id}.png").unlink()
    assert data.main(["check", "data=folder", f"data.root={root}"]) == 1
    assert "masks for neither test nor val: nothing can be scored" in capsys.readouterr().out


@pytest.mark.parametrize("first", ["Background", "_background_", "BG"])
def test_a_first_class_that_is_called_almost_background(first: str, voc_folder: Maker) -> None:
    report = checking.check(checking.survey("folder", root=str(voc_folder(classes=(first, "cat", "dog")))))
    (warning,) = report.warnings
    assert warning.found.startswith(f"the first class name is {first!r}, not 'background'")
    fine = checking.check(checking.survey("folder", root=str(voc_folder(classes=("backgrounds", "cat", "dog")))))
    assert fine.warnings == ()


def tags_report(root: Path, tags: dict[str, list[str]]) -> tuple[list[str], checking.Report]:
    (root / "tags.json").write_text(json.dumps(tags))
    report = checking.check(checking.survey("folder", root=str(root), options={"tags": str(root / "tags.json")}))
    return [problem.found for problem in report.warnings], report


def test_tags_are_held_against_the_masks(voc_folder: Maker) -> None:
    root = voc_folder(lists={"train": [f"a{i}" for i in range(40)], "val": ["v0", "v1"]})
    right = {f"a{i}": ["dog" if i % 2 else "cat"] for i in range(40)}
    assert tags_report(root, right)[0] == []
    two = {**right, "a0": ["dog"], "a3": []}
    assert tags_report(root, two)[0] == [], "5 % may differ"
    three = {**two, "a5": ["cat", "dog"]}
    found, report = tags_report(root, three)
    differing = "a0 (tags dog; mask cat), a3 (tags none; mask dog), ..."
    assert found == [f"other classes than the masks in 3 of 40 training images: {differing}"]
    assert report.exit_code == 0
    found, _ = tags_report(root, {**right, **{f"a{i}": [] for i in range(21)}})
    assert found[0] == "no class at all for 21 of 40 training images: a0, a1, a2, a3, a4, ..."


def test_upper_case_endings_are_read(voc_folder: Maker) -> None:
    root = voc_folder()
    for path in [*(root / "SegmentationClass").iterdir(), *(root / "JPEGImages").iterdir()]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert checking.check(checking.survey("folder", root=str(root))).errors == ()
    assert open_dataset("folder", root=str(root)).mask("a0").shape == (24, 32)


def test_fixes_of_official_lists_do_not_say_to_shorten_them(tmp_path: Path) -> None:
    root = miniatures.voc(tmp_path)
    (root / f"VOC2012/JPEGImages/{miniatures.VOC_TRAIN[0]}.jpg").unlink()
    (root / f"VOC2012/JPEGImages/{miniatures.VOC_TRAIN[1]}.jpg").write_bytes(b"")
    report = checking.check(checking.survey("voc", root=str(root)))
    fixes = [problem.fix for problem in report.errors]
    assert fixes == ["add the files", "copy or download the file again"]


def test_a_mask_without_a_labelled_pixel_is_a_warning(voc_folder: Maker, mask_writer: Callable[..., None]) -> None:
    root = voc_folder()
    mask_writer(root / "SegmentationClass/a0.png", np.full((24, 32), 255))
    (warning,) = checking.check(checking.survey("folder", root=str(root))).warnings
    assert warning.found == "every pixel is 255 (ignore)"


def test_absent_classes_are_told_and_refused_of_whole_datasets_alone(
    voc_folder: Maker, mask_writer: Callable[..., None]
) -> None:
    root = voc_folder(classes=("background", "cat", "dog", "owl", "eel"))
    mask_writer(root / "SegmentationClass/v0.png", np.full((24, 32), 3))
    report = checking.check(checking.survey("folder", root=str(root)))
    told = [
        "no training image shows owl (3): not learned, yet scored",
        "no training image shows eel (4): left out of the mean",
    ]
    assert (report.errors, [p.found for p in report.warnings]) == ((), told)
    dataset = open_dataset("folder", root=str(root))
    every = dataset.ids("train") + dataset.ids("val")
    dataset.check(every)
    assert [p.found for p in dataset.warnings(every)] == told
    dataset.complete = True
    with pytest.raises(BadInput, match=r"owl \(3\)"):
        dataset.check(every)


def test_later_processes_read_what_has_changed_alone(
    voc_folder: Maker, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = voc_folder()
    dataset = open_dataset("folder", root=str(root))
    every = dataset.ids("train") + dataset.ids("val")
    dataset.check(every)
    first = dataset.fingerprint(every)
    (file,) = kept.iterdir()
    assert len(json.loads(file.read_text())["images"]) == len(every)
    files = counted(monkeypatch)
    as_new_process(root)
    dataset.check(every)
    assert dataset.fingerprint(every) == first
    assert files == []
    as_new_process(root)
    assert dataset.tags("a0").tolist() == [1.0, 0.0]
    assert files == []
    mask = np.asarray(Image.open(root / "SegmentationClass/a3.png")).copy()
    mask[0, 0] = 2
    Image.fromarray(mask).save(root / "SegmentationClass/a3.png")
    as_new_process(root)
    dataset.check(every)
    assert files == ["a3.png"]
    assert dataset.fingerprint(every) != first
    checking.check(checking.survey("folder", root=str(root)))
    assert len(files) == 1 + 2 * (len(every) + 2), "check reads everything anew"


def test_wrong_files_are_never_taken_for_known(voc_folder: Maker, kept: Path) -> None:
    root = voc_folder()
    dataset = open_dataset("folder", root=str(root))
    (root / "SegmentationClass/a1.png").write_bytes(b"\x89PNG")
    (root / "classes.txt").write_text("background\ncat\n")
    narrow = open_dataset("folder", root=str(root))
    for _ in range(2):
        as_new_process(root)
        with pytest.raises(BadInput, match=r"a1\.png: (neither|damaged)"):
            dataset.check(dataset.ids("train"))
        with pytest.raises(BadInput, match="label 2, but the 2 classes"):
            narrow.check(narrow.ids("train"))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"format": 1, "root": 7}'])
def test_a_spoilt_cache_counts_as_none(voc_folder: Maker, kept: Path, content: bytes) -> None:
    root = voc_folder()
    dataset = open_dataset("folder", root=str(root))
    dataset.check(dataset.ids("train"))
    (file,) = kept.iterdir()
    row = json.loads(file.read_text())
    row["masks"][0][3] = None
    for spoilt in (content, json.dumps(row).encode()):
        file.write_bytes(spoilt)
        facts.forget(root)
        facts._loaded.discard(str(root))
        assert facts.load(root) == 0
    dataset.check(dataset.ids("train"))


def test_a_cache_that_cannot_be_written_is_done_without(
    voc_folder: Maker, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write_text("a file where the folder should be")
    root = voc_folder()
    dataset = open_dataset("folder", root=str(root))
    dataset.check(dataset.ids("train"))
    assert facts.save(root) is None


def test_small_datasets_leave_nothing_behind(
    voc_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    dataset = open_dataset("folder", root=str(voc_folder()))
    dataset.check(dataset.ids("train"))
    assert not (tmp_path / "cache").exists()


def test_cache_folder_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSSS_CACHE", "/a")
    assert facts.cache_folder() == Path("/a")
    monkeypatch.delenv("WSSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert facts.cache_folder() == Path("/b/wsss-harness")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert facts.cache_folder() == tmp_path / ".cache/wsss-harness"


def _squared(text: str) -> tuple[int, int]:
    return int(text) ** 2, os.getpid()


def test_processes_and_threads_give_the_same_in_order() -> None:
    items = [str(i) for i in range(100)]
    threads = list(reading.read_many(_squared, items))
    processes = list(reading.read_many(_squared, items, processes=2))
    assert [value for value, _ in threads] == [value for value, _ in processes] == [i * i for i in range(100)]
    assert os.getpid() not in {pid for _, pid in processes}
    with pytest.raises(ValueError, match="invalid literal"):
        list(reading.read_many(_squared, ["x"] * 40, processes=1))


def test_processes_find_what_threads_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = miniatures.coco(tmp_path)
    (root / f"JPEGImages/train2014/{miniatures.coco_id(9, 'train')}.jpg").write_bytes(b"x")
    dataset = open_dataset("coco", root=str(root))
    found = []
    for start in (10**6, 1):
        monkeypatch.setattr(reading, "PROCESSES_FROM", start)
        facts.forget(root)
        found.append(looking.look(dataset, dataset.ids("train")))
    assert found[0] == found[1]
    assert len(found[0].errors) == 1
    assert len(found[0].seen) == len(miniatures.COCO_TRAIN)


def test_a_bar_for_those_who_wait(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BAR_FROM", 25)
    assert list(reading.read_many(int, [str(i) for i in range(25)], what="counting")) == list(range(25))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "counting: 3 of 25"
    assert lines[-1] == "counting: 25 of 25"
    assert len(lines) == 9
    assert list(reading.read_many(int, ["1"])) == [1]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(reading.with_bar(range(3), 3, "counting")) == [0, 1, 2]
