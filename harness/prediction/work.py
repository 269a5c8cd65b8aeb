"""Going through the photos of a job: what is done is skipped, what cannot be read is named, the rest is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.datasets.io.images import merged, some_of
from harness.datasets.io.reading import with_bar
from harness.errors import BadInput, HarnessError, Problem
from harness.files import plain_words
from harness.prediction import layouts
from harness.prediction.job import Job


@dataclass(frozen=True)
class Told:
    """What became of the photos."""

    written: int
    kept: int
    """Done by an earlier call."""
    unread: tuple[Problem, ...]
    turned: tuple[str, ...]
    """Files that carry an orientation tag, which datasets and so the network do not apply."""


def predict_all(job: Job) -> Told:
    """Predict and write every photo that is not done; those that cannot be read are told, the others written.

    Raises BadInput for weights that do not fit, before anything is written, and HarnessError where the disk is full.
    """
    torch.set_num_threads(job.threads)
    problems: list[Problem] = []
    turned: list[str] = []
    todo: dict[str, str] = {}
    kept = written = 0
    for image_id, photo in job.photos.items():
        try:
            mark = job.outputs.mark(photo, None if job.tags is None else job.tags[image_id])
        except BadInput as e:
            problems.extend(e.problems)
            continue
        if job.outputs.done(image_id, mark):
            kept += 1
        else:
            todo[image_id] = mark
    predictor = job.chosen.predictor() if todo else None
    job.outputs.begin()
    for image_id, mark in with_bar(todo.items(), len(todo), "predicting"):
        assert predictor is not None
        photo = job.photos[image_id]
        try:
            image_HW3 = photo.read()
            turned += [photo.path.name] * photo.turned
        except BadInput as e:
            problems.extend(e.problems)
            continue
        tags_C = None if job.tags is None else job.tags[image_id]
        predicted = predictor.predict(image_HW3, tags_C, scores=job.outputs.scores)
        job.outputs.write(image_id, image_HW3, predicted, mark)
        written += 1
    return Told(written, kept, tuple(merged(problems)), tuple(turned))


def write_layout(job: Job) -> list[str]:
    """Make what a server takes, of all masks; returns what to say of it. Raises HarnessError where the disk is full."""
    assert job.layout is not None
    masks = {image_id: job.outputs.mask(image_id) for image_id in job.photos}
    try:
        made = layouts.write(job.layout, job.outputs.folder, masks, job.photos, job.chosen.trained)
    except OSError as error:
        raise HarnessError(f"{job.layout} could not be written: {plain_words(error)}") from error
    told = [f"for {job.layout}: {', '.join(map(str, made))}"]
    if job.layout == "voc-test":
        number, why = layouts.competition(job.chosen.trained)
        told.append(f"competition {number}: {why}")
    whole = layouts.LAYOUTS[job.layout].whole
    if whole is not None and whole != len(masks):
        told.append(f"it holds {len(masks):,} images; the server expects {whole:,}")
    return told


def turned_note(turned: tuple[str, ...]) -> str:
    """What is said of photos with an orientation tag."""
    told = "carry an orientation tag, which is not applied, as in training: turn their pixels where that matters"
    return f"{len(turned)} photos {told}: {some_of(turned)}"
