"""The stage that goes image by image: one file for each, shared out over the run's workers."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.api.images import ImageInfo, ImageInput, Worker
from harness.api.recipe import PerImage
from harness.api.spec import resolve
from harness.datasets.io.image_files import encoded, existing, file_of
from harness.engine.context import Context
from harness.engine.inference.predictions import batches
from harness.engine.stages.keys import images_of
from harness.engine.stages.stage import Outputs
from harness.errors import StoreError
from harness.files import plain_words, write_bytes
from harness.plan.recipes import config_of, image_ids, run_of
from harness.scoring.crf import PRESETS

FILES = "files"
"""Folder of a stage's files, one for each image."""


def outputs_of(stage: PerImage) -> Outputs:
    """The artefact: a folder of files."""
    return Outputs(name=stage.name, outputs={stage.makes: FILES})


def write_files(stage: PerImage, context: Context, folder: Path) -> None:
    """Write the files that are missing. Raises StoreError where the disk is full."""
    out = folder / FILES
    out.mkdir(parents=True, exist_ok=True)
    ids = image_ids(images_of(stage, context), context.splits)
    session, run = context.session, run_of(context.run, stage)
    mine = ids[session.rank :: session.world_size]
    info = ImageInfo(
        num_classes=context.dataset.num_classes,
        has_background=context.dataset.has_background,
        crop=run.crop,
        variant=run.variant,
        targets=tuple(t for t, source in context.recipe.scored.items() if source == stage.makes),
        networks={name: context.network(name) for name in stage.networks},
        device=session.device,
        crf=None if stage.crf is None else PRESETS[stage.crf],
    )
    with context.phases.of("stages"):
        worker: Worker = resolve(stage.does)(config_of(context.run, stage), info)
        many = getattr(worker, "many", None)
        done = 0
        for chunk in batches(mine, getattr(worker, "batch", 1)):
            context.report_progress(stage.name, done, len(mine))
            done += len(chunk)
            # Whole chunks: which images pass a network together may show in the last bit.
            if all(existing(out, i) for i in chunk):
                continue
            inputs = [_input(stage, context, i) for i in chunk]
            with (
                torch.no_grad(),
                torch.autocast(torch.device(session.device).type, torch.bfloat16, run.precision == "bf16"),
            ):
                found = many(inputs) if many is not None else [worker(one) for one in inputs]
            for n, (image_id, written) in enumerate(zip(chunk, found, strict=True), done - len(chunk)):
                suffix, content = encoded(written)
                _write(file_of(out, image_id, suffix), content, len(mine) - n, stage)


def _input(stage: PerImage, context: Context, image_id: str) -> ImageInput:
    made: dict[str, object] = {name: context.files_of(name)(image_id) for name in stage.inputs}
    return ImageInput(image_id, context.dataset.image(image_id), context.dataset.tags(image_id), made)


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
