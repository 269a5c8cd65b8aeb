"""What travels with an image through the loader: maps, label maps, vectors, labels of an earlier stage, tags with
background; also from loader processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from harness.api.dataset import Dataset, Sample
from harness.api.method import Batch, Views
from harness.datasets import open_dataset
from harness.datasets.loading import Loader, Source
from harness.errors import BadInput, Problem
from methods.parts.views.warp import Warp

SIDE = 96
"""Of the embedded pictures, pixels."""


@dataclass(frozen=True)
class Whole:
    """The image as it is, and what travels with it at a fourth of its size."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        height, width = sample.image_HW3.shape[:2]
        warp = Warp.whole((height, width)).mirrored()
        view = torch.from_numpy(sample.image_HW3[:, ::-1].astype(np.float32)).permute(2, 0, 1)
        return Views({"view": view}, None, extra=warp(sample.extra, (height // 4, width // 4)))


@dataclass(frozen=True)
class Reading:
    """Reads made-up arrays of an image; its number is its id's last digit."""

    kind: str

    def __call__(self, image_id: str) -> np.ndarray:
        number = int(image_id[-1])
        if self.kind == "maps":
            out = np.zeros((2, 4, 4), np.float32)
            out[0, :, 3] = number + 1
            return out
        if self.kind == "label":
            return np.full((SIDE, SIDE), number, np.uint8)
        if self.kind == "small":
            return np.full((8, 8), 255, np.uint8)
        if self.kind == "broken":
            raise BadInput(Problem(f"cams/{image_id}.npz", "is not there", "write it again"))
        return np.array([number, 0.5])


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset("shapes", options={"n_train": "8", "n_val": "2", "n_test": "2"})


def made(dataset: Dataset, source: Source, loaders: int = 0, transform: object = None) -> list[Batch]:
    with Loader(dataset, dataset.ids("train"), transform or Whole(), source, seed=1, batch=4, group=2, loaders=loaders,
                total_steps=2) as steps:  # fmt: skip
        return [group for step in steps for group in step]


SOURCE = Source("tags", extra={"maps": Reading("maps"), "seen": Reading("label"), "vector": Reading("vector")})


@pytest.mark.parametrize("loaders", [0, 1])
def test_extra_reaches_the_batch_as_the_view_shows_it(dataset: Dataset, loaders: int) -> None:
    for group in made(dataset, SOURCE, loaders):
        numbers = torch.tensor([float(i[-1]) for i in group.ids])
        size = dataset.size(group.ids[0])
        small = (size[0] // 4, size[1] // 4)
        assert group.extra["maps"].shape == (2, 2, *small)
        # The right column holds the score; mirrored it is the left one.
        assert torch.equal(group.extra["maps"][:, 0, :, 0], (numbers + 1)[:, None].expand(2, small[0]))
        assert not group.extra["maps"][:, :, :, -1].any()
        assert torch.equal(group.extra["seen"], numbers[:, None, None].expand(2, *small).long())
        assert torch.equal(group.extra["vector"], torch.stack([numbers, torch.full((2,), 0.5)], 1))


def test_loader_processes_change_nothing(dataset: Dataset) -> None:
    for here, there in zip(made(dataset, SOURCE), made(dataset, SOURCE, loaders=2), strict=True):
        assert here.ids == there.ids
        assert all(torch.equal(here.extra[name], there.extra[name]) for name in here.extra)


def test_without_sources_nothing_travels(dataset: Dataset) -> None:
    assert all(group.extra == {} and group.tags_BK is None for group in made(dataset, Source("tags")))


def keeps_label(sample: Sample, rng: np.random.Generator) -> Views:
    assert sample.label_HW is not None
    return Views({"view": torch.zeros(3, 2, 2)}, torch.from_numpy(sample.label_HW.astype(np.int64)))


def test_labels_of_an_earlier_stage_stand_for_those_of_the_dataset(dataset: Dataset) -> None:
    for group in made(dataset, Source("tags", label=Reading("label")), transform=keeps_label):
        assert group.label_BHW is not None
        assert [int(one.unique()) for one in group.label_BHW] == [int(i[-1]) for i in group.ids]
    with pytest.raises(BadInput, match=f"labels of 8x8 pixels, image of {SIDE}x{SIDE}"):
        made(dataset, Source("tags", label=Reading("small")), transform=keeps_label)


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_damaged_file_is_named(dataset: Dataset, loaders: int) -> None:
    with pytest.raises(BadInput, match=r"cams/.*\.npz: is not there\s+fix: write it again"):
        made(dataset, Source("tags", extra={"cam": Reading("broken")}), loaders)


def of_one_image(sample: Sample, rng: np.random.Generator) -> Views:
    odd = int(sample.image_id[-1]) % 2
    return Views({"view": torch.zeros(3, 2, 2)}, extra={"x": torch.zeros(1 + odd)})


def test_extra_of_unequal_shapes_is_named(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=r"equal extra of all images of a group, not \{'x': \(\d,\)\} and"):
        made(dataset, Source("tags"), transform=of_one_image)


def test_tags_with_background(dataset: Dataset) -> None:
    """Tags alone say nothing of background, which nearly every image has; pixel labels say."""
    for group in made(dataset, Source("tags", background_tags=True)):
        assert group.tags_BK is not None
        assert torch.equal(group.tags_BK[:, 1:], group.tags_BC)
        assert group.tags_BK[:, 0].tolist() == [1.0, 1.0]
    only_class_one = Source("tags", label=OnlyOne(), background_tags=True)
    for group in made(dataset, only_class_one):
        assert group.tags_BK is not None
        assert group.tags_BK[:, 0].tolist() == [0.0, 0.0]
        assert group.tags_BK[:, 1].tolist() == [1.0, 1.0]
        assert torch.equal(group.tags_BK[:, 2:], group.tags_BC[:, 1:])


class OnlyOne:
    """Labels of class 1 and unlabelled pixels."""

    def __call__(self, image_id: str) -> np.ndarray:
        out = np.full((SIDE, SIDE), 255, np.uint8)
        out[:, :5] = 1
        return out
