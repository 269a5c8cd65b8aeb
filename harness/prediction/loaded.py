"""`harness.load_run`: a finished run as an object that predicts images, for notebooks and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.api.inference import inference_problems
from harness.api.method import Method
from harness.cli.predict_words import PredictWords
from harness.datasets.io.images import rgb_of
from harness.errors import BadInput, Problem, nearest
from harness.plan.config import RunConfig
from harness.prediction.job import of_run
from harness.prediction.outputs import overlay
from harness.prediction.predictor import Predicted, Predictor


@dataclass(frozen=True)
class LoadedRun:
    """A finished run: its network with the weights that it left, and its config."""

    key: str
    config: RunConfig
    predictor: Predictor

    @property
    def method(self) -> Method:
        """The network that predicts the target, in eval mode, on its device."""
        return self.predictor.method

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every label value, background first where there is one."""
        return self.predictor.labels.class_names

    def predict(self, image: Image.Image, tags: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """Label map (H,W) uint8 of a photo of any size, grey, RGB or RGBA with 8 bits a channel, seen as in scoring.

        `tags` are the names of the classes that it is known to hold: no other is predicted; CAMs need them. Raises
        BadInput for unknown names and for more than 8 bits.
        """
        return self.predicted(image, tags).labels_HW

    def predicted(self, image: Image.Image, tags: Sequence[str] | None = None, *, scores: bool = False) -> Predicted:
        """As `predict`, with `scores` the probabilities too."""
        return self.predictor.predict(rgb_of(image, "image"), self._tags(tags), scores=scores)

    def overlay(self, image: Image.Image, tags: Sequence[str] | None = None) -> Image.Image:
        """The photo under the colours of what is predicted."""
        labels_HW = self.predict(image, tags)
        return Image.fromarray(overlay(rgb_of(image, "image"), labels_HW, self.predictor.labels.has_background))

    def _tags(self, tags: Sequence[str] | None) -> NDArray[np.float32] | None:
        known = self.predictor.labels.foreground
        if tags is None:
            if self.predictor.target.name != "segmentation":
                found = f"are needed: a {self.predictor.target.name} is made of the classes that an image holds"
                raise BadInput(Problem("tags", found, f"tags=[{known[0]!r}], or load_run(..., target='segmentation')"))
            return None
        unknown = [name for name in tags if name not in known]
        if unknown:
            raise BadInput(
                [Problem("tags", f"{name!r} is no class of this run", nearest(name, known)) for name in unknown]
            )
        return np.array([name in tags for name in known], np.float32)


def load_run(
    store: str | Path,
    key: str,
    *,
    target: str | None = None,
    weights: str = "student",
    scales: str | None = None,
    flip: str | None = None,
    fusion: str | None = None,
    gpus: float | None = None,
) -> LoadedRun:
    """A finished run of a store by its key (its start is enough), with the network that predicts `target`.

    The words are those of `harness.predict`: `weights` is student, teacher or best, `scales` a list or the name of a
    protocol; None is what the run was scored with. Raises BadInput with everything that is wrong.
    """
    words = PredictWords(
        run=key, store=str(store), target=target, weights=weights, scales=scales, flip=flip, fusion=fusion, gpus=gpus
    )
    problems = inference_problems(scales, flip, fusion)
    if problems:
        raise BadInput(problems)
    chosen = of_run(words, problems)
    if chosen is None or problems:
        raise BadInput(problems)
    return LoadedRun(chosen.key, chosen.run, chosen.predictor())
