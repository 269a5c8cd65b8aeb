"""The stage that goes image by image: one file for each, shared out over the run's workers, and over the CPUs of each
where no network is asked."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from harness.api.dataset import Dataset
from harness.api.images import ImageInfo, ImageInput, Worker
from harness.api.method import Method
from harness.api.recipe import PerImage, Recipe
from harness.api.spec import resolve
from harness.datasets.io.image_files import existing, file_of
from harness.engine.context import Context
from harness.engine.inference.predictions import batches
from harness.engine.stages.fan_out import fanned_out, written_by
from harness.engine.stages.keys import images_of
from harness.engine.stages.stage import Outputs
from harness.errors import StoreError
from harness.files import plain_words, write_bytes
from harness.plan.config import RunConfig
from harness.plan.recipes import config_of, image_ids, run_of
from harness.scoring.crf import PRESETS

PROBE = 4
"""Images from which the time of the others is told."""
WORTH_PROCESSES = 20.0
"""Seconds of work that are worth the start of processes, each of which imports torch."""
FILES = "files"
"""Folder of a stage's files, one for each image."""


def outputs_of(stage: PerImage) -> Outputs:
    """The artefact: a folder of files."""
    return Outputs(name=stage.name, outputs={stage.makes: FILES})


def info_of(
    stage: PerImage, run: RunConfig, recipe: Recipe, dataset: Dataset, networks: Mapping[str, Method], device: str
) -> ImageInfo:
    """What the worker of a run's stage is built for, with the networks that it asks."""
    own = run_of(run, stage)
    return ImageInfo(
        num_classes=dataset.num_classes,
        has_background=dataset.has_background,
        crop=own.crop,
        variant=own.variant,
        targets=tuple(t for t, source in recipe.scored.items() if source == stage.makes),
        networks=networks,
        # Whether processes share the work or not, equal bytes come out.
        device=device if stage.networks else "cpu",
        crf=None if stage.crf is None else PRESETS[stage.crf],
    )


def input_of(image_id: str, dataset: Dataset, inputs: Mapping[str, Any]) -> ImageInput:
    """What a worker is given of an image; `inputs` are its earlier stages' files, by artefact."""
    return ImageInput(image_id, dataset.image(image_id), dataset.tags(image_id), inputs)


def write_files(stage: PerImage, context: Context, folder: Path) -> None:
    """Write the files that are missing. Raises StoreError where the disk is full."""
    out = folder / FILES
    out.mkdir(parents=True, exist_ok=True)
    ids = image_ids(images_of(stage, context), context.splits)
    session, bf16 = context.session, context.run.precision == "bf16"
    mine = ids[session.rank :: session.world_size]
    networks = {name: context.network(name) for name in stage.networks}
    info = info_of(stage, context.run, context.recipe, context.dataset, networks, session.device)
    with context.phases.of("stages"):
        worker: Worker = resolve(stage.does)(config_of(context.run, stage), info)
        if not stage.networks:
            todo = [i for i in mine if not existing(out, i)]
            with closing(_made(stage, context, worker, info, todo)) as made:
                for n, (image_id, suffix, content) in enumerate(made):
                    _write(file_of(out, image_id, suffix), content, len(todo) - n, stage)
            return
        done = 0
        for chunk in batches(mine, getattr(worker, "batch", 1)):
            context.report_progress(stage.name, done, len(mine))
            done += len(chunk)
            # Whole chunks: which images pass a network together may show in the last bit.
            if all(existing(out, i) for i in chunk):
                continue
            found = written_by(worker, [_input(stage, context, i) for i in chunk], session.device, bf16=bf16)
            for n, (image_id, (suffix, content)) in enumerate(zip(chunk, found, strict=True), done - len(chunk)):
                _write(file_of(out, image_id, suffix), content, len(mine) - n, stage)


def _made(
    stage: PerImage, context: Context, worker: Worker, info: ImageInfo, todo: list[str]
) -> Generator[tuple[str, str, bytes]]:
    """Id, suffix and content of each image's file, of a worker that asks no network: made here, but in processes of
    their own once it shows that this would take long."""
    config, threads = config_of(context.run, stage), context.machine.threads
    bf16 = context.run.precision == "bf16"
    made: Generator[tuple[str, str, bytes]] | None = None
    began = time.perf_counter()
    try:
        for n, image_id in enumerate(todo):
            context.report_progress(stage.name, n, len(todo))
            spent, left = time.perf_counter() - began, len(todo) - n
            if made is None and threads > 1 and n >= PROBE and spent / n * left > WORTH_PROCESSES:
                rest = (_input(stage, context, i) for i in todo[n:])
                made = fanned_out(stage.does, config, info, rest, min(threads, left), bf16=bf16)
            if made is not None:
                yield next(made)
            else:
                yield (image_id, *written_by(worker, [_input(stage, context, image_id)], info.device, bf16=bf16)[0])
    finally:
        if made is not None:
            made.close()


def _input(stage: PerImage, context: Context, image_id: str) -> ImageInput:
    return input_of(image_id, context.dataset, {name: context.files_of(name)(image_id) for name in stage.inputs})


def _write(path: Path, content: bytes, left: int, stage: PerImage) -> None:
    try:
        # Forced to the disk all at once, before the stage says that it is done.
        write_bytes(path, content, sync=False)
    except OSError as e:
        raise StoreError(
            f"{path} could not be written: {plain_words(e)}. Stage {stage.name} has about {left} files of "
            f"{len(content) / 1024:.0f} KiB left to write ({left * len(content) / 2**20:.0f} MiB): free space and run "
            "the same command again, it goes on from here"
        ) from e
