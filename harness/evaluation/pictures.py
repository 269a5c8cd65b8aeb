"""Pictures of chosen images by a finished run's own weights, kept in the store as artifacts of the run."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.api.dataset import Dataset
from harness.api.images import BACKGROUND, Maps
from harness.api.vocabulary import IGNORE, TARGETS
from harness.cli.evaluate_words import EvaluateWords
from harness.cli.parsing import parse
from harness.datasets.io.colours import PALETTE
from harness.datasets.io.image_files import decided
from harness.engine.inference.predictions import MAPS, predict
from harness.errors import BadInput, Problem
from harness.evaluation.again import Again, plan_again, scored_data
from harness.evaluation.finished import find_run
from harness.evaluation.job import device_of, threads_of
from harness.evaluation.picture_files import DIGITS, IMAGE, KIND, TRUTH, picture_path
from harness.evaluation.written import plan_rewriter
from harness.files import content_digest, write_bytes
from harness.plan.config import RunConfig
from harness.plan.recipes import recipe_of
from harness.store import Store, load

FAINT = 0.25
"""Of the grey photo that stays below a full map."""
SURE = 0.8
"""How strong a class is shown that beats a background with a map of its own."""


@dataclass(frozen=True)
class Seen:
    """What a run says of the images of its reported split."""

    dataset: Dataset
    split: str
    ids: frozenset[str]
    of: Callable[[str], Maps | NDArray[np.uint8]]
    """An image's score maps, or label map (H,W)."""


def add_pictures(store: Store, key: str, wanted: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Make the pictures that are `wanted` of a run (ids of images by image, truth or target), and keep them; what could
    not be made.

    A target that a network predicts is predicted; one that a stage writes is read where its files were kept, else
    written once more for these images. Maps are shown over the grey photo in the colours of their classes, label maps
    in VOC's colours.
    """
    problems: list[Problem] = []
    rows = []
    data: Dataset | None = None
    # One folder for all targets: pseudo masks read the maps that were written for the CAMs.
    with tempfile.TemporaryDirectory() as folder:
        for target in [t for t in TARGETS if wanted.get(t)]:
            try:
                seen = _seen(store, key, target, list(wanted[target]), Path(folder))
                made = {i: _drawn(seen, target, i) for i in wanted[target]}
            except BadInput as e:
                problems += e.problems
                continue
            data = seen.dataset
            rows += [_kept(store, key, target, i, picture) for i, picture in made.items()]
    if data is not None:
        rows += [_kept(store, key, IMAGE, i, data.image(i)) for i in wanted.get(IMAGE, ())]
        rows += [_kept(store, key, TRUTH, i, PALETTE[data.mask(i)]) for i in wanted.get(TRUTH, ())]
    if rows:
        frame = pl.DataFrame(rows)
        digest = hashlib.sha256("\n".join(frame["path"]).encode()).hexdigest()[:DIGITS]
        store.write("artifacts", f"{key}-pictures-{digest}", frame, again=True)
    return problems


def _seen(store: Store, key: str, target: str, ids: list[str], folder: Path) -> Seen:
    """Raises BadInput for a run that left too little, and for weights that do not fit."""
    # Strengths are drawn, not labels: no threshold is needed.
    parsed = parse([f"run={key}", f"store={store.root}", f"target={target}", "protocol=fixed"], EvaluateWords)
    results = load(store.root, ["runs", "artifacts"])
    row = find_run(results, key)
    run = RunConfig.from_stored(row["config"])
    recipe = recipe_of(run)
    torch.set_num_threads(threads_of(parsed.words))
    if target not in recipe.targets or recipe.network_of(target) is not None:
        return _by_network(plan_again(parsed, store), target)
    problems: list[Problem] = []
    opened, device = scored_data(parsed.words, run, row, store, problems), device_of(parsed.words, problems)
    if opened is None or problems:
        raise BadInput(problems)
    dataset, split, known = opened
    rewriter = plan_rewriter(results, store, str(row["key"]), run, dataset, target, ids, folder, device)
    return Seen(dataset, split, frozenset(known), partial(rewriter.of, recipe.scored[target]))


def _by_network(again: Again, target: str) -> Seen:
    job = again.job
    method = again.trained(again.network).to(job.device)

    def of(image_id: str) -> Maps | NDArray[np.uint8]:
        with torch.no_grad():
            size = job.dataset.size(image_id)
            maps, labels = predict(
                job.scorer(), method, [image_id], [size], frozenset({target}), job.target.weights
            )  # fmt: skip
        return maps[0] if target in MAPS else labels[0]

    return Seen(job.dataset, job.split, frozenset(job.ids), of)


def _drawn(seen: Seen, target: str, image_id: str) -> NDArray[np.uint8]:
    """The RGB picture (H,W,3) of a target. Raises BadInput for an image that the split does not have."""
    data = seen.dataset
    if image_id not in seen.ids:
        raise BadInput(Problem("data", f"image {image_id!r} is not in {seen.split} of {data.name}", "see data.root"))
    truth_HW, found = data.mask(image_id), seen.of(image_id)
    size = (int(truth_HW.shape[0]), int(truth_HW.shape[1]))
    shown = (
        _overlay(data.image(image_id), found, target, size, data.has_background)
        if isinstance(found, Maps)
        else PALETTE[found]
    )
    return np.where((truth_HW == IGNORE)[..., None], (shown * 0.5 + 112).astype(np.uint8), shown)


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
