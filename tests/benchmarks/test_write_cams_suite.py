"""What stands beside the network when maps are written: files equal the network's maps, and wrong ones are seen."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.suites import write_cams
from harness.api.images import Maps


def test_files_hold_the_network_s_maps_for_its_passes_alone() -> None:
    (case,) = write_cams.cases(quick=True)
    assert "half precision" in case.equal()
    assert case.goal is None


def test_single_stage_methods_write_what_they_predict() -> None:
    size = write_cams.Size("cam", "shapes", "smoke", "shapes_vit", (60, 80), images=2)
    assert "half precision" in write_cams.Stage(size).equal()


def test_other_passes_and_other_maps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = write_cams.Stage(write_cams.SIZES["irn smoke"])
    one = stage.worker

    def twice(image: object) -> Maps:
        one(image)
        return one(image)

    stage.worker = twice
    with pytest.raises(AssertionError, match="operations"):
        stage.equal()
    drawn = iter(torch.rand(9).tolist())
    stage.worker = lambda image: dataclasses.replace(
        one(image), scales={"cam": [m + next(drawn) for m in one(image).scales["cam"]]}
    )
    monkeypatch.setattr(
        write_cams, "products_of", lambda call: (call(), dataclasses.make_dataclass("P", ["flops"])(1))[1]
    )
    with pytest.raises(AssertionError, match="written maps"):
        stage.equal()
