"""Every built-in kind of dataset passes the conformance suite, and the suite finds what it is for."""

from __future__ import annotations

from pathlib import Path

import miniatures
import numpy as np
import pytest

from harness.api.dataset import Dataset
from harness.datasets import open_dataset
from harness.datasets.shapes import Shapes
from harness.testing import DatasetTests


class TestShapes(DatasetTests):
    name = "shapes"
    words = {"n_train": "6", "n_val": "3", "n_test": "3"}
    images = 3


class OnDisk(DatasetTests):
    """A miniature below a folder of the test's own."""

    root: Path

    @pytest.fixture(autouse=True)
    def made(self, tmp_path: Path) -> None:
        self.root = self.build(tmp_path)

    def build(self, folder: Path) -> Path:
        raise NotImplementedError

    def dataset(self) -> Dataset:
        return open_dataset(self.name, root=str(self.root))


class TestVoc(OnDisk):
    name = "voc"

    def build(self, folder: Path) -> Path:
        return miniatures.voc(folder)

    def changed(self) -> Dataset:
        base = self.root / "VOC2012"
        miniatures.save_mask(base / f"SegmentationClassAug/{miniatures.VOC_TRAIN[0]}.png", miniatures.objects((3, 4)))
        return self.dataset()


class TestCoco(OnDisk):
    name = "coco"

    def build(self, folder: Path) -> Path:
        return miniatures.coco(folder)


class TestCityscapes(OnDisk):
    name = "cityscapes"

    def build(self, folder: Path) -> Path:
        return miniatures.cityscapes(folder)


class Broken(Shapes):
    """Faults that the suite is for, one at a time."""

    fault = ""

    def ids(self, split: str) -> tuple[str, ...]:
        ids = super().ids(split)
        return ids[:1] * len(ids) if self.fault == "double ids" else ids

    def mask(self, image_id: str) -> np.ndarray:
        mask = super().mask(image_id)
        return {"a label too high": mask + np.uint8(100), "another size": mask[:-1]}.get(self.fault, mask)

    def tags(self, image_id: str) -> np.ndarray:
        tags = super().tags(image_id)
        return 1 - tags if self.fault == "other tags" else tags

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        return "same" if self.fault == "a dull fingerprint" else super().fingerprint(ids)

    def __getstate__(self) -> dict[str, object]:
        if self.fault == "not picklable":
            raise TypeError("an open file")
        return self.__dict__


FAULTS = {
    "double ids": "test_ids_are_unique_and_stay",
    "a label too high": "test_images_and_masks_fit",
    "another size": "test_images_and_masks_fit",
    "other tags": "test_tags_are_those_of_the_masks",
    "a dull fingerprint": "test_fingerprints_are_stable_and_sensitive",
    "not picklable": "test_reading_again_gives_the_same",
}


@pytest.mark.parametrize(("fault", "test"), FAULTS.items())
def test_the_suite_finds_faults(fault: str, test: str) -> None:
    class Tests(DatasetTests):
        images = 2

        def dataset(self) -> Dataset:
            shapes = open_dataset("shapes", options={"n_train": "3", "n_val": "2", "n_test": "2"})
            assert isinstance(shapes, Shapes)
            broken = Broken(shapes.options)
            broken.fault = fault
            return broken

    with pytest.raises((AssertionError, TypeError)):
        getattr(Tests(), test)()
