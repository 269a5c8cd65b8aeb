"""Conformance tests for datasets, ours and others: inherit `DatasetTests` and name the dataset.

class TestMine(DatasetTests):
    name = "mine"
    words = {"root": "..."}
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE, LABELS
from harness.datasets import open_dataset
from harness.datasets.finding import contract_problems
from harness.datasets.splits import plan_splits
from harness.errors import BadInput

SPARSE = tuple(label for label in LABELS if label not in ("tags", "masks"))


class DatasetTests:
    """What every dataset promises. Subclasses set `name` and `words`, or make the dataset themselves."""

    name: ClassVar[str] = ""
    words: ClassVar[Mapping[str, str]] = {}
    """`root`, `masks`, `classes`, and the dataset's own `data.<option>` words."""
    images: ClassVar[int] = 6
    """Images of each split whose pixels are looked at."""
    noisy_tags: ClassVar[bool] = False
    """Whether tags of training images may differ from their masks, as given ones do."""

    def dataset(self) -> Dataset:
        """A freshly opened dataset."""
        shared = {word: self.words.get(word) for word in ("root", "masks", "classes")}
        own = {word: text for word, text in self.words.items() if word not in shared}
        return open_dataset(self.name, **shared, options=own)

    def changed(self) -> Dataset | None:
        """The dataset with one label of a training image changed; None where that cannot be had."""
        return None

    def shown(self, dataset: Dataset) -> list[tuple[str, str]]:
        """Split and id of the images that are looked at: of each split some, evenly spread."""
        found = []
        for split in dataset.splits():
            ids = dataset.ids(split)
            at = np.unique(np.linspace(0, len(ids) - 1, min(self.images, len(ids))).astype(int))
            found += [(split, ids[i]) for i in at.tolist()]
        return found

    def test_it_has_all_that_is_relied_on(self) -> None:
        """Name, family, class names and background; a split to learn from and one with masks to be scored on."""
        dataset = self.dataset()
        assert not contract_problems(dataset, self.name)
        assert isinstance(dataset.name, str)
        assert dataset.name
        splits = plan_splits(dataset, protocol="fixed")
        assert splits.train
        assert splits.report

    def test_ids_are_unique_and_stay(self) -> None:
        """No id twice, in one split or in two; the same in the same order when it is opened again."""
        dataset, again = self.dataset(), self.dataset()
        every = [i for split in dataset.splits() for i in dataset.ids(split) if split != "val_part"]
        assert len(set(every)) == len(every), "ids that are in two places"
        assert all(isinstance(i, str) and i.isprintable() and i for i in every)
        assert {s: again.ids(s) for s in again.splits()} == {s: dataset.ids(s) for s in dataset.splits()}

    def test_images_and_masks_fit(self) -> None:
        """Images (H,W,3) and masks (H,W) of uint8 and equal size; labels below K or 255; the size that it says."""
        dataset = self.dataset()
        for split, image_id in self.shown(dataset):
            image_HW3 = dataset.image(image_id)
            assert image_HW3.dtype == np.uint8, image_id
            assert image_HW3.shape == (*dataset.size(image_id), 3), image_id
            if not dataset.splits()[split]:
                continue
            mask_HW = dataset.mask(image_id)
            assert mask_HW.dtype == np.uint8, image_id
            assert mask_HW.shape == image_HW3.shape[:2], image_id
            odd = np.setdiff1d(mask_HW, [*range(dataset.num_labels), IGNORE])
            assert not odd.size, f"{image_id} holds labels {odd}, classes are 0..{dataset.num_labels - 1}"

    def test_tags_are_those_of_the_masks(self) -> None:
        """Tags (C,) in {0,1}: classes that the mask shows, or what was given in place of them for training images."""
        dataset = self.dataset()
        for split, image_id in self.shown(dataset):
            if not dataset.splits()[split]:
                continue
            tags_C = dataset.tags(image_id)
            assert tags_C.shape == (dataset.num_classes,), image_id
            assert np.isin(tags_C, (0, 1)).all(), image_id
            if not (self.noisy_tags and split == "train"):
                assert np.array_equal(tags_C, Dataset.tags(dataset, image_id)), image_id

    def test_reading_again_gives_the_same(self) -> None:
        """Images, masks and tags are the same each time, also in a copy as loader processes get it."""
        dataset = self.dataset()
        copy = pickle.loads(pickle.dumps(dataset))
        for split, image_id in self.shown(dataset):
            image_HW3 = dataset.image(image_id).copy()
            for other in (dataset, copy, self.dataset()):
                assert np.array_equal(other.image(image_id), image_HW3), image_id
            if dataset.splits()[split]:
                assert np.array_equal(copy.mask(image_id), dataset.mask(image_id)), image_id
                assert np.array_equal(copy.tags(image_id), dataset.tags(image_id)), image_id

    def test_fingerprints_are_stable_and_sensitive(self) -> None:
        """Equal data, equal digest; other ids, another order, another label: another digest."""
        dataset = self.dataset()
        ids = dataset.ids("train")
        digest = dataset.fingerprint(ids)
        assert digest == dataset.fingerprint(ids) == self.dataset().fingerprint(ids)
        assert digest == pickle.loads(pickle.dumps(dataset)).fingerprint(ids)
        assert len({digest, dataset.fingerprint(ids[:-1]), dataset.fingerprint(())}) == 3
        if len(ids) > 1:
            assert dataset.fingerprint(ids[::-1]) != digest, "the order of the ids is no part of it"
        changed = self.changed()
        if changed is not None:
            assert changed.fingerprint(ids) != digest, "labels are no part of it"

    @pytest.mark.parametrize("kind", SPARSE)
    def test_sparse_labels_agree_with_the_masks(self, kind: str) -> None:
        """Labels of the mask or 255, at least one where the mask has any; skipped for a kind that it refuses."""
        dataset = self.dataset()
        train = [image_id for split, image_id in self.shown(dataset) if split == "train"]
        try:
            digest = dataset.weak_fingerprint(tuple(train), kind)
        except BadInput:
            pytest.skip(f"{dataset.name} has no {kind}")
        assert digest == self.dataset().weak_fingerprint(tuple(train), kind)
        for image_id in train:
            label_HW, mask_HW = dataset.weak(image_id, kind), dataset.mask(image_id)
            assert label_HW.dtype == np.uint8, image_id
            assert label_HW.shape == mask_HW.shape, image_id
            told = label_HW != IGNORE
            assert told.any() or not (mask_HW != IGNORE).any(), image_id
            assert (label_HW[told] < dataset.num_labels).all(), image_id
            assert np.array_equal(dataset.weak(image_id, kind), label_HW), image_id

    def test_what_is_not_there_is_refused(self) -> None:
        """An unknown split, id or kind of labels is a BadInput with a fix, nothing else."""
        dataset = self.dataset()
        known = dataset.ids("train")[0]
        for ask in (
            lambda: dataset.ids("no such split"),
            lambda: dataset.image("no such image"),
            lambda: dataset.mask("no such image"),
            lambda: dataset.weak(known, "no such kind"),
        ):
            with pytest.raises(BadInput) as caught:
                ask()
            assert all(problem.found and problem.fix for problem in caught.value.problems)

    def test_its_own_check_passes(self) -> None:
        """`check` finds nothing wrong with the images that are trained on and scored."""
        dataset = self.dataset()
        splits = plan_splits(dataset, protocol="fixed")
        dataset.check((*splits.train, *splits.report))
