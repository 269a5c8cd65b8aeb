"""The stage that trains a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from harness.api.recipe import Train
from harness.engine import checkpoint
from harness.engine.checkpoint import BEST, RESUMED_AT, STEPS, WEIGHTS, keep_best
from harness.engine.context import Context
from harness.engine.inference.score import objective_now
from harness.engine.inference.sources import Source
from harness.engine.loop import LoopConfig, Trained, train
from harness.engine.parallel import gather_objects
from harness.engine.stages.stage import Outputs
from harness.plan.recipes import run_of, spec_of, steps_before, target_during
from harness.store.files import write_atomic

RUNG = "rung"
"""What the heartbeat calls scoring within training."""


def losses_of(stage: Train) -> str:
    """Name of the output that holds a training stage's curve of losses."""
    return f"{stage.name}.losses"


def outputs_of(stage: Train) -> Outputs:
    """The network and its curve of losses."""
    return Outputs(name=stage.name, outputs={stage.network: WEIGHTS, losses_of(stage): STEPS})


def train_stage(stage: Train, context: Context, folder: Path) -> None:
    """Train a stage's network from its newest checkpoint on; leaves weights and losses in `folder`."""
    session, run = context.session, run_of(context.run, stage)
    before, steps, total = steps_before(context.run, context.recipe, stage), run.own_steps, context.run.total
    target = target_during(context.recipe, stage)
    context.forget()
    method = context.build(stage)
    source = Source(context.scorer(stage.network), method)
    at_rungs = {max(1, round(r * total) - before): r for r in session.rungs if before < round(r * total) or not before}
    last = stage is context.recipe.training[-1]
    config = LoopConfig(
        total=steps,
        seed=run.seed,
        groups=run.batch // run.group,
        precision=run.precision,
        folder=folder,
        checkpoint_every=context.machine.checkpoint_every,
        # The end of a stage is a rung of its own, where later ones follow.
        rungs={step: r for step, r in at_rungs.items() if step < steps or (last and step == steps)},
    )

    def evaluate(step: int) -> float:
        # A stage of its own: scoring takes longer than a step, and is no hang.
        context.report_progress(RUNG, before + step, total)
        value = objective_now(context, str(target), source)
        if session.rank == 0 and "best" in context.machine.keep:
            with context.phases.of("checkpoint"):
                keep_best(folder / BEST, method, value, before + step)
        return value

    trained = train(
        method,
        lambda start: context.loader(stage, method, start),
        config,
        session,
        context.phases,
        report_progress=lambda step, losses: context.report_progress(stage.name, before + step, total, losses),
        evaluate=evaluate if target is not None else None,
    )
    with context.phases.of("checkpoint"):
        digest = None
        if session.rank == 0:
            _write_steps(folder / STEPS, trained)
            # One entry, and none of the run: equal weights are equal files, whoever trained them.
            meta = {"method": run.method if stage.owner == "own" else spec_of(run, stage).name}
            digest = checkpoint.save_weights(folder / WEIGHTS, method, meta)
            for old in checkpoint.found_checkpoints(folder):
                shutil.rmtree(old, ignore_errors=True)
        # Every worker holds the same network: none of them has to load it for the next stage.
        context.keep_live(stage.network, gather_objects(digest, session)[0], method)


def _write_steps(path: Path, trained: Trained) -> None:
    steps, names, values = zip(*trained.steps, strict=True) if trained.steps else ((), (), ())
    frame = pl.DataFrame(
        {"step": steps, "name": names, "value": values}, schema={"step": pl.Int64, "name": pl.Utf8, "value": pl.Float64}
    )
    write_atomic(frame, path, {RESUMED_AT: str(trained.resumed_at)})
