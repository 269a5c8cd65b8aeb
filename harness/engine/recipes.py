"""Recipes made of stages that every method shares: train a network, and write its maps for those who read files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError

from harness.config import RunConfig
from harness.engine import checkpoint
from harness.engine.context import Artifact, Context
from harness.engine.loop import LoopConfig, Trained, train
from harness.engine.parallel import gather_objects
from harness.engine.predictions import MAPS, ScoreMaps, batches, predict
from harness.engine.stages import Stage
from harness.errors import StoreError
from harness.method import Method
from harness.store.files import write_atomic

WEIGHTS = "weights.safetensors"
STEPS = "steps.parquet"
BEST = "best.safetensors"
"""Weights of the rung with the highest objective: beside the final ones, where a run had rungs and keeps `best`."""


def single_stage(run: RunConfig) -> tuple[Stage, ...]:
    """The recipe of single-stage methods: one training stage; scoring follows every recipe."""
    return (TRAIN,)


def train_and_write_cams(run: RunConfig) -> tuple[Stage, ...]:
    """Train, then write the CAM and pseudo-mask scores of the scored images, which scoring reads from the files."""
    return (TRAIN, WRITE_CAMS)


def _train(context: Context, inputs: Mapping[str, Artifact], folder: Path) -> None:
    run, session = context.run, context.session
    method = context.build()
    config = LoopConfig(
        total=run.total,
        seed=run.seed,
        groups=run.batch // run.group,
        bf16=run.precision == "bf16",
        folder=folder,
        checkpoint_every=context.machine.checkpoint_every,
    )

    def evaluate(step: int) -> float:
        from harness.engine.score import objective_now

        value = objective_now(context, method)
        if session.rank == 0 and "best" in context.machine.keep:
            with context.phases.of("checkpoint"):
                keep_best(folder / BEST, method, value, step)
        return value

    trained = train(
        method,
        lambda start: context.loader(method, start),
        config,
        session,
        context.phases,
        beat=lambda step, losses: context.beat("train", step, run.total, losses),
        evaluate=evaluate,
    )
    with context.phases.of("checkpoint"):
        digest = None
        if session.rank == 0:
            _write_steps(folder / STEPS, trained)
            digest = checkpoint.save_weights(folder / WEIGHTS, method, {"method": run.method, "key": context.key})
            for old in folder.glob(checkpoint.PREFIX + "*"):
                shutil.rmtree(old, ignore_errors=True)
        # Every worker holds the same network: none of them has to load it for the next stage.
        context.keep_live(gather_objects(digest, session)[0], method)


def keep_best(path: Path, method: Method, objective: float, step: int) -> None:
    """Write the weights of a rung unless those that are there, also of an attempt that was killed, scored as high.

    The file itself says what they scored and after how many steps: nothing beside it can disagree with it.
    """
    before = -math.inf
    if path.exists():
        # What a power cut left of a file is no rival.
        with contextlib.suppress(SafetensorError):
            before = float(checkpoint.weights_meta(path).get("objective", before))
    if objective > before:
        checkpoint.save_weights(path, method, {"objective": repr(objective), "step": str(step)})


def _write_steps(path: Path, trained: Trained) -> None:
    steps, names, values = zip(*trained.steps, strict=True) if trained.steps else ((), (), ())
    frame = pl.DataFrame(
        {"step": steps, "name": names, "value": values}, schema={"step": pl.Int64, "name": pl.Utf8, "value": pl.Float64}
    )
    write_atomic(frame, path)
    (path.parent / "training.json").write_text(json.dumps({"resumed_at": trained.resumed_at}))


def _write_cams(context: Context, inputs: Mapping[str, Artifact], folder: Path) -> None:
    method = context.trained(inputs["weights"])
    method.eval()
    out = folder / "cams"
    out.mkdir(parents=True, exist_ok=True)
    wanted = frozenset(t for t in context.run.chosen.spec.targets if t in MAPS)
    ids = sorted(set(context.splits.tune) | set(context.splits.report))
    mine = ids[context.session.rank :: context.session.world_size]
    done = 0
    with context.phases.of("stages"):
        for chunk in batches(mine):
            context.beat("write-cams", done, len(mine))
            done += len(chunk)
            maps, _ = predict(context, method, chunk, [], wanted, "student")
            for image_id, found in zip(chunk, maps, strict=True):
                _write_maps(out / f"{image_id.replace('/', '~')}.npz", found)


def _write_maps(path: Path, maps: ScoreMaps) -> None:
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(tmp, "wb") as f:
            np.savez(f, allow_pickle=False, classes=maps.classes, **dict(maps.scores))
        os.rename(tmp, path)
    except OSError as e:
        raise StoreError(f"{path} could not be written: {e}; free space and run the same command again") from e
    finally:
        tmp.unlink(missing_ok=True)


TRAIN = Stage(name="train", run=_train, outputs={"weights": WEIGHTS, "steps": STEPS}, reads=("*",), training=True)
WRITE_CAMS = Stage(
    name="write-cams",
    run=_write_cams,
    inputs=("weights",),
    outputs={"cams": "cams"},
    reads=("method", "variant", "knobs", "crop", "precision", "dataset", "masks", "options"),
)
