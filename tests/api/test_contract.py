"""A method or dataset that misses a member is refused when it is built, with the place where it is written."""

from __future__ import annotations

import inspect
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch

from harness.api.dataset import Dataset
from harness.api.method import Method, OptimizerPlan, Prediction, StepOutput
from harness.errors import BadInput
from methods.cam.method import Cam


class Whole(Method):
    """Everything that the contract asks for."""

    def transform(self):
        return None

    def step(self, group, progress):
        return StepOutput({"one": torch.zeros(())})

    def optimizers(self) -> list[OptimizerPlan]:
        return []

    def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"):
        return Prediction()


def without(name: str) -> type[Method]:
    return type(Method)("Holed", (Whole,), {name: getattr(Method, name), "__module__": __name__})


def test_a_whole_method_is_built() -> None:
    assert Whole().teacher is None
    assert not Cam.__abstractmethods__


class NoStep(Whole):
    """Misses its step."""

    step = Method.step
    optimizers = Method.optimizers


def test_what_is_missing_is_named_with_file_line_and_signature() -> None:
    with pytest.raises(BadInput) as caught:
        NoStep()
    (problem,) = caught.value.problems
    assert problem.where == f"{__file__}:{inspect.getsourcelines(NoStep)[1]}"
    assert problem.found == "NoStep has no optimizers and no step"
    assert "def step(self, group: 'Batch', progress: 'Progress') -> 'StepOutput': Losses and statistics" in problem.fix
    assert "def optimizers(self) -> 'list[OptimizerPlan]'" in problem.fix


@pytest.mark.parametrize("name", ["step", "optimizers", "transform", "predict"])
def test_each_member_is_asked_for(name: str) -> None:
    with pytest.raises(BadInput, match=f"Holed has no {name}\n"):
        without(name)()


class Pictures(Dataset):
    """Misses the reader of masks."""

    name: str = "pictures"
    family: str = "voc"
    class_names: ClassVar[tuple[str, ...]] = ("background", "cat")  # type: ignore[misc]
    has_background: bool = True

    def splits(self) -> dict[str, bool]:
        return {"train": True}

    def ids(self, split: str) -> tuple[str, ...]:
        return ("a",)

    def image(self, image_id: str) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        return "f"


def test_a_dataset_without_its_reader_is_refused() -> None:
    with pytest.raises(BadInput, match="Pictures has no mask") as caught:
        Pictures()
    assert caught.value.problems[0].where.startswith(__file__)


def test_datasets_travel_to_loader_processes() -> None:
    class_ = type(Pictures)("Masked", (Pictures,), {"mask": Pictures.image, "__module__": __name__})
    globals()["Masked"] = class_
    assert pickle.loads(pickle.dumps(class_())).ids("train") == ("a",)
