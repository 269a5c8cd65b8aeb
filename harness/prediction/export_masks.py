"""The pseudo masks of a run's images as a folder in VOC layout, which other programs and `full` train on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.images import Maps
from harness.api.recipe import PerImage, Recipe
from harness.cli.predict_words import PredictWords
from harness.datasets.disk.files import FileDataset
from harness.datasets.disk.layout import IMAGES, LISTS, MASKS
from harness.datasets.io.image_files import file_of, labels_at, read
from harness.datasets.io.reading import cores, with_bar
from harness.errors import BadInput, HarnessError, Problem
from harness.evaluation.data_of import check_same, open_data
from harness.evaluation.finished import find_run
from harness.evaluation.trained import held_out
from harness.evaluation.written import kept_folder
from harness.files import atomic, content_digest, digest_of, plain_words, write_bytes
from harness.plan.config import RunConfig
from harness.plan.recipes import recipe_of
from harness.prediction.job import Chosen, of_run
from harness.prediction.outputs import MARK, Manifest, encoded, marked, names_file
from harness.prediction.predictor import Predictor
from harness.store import Results, Store, load

USUAL = ("pseudo", "cam", "segmentation")
"""Targets in the order in which masks to train on are taken from them."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported, checked whole: files that a stage left, or what a network predicts."""

    row: Mapping[str, Any]
    dataset: Dataset
    split: str
    ids: tuple[str, ...]
    target: str
    threshold: float
    files: Path | None
    chosen: Chosen | None
    out: Path
    images: bool
    again: bool

    def described(self) -> str:
        """What comes from where, in one line."""
        source = "of its stage's files" if self.files is not None else "predicted with the images' tags"
        return f"{self.target} of {self.row['method']} on {self.split}, {len(self.ids)} images, {source}"

    @property
    def manifest(self) -> Manifest:
        """What the folder says of itself."""
        source = content_digest(self.files) if self.files is not None else ""
        made = {
            "run": self.row["key"],
            "target": self.target,
            "threshold": self.threshold,
            "split": self.split,
            "images": digest_of(list(self.ids)),
            "from": source or "network",
        }
        return Manifest(self.out, made, (MASKS, IMAGES, LISTS.split("/")[0]))


def plan_export(
    store: Store,
    *,
    run: str,
    split: str,
    out: Path,
    target: str | None = None,
    threshold: float | None = None,
    root: str | None = None,
    classes: str | None = None,
    images: bool = True,
    again: bool = False,
) -> Export:
    """What the words of `harness.store export-masks` ask for. Raises BadInput with everything that is wrong."""
    results = load(store.root, ["runs", "evals", "artifacts"])
    row = find_run(results, run)
    config = RunConfig.from_stored(row["config"])
    recipe = recipe_of(config)
    name = target or next(t for t in USUAL if t in recipe.targets)
    problems: list[Problem] = []
    if name not in recipe.targets:
        found = f"{config.method} makes no {name}"
        raise BadInput(Problem("target", found, f"it makes: {', '.join(recipe.targets)}"))
    opened = open_data(config, row, store, root, classes, problems)
    ids: tuple[str, ...] = ()
    if opened is not None:
        dataset, splits = opened
        if split not in dataset.splits():
            problems.append(
                Problem("split", f"{dataset.name} has no {split}", f"it has: {', '.join(dataset.splits())}")
            )
        else:
            ids = dataset.ids(split)
            check_same(row, "train", "train", dataset, splits.train, problems)
    files = _files(results, store, str(row["key"]), recipe, name, ids)
    chosen = None
    if files is None:
        if recipe.network_of(name) is None:
            found = (
                f"{row['key']} left no {name} of these images: no network predicts it, and its stage's files are gone"
            )
            problems.append(Problem("run", found, "run it again with keep=maps"))
        else:
            words = PredictWords(run=run, target=name, threshold=threshold, store=str(store.root), images="", out="")
            chosen = of_run(words, problems)
    if problems or opened is None:
        raise BadInput(problems)
    chosen_threshold = held_out(results, str(row["key"]), name, "student")
    usual = config.cam_threshold if chosen_threshold is None else chosen_threshold
    return Export(
        row=row, dataset=opened[0], split=split, ids=ids, target=name,
        threshold=usual if threshold is None else threshold, files=files, chosen=chosen, out=out, images=images,
        again=again,
    )  # fmt: skip


def _files(results: Results, store: Store, key: str, recipe: Recipe, target: str, ids: tuple[str, ...]) -> Path | None:
    """The folder of a stage that has the file of each of these images; None where there is none."""
    made = recipe.scored[target]
    if not isinstance(recipe.maker(made), PerImage):
        return None
    return kept_folder(results, store, key, made, ids)


def export(job: Export, threads: int | None = None) -> int:
    """Write the folder; what an earlier call wrote of it is kept. Returns how many masks were made now.

    Raises BadInput for weights or data that do not fit, HarnessError where the disk is full.
    """
    torch.set_num_threads(threads or cores())
    manifest = job.manifest
    manifest.check(job.again)
    predictor = job.chosen.predictor() if job.chosen is not None else None
    lists = "".join(f"{_name(i)}\n" for i in job.ids).encode()
    manifest.begin({"classes.txt": names_file(job.dataset.class_names), f"{LISTS}/{job.split}.txt": lists})
    made = 0
    for image_id in with_bar(job.ids, len(job.ids), "masks"):
        path = file_of(job.out / MASKS, image_id, ".png")
        mark = digest_of([dict(manifest.identity), image_id])
        try:
            if job.images:
                _image(job.dataset, image_id, job.out / IMAGES)
            if not marked(path, mark):
                write_bytes(path, encoded(_mask(job, predictor, image_id), texts={MARK: mark}), sync=False)
                made += 1
        except OSError as error:
            what = f"the files of {image_id} could not be written: {plain_words(error)}"
            raise HarnessError(f"{what}; free space and run the same command again, it goes on from here") from error
    return made


def _mask(job: Export, predictor: Predictor | None, image_id: str) -> NDArray[np.uint8]:
    """Labels (H,W) of an image; 255 where a stage did not decide."""
    if predictor is not None:
        return predictor.predict(job.dataset.image(image_id), job.dataset.tags(image_id)).labels_HW
    assert job.files is not None
    found = read(job.files, image_id)
    if isinstance(found, Maps):
        return labels_at(found, job.target, job.dataset.size(image_id), job.threshold, job.dataset.has_background)
    return np.asarray(found, np.uint8)


def _image(dataset: Dataset, image_id: str, folder: Path) -> None:
    """The image under its mask's name: its own file, or a PNG of what is no file by itself."""
    source, part = dataset.image_part(image_id) if isinstance(dataset, FileDataset) else (None, "")
    if source is None or part:
        target = file_of(folder, image_id, ".png")
        if not target.is_file():
            write_bytes(target, encoded(dataset.image(image_id)), sync=False)
        return
    target = file_of(folder, image_id, source.suffix.lower())
    if not target.is_file():
        with atomic(target, sync=False) as tmp:
            shutil.copyfile(source, tmp)


def _name(image_id: str) -> str:
    return file_of(Path(), image_id, "").name
