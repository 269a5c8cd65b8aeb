"""Pictures of chosen images by a finished run's own weights, kept in the store as artifacts of the run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.api.images import BACKGROUND, Maps
from harness.api.vocabulary import IGNORE, TARGETS
from harness.cli.evaluate_words import EvaluateWords
from harness.cli.parsing import parse
from harness.datasets.io.colours import PALETTE
from harness.datasets.io.image_files import decided
from harness.engine.inference.predictions import MAPS, predict
from harness.errors import BadInput, Problem
from harness.evaluation.again import Again, plan_again
from harness.evaluation.picture_files import DIGITS, IMAGE, KIND, TRUTH, picture_path
from harness.files import content_digest, write_bytes
from harness.store import Store

FAINT = 0.25
"""Of the grey photo that stays below a full map."""
SURE = 0.8
"""How strong a class is shown that beats a background with a map of its own."""


def add_pictures(store: Store, key: str, wanted: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Predict what is `wanted` of a run (ids of images by image, truth or target) and keep it; what could not be.

    Maps are shown over the grey photo in the colours of their classes, label maps in VOC's colours.
    """
    problems: list[Problem] = []
    rows = []
    again: Again | None = None
    for target in [t for t in TARGETS if wanted.get(t)]:
        try:
            again = plan_again(parse([f"run={key}", f"store={store.root}", f"target={target}"], EvaluateWords), store)
            made = _of_target(again, target, wanted[target])
        except BadInput as e:
            problems += e.problems
            continue
        rows += [_kept(store, key, target, i, picture) for i, picture in made.items()]
    if again is not None:
        data = again.job.dataset
        rows += [_kept(store, key, IMAGE, i, data.image(i)) for i in wanted.get(IMAGE, ())]
        rows += [_kept(store, key, TRUTH, i, PALETTE[data.mask(i)]) for i in wanted.get(TRUTH, ())]
    if rows:
        frame = pl.DataFrame(rows)
        digest = hashlib.sha256("\n".join(frame["path"]).encode()).hexdigest()[:DIGITS]
        store.write("artifacts", f"{key}-pictures-{digest}", frame, again=True)
    return problems


def _of_target(again: Again, target: str, ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """RGB pictures (H,W,3) of a target by image. Raises BadInput for weights that do not fit."""
    data = again.job.dataset
    known = set(again.job.ids)
    if lost := [i for i in ids if i not in known]:
        raise BadInput(
            Problem("data", f"image {lost[0]!r} is not in {again.job.split} of {data.name}", "see data.root")
        )
    method = again.trained(again.network).to(again.job.device)
    torch.set_num_threads(again.job.threads)
    out = {}
    for image_id in ids:
        truth_HW = data.mask(image_id)
        size = (int(truth_HW.shape[0]), int(truth_HW.shape[1]))
        with torch.no_grad():
            maps, labels = predict(
                again.job.scorer(), method, [image_id], [size], frozenset({target}), again.job.target.weights
            )
        image_HW3 = data.image(image_id)
        shown = (
            _overlay(image_HW3, maps[0], target, size, data.has_background) if target in MAPS else PALETTE[labels[0]]
        )
        out[image_id] = np.where((truth_HW == IGNORE)[..., None], (shown * 0.5 + 112).astype(np.uint8), shown)
    return out


def _overlay(
    image_HW3: NDArray[np.uint8], maps: Maps, target: str, size: tuple[int, int], has_background: bool
) -> NDArray[np.uint8]:
    """The strongest class of every pixel in its colour, as strong as its score, over the grey photo."""
    score_HW, cls_HW = decided(maps, target, size)
    # Maps with one of background's own say by the sign which is stronger.
    strength_HW = np.where(score_HW > 0, SURE, 0.0) if BACKGROUND in maps.classes else score_HW
    alpha_HW1 = (1 - FAINT) * np.clip(strength_HW, 0.0, 1.0)[..., None]
    grey_HW1 = image_HW3.mean(-1, keepdims=True)
    colour_HW3 = PALETTE[cls_HW + int(has_background)]
    mixed: NDArray[np.uint8] = (grey_HW1 * (1 - alpha_HW1) + colour_HW3 * alpha_HW1).astype(np.uint8)
    return mixed


def _kept(store: Store, key: str, what: str, image_id: str, picture_HW3: NDArray[np.uint8]) -> dict[str, str]:
    """The row of a picture that has been written."""
    buffer = io.BytesIO()
    Image.fromarray(picture_HW3).save(buffer, "PNG", optimize=True)
    relative = picture_path(key, what, image_id)
    path = store.root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return {"key": key, "kind": KIND, "path": relative, "digest": content_digest(path)}
