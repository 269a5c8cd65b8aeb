"""The stage that trains a network."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from harness.engine import checkpoint
from harness.engine.checkpoint import BEST, RESUMED_AT, STEPS, WEIGHTS, Artifact, keep_best
from harness.engine.context import Context
from harness.engine.loop import LoopConfig, Trained, train
from harness.engine.parallel import gather_objects
from harness.engine.stages.stage import Stage
from harness.store.files import write_atomic


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
        from harness.engine.inference.score import objective_now

        # A stage of its own: scoring takes longer than a step, and is no hang.
        context.report_progress("rung", step, run.total)
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
        report_progress=lambda step, losses: context.report_progress("train", step, run.total, losses),
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


def _write_steps(path: Path, trained: Trained) -> None:
    steps, names, values = zip(*trained.steps, strict=True) if trained.steps else ((), (), ())
    frame = pl.DataFrame(
        {"step": steps, "name": names, "value": values}, schema={"step": pl.Int64, "name": pl.Utf8, "value": pl.Float64}
    )
    write_atomic(frame, path, {RESUMED_AT: str(trained.resumed_at)})


TRAIN = Stage(name="train", run=_train, outputs={"weights": WEIGHTS, "steps": STEPS}, reads=("*",), training=True)
