"""Share and accuracy of what FSAE's teacher chooses, on a picture whose truth is known by hand."""

from __future__ import annotations

import math

import golden_curves as golden
import numpy as np
import pytest
import torch

from harness.datasets import open_dataset
from methods.fsae.accuracy import MASKS, Chosen, chosen_accuracy
from methods.fsae.labels import TeacherLabels


def test_counts_are_those_by_hand(monkeypatch) -> None:
    """Four cells, truth 1, 0, 255, 2: confident are all but the last, of foreground the first, the ring is the last."""
    method = golden.make("cam+fsae")
    dataset = open_dataset("shapes", options={"n_train": "2", "n_val": "2", "n_test": "2"})
    truth = np.array([[1, 0], [255, 2]], np.uint8).repeat(48, 0).repeat(48, 1)
    monkeypatch.setattr(type(dataset), "mask", lambda self, image_id: truth)
    label = torch.tensor([[[1, 2], [0, 2]]])
    mask = torch.tensor([[[True, True], [True, False]]])
    front, ring = torch.tensor([[[True, False], [False, False]]]), torch.tensor([[[False, False], [False, True]]])
    said = TeacherLabels(torch.ones(1, 2, 2), label, mask, front, ring, ring, mask | ring)
    monkeypatch.setattr(type(method), "teacher_labels", lambda self, images, tags: said)
    found = chosen_accuracy(method, dataset, dataset.ids("train"))
    assert found["mask"] == Chosen(pytest.approx(2 / 3), 0.5)
    assert found["mask_fg"] == Chosen(pytest.approx(1 / 3), 1.0)
    assert found["ring_kept"] == Chosen(pytest.approx(1 / 3), 1.0)
    assert found["mask_exp"] == Chosen(1.0, pytest.approx(2 / 3))
    nothing = said._replace(mask_fg=torch.zeros_like(mask))
    monkeypatch.setattr(type(method), "teacher_labels", lambda self, images, tags: nothing)
    share, accuracy = chosen_accuracy(method, dataset, dataset.ids("train"))["mask_fg"]
    assert share == 0
    assert math.isnan(accuracy)


def test_a_network_s_own_labels_are_counted() -> None:
    method = golden.make("cam+fsae", num_classes=len(open_dataset("shapes").class_names) - 1).eval()
    dataset = open_dataset("shapes", options={"n_train": "3", "n_val": "2", "n_test": "2"})
    found = chosen_accuracy(method, dataset, dataset.ids("train"))
    assert set(found) == set(MASKS)
    assert found["mask_exp"].share >= found["mask"].share >= found["mask_fg"].share
    assert 0 < found["mask_exp"].share <= 1
