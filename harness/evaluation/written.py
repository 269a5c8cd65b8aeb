"""What a stage of a finished run wrote of an image: of the files that the run kept, else once more by the same worker,
with the networks that the run left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from harness.api.dataset import Dataset
from harness.api.images import Worker
from harness.api.method import Method
from harness.api.recipe import PerImage, Recipe, maps_kind
from harness.api.spec import resolve
from harness.datasets.io.image_files import existing, file_of, read
from harness.engine.stages.fan_out import written_by
from harness.engine.stages.per_image import info_of, input_of
from harness.errors import BadInput, Problem
from harness.evaluation.trained import load_network, weights_of
from harness.files import write_bytes
from harness.plan.config import RunConfig
from harness.plan.recipes import config_of, recipe_of
from harness.store import Results, Store


@dataclass(frozen=True, kw_only=True)
class Rewriter:
    """A run's stages that go image by image, for single images. What is written anew lies in `folder`."""

    run: RunConfig
    recipe: Recipe
    dataset: Dataset
    device: str
    kept: Mapping[str, Path]
    """By artefact: the folder that the run kept, with a file of each image that is asked for."""
    weights: Mapping[str, Path]
    """By network: its file."""
    folder: Path
    _networks: dict[str, Method] = field(default_factory=dict)
    _workers: dict[str, Worker] = field(default_factory=dict)

    def of(self, artefact: str, image_id: str) -> Any:
        """Maps, label map or vector of an image. Raises BadInput for damaged files and for weights that do not fit the
        code of today."""
        if artefact in self.kept:
            return read(self.kept[artefact], image_id)
        stage, folder = self.recipe.maker(artefact), self.folder / artefact
        assert isinstance(stage, PerImage)
        if not existing(folder, image_id):
            image = input_of(image_id, self.dataset, {name: self.of(name, image_id) for name in stage.inputs})
            bf16 = self.run.precision == "bf16"
            ((suffix, content),) = written_by(self._worker(stage), [image], self.device, bf16=bf16)
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(file_of(folder, image_id, suffix), content, sync=False)
        return read(folder, image_id)

    def _worker(self, stage: PerImage) -> Worker:
        if stage.name not in self._workers:
            networks = {name: self._network(name) for name in stage.networks}
            info = info_of(stage, self.run, self.recipe, self.dataset, networks, self.device)
            self._workers[stage.name] = resolve(stage.does)(config_of(self.run, stage), info)
        return self._workers[stage.name]

    def _network(self, name: str) -> Method:
        if name not in self._networks:
            self._networks[name] = load_network(self.run, name, self.weights, self.dataset).to(self.device)
        return self._networks[name]


def plan_rewriter(
    results: Results, store: Store, key: str, run: RunConfig, dataset: Dataset, target: str, ids: list[str],
    folder: Path, device: str,
) -> Rewriter:  # fmt: skip
    """For the target of a run that a stage writes. Raises BadInput with what is neither kept nor can be made again."""
    recipe = recipe_of(run)
    kept: dict[str, Path] = {}
    weights: dict[str, Path] = {}
    problems: list[Problem] = []
    given = {g.name: g.knob for g in recipe.given}

    def look(artefact: str) -> None:
        path = kept_folder(results, store, key, artefact, ids)
        if path is not None:
            kept[artefact] = path
        elif artefact in given:
            found = f"{key} read the folder of {given[artefact]}, of which it kept nothing"
            problems.append(Problem("run", found, "run it again with keep=last,maps"))
        else:
            stage = recipe.maker(artefact)
            for name in stage.networks:
                weights.update(weights_of(results, key, store, recipe, name, problems))
            for name in stage.inputs if isinstance(stage, PerImage) else ():
                look(name)

    look(recipe.scored[target])
    if problems:
        raise BadInput(list(dict.fromkeys(problems)))
    return Rewriter(run=run, recipe=recipe, dataset=dataset, device=device, kept=kept, weights=weights, folder=folder)


def kept_folder(
    results: Results, store: Store, key: str, artefact: str, ids: list[str] | tuple[str, ...]
) -> Path | None:
    """The folder that a run kept of a stage's files, where it has one of each of these images."""
    rows = results.artifacts.filter((pl.col("key") == key) & (pl.col("kind") == maps_kind(artefact)))
    for path in rows["path"].to_list():
        if all(existing(store.root / path, image_id) for image_id in ids):
            return store.root / path
    return None
