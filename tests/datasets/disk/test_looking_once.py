"""What a plan asks of many pictures over and over is looked at once; runs, and wrong pictures, are asked anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.datasets import open_dataset
from harness.datasets.disk import looking
from harness.datasets.disk.looking import look, looked_at_once
from harness.errors import BadInput

IDS = ("a0", "a1", "v0")


@pytest.fixture
def folder(folder_maker, tmp_path):
    root: Path = folder_maker(tmp_path / "data", {"train": IDS[:2], "val": IDS[2:]})
    return root, open_dataset("folder", root=str(root))


@pytest.fixture
def asked(monkeypatch):
    """Ids whose files were asked about."""
    found: list[str] = []
    recalled = looking._recalled
    monkeypatch.setattr(looking, "_recalled", lambda *words: (found.append(words[1]), recalled(*words))[1])
    return found


def test_a_plan_looks_once_and_a_run_again(folder, asked):
    _, dataset = folder
    asked.clear()
    with looked_at_once():
        dataset.check(IDS)
        assert asked == list(IDS)
        told = dataset.fingerprint(IDS), dataset.image_fingerprint(IDS), dataset.warnings(IDS)
        assert asked == list(IDS)
        assert look(dataset, IDS, images=False).seen["a0"].image is None
        _ = open_dataset("folder", root=str(dataset.layout.root)).image_fingerprint(IDS)
        assert len(asked) > len(IDS), "of another dataset nothing is known"
    asked.clear()
    assert told == (dataset.fingerprint(IDS), dataset.image_fingerprint(IDS), dataset.warnings(IDS))
    assert asked == 3 * list(IDS)


def test_masks_alone_are_no_look_at_the_picture(folder, asked):
    _, dataset = folder
    with looked_at_once():
        dataset.fingerprint(IDS)
        asked.clear()
        dataset.check(IDS)
        assert asked == list(IDS)


def test_what_is_wrong_or_odd_is_told_each_time(folder, mask_writer):
    root, dataset = folder
    mask = np.full((24, 32), 255)
    mask_writer(root / "SegmentationClass" / "a1.png", mask)
    with looked_at_once():
        assert [len(look(dataset, IDS).warnings) for _ in range(2)] == [1, 1]
        mask[5:9] = 9
        mask_writer(root / "SegmentationClass" / "a1.png", mask)
        for _ in range(2):
            with pytest.raises(BadInput, match="label 9"):
                dataset.check(IDS)


def test_a_change_after_the_plan_is_seen(folder, mask_writer):
    root, dataset = folder
    with looked_at_once():
        before = dataset.fingerprint(IDS), dataset.image_fingerprint(IDS)
        mask_writer(root / "SegmentationClass" / "a0.png", np.ones((24, 32)))
    assert dataset.fingerprint(IDS) != before[0]
    assert dataset.image_fingerprint(IDS) == before[1]
