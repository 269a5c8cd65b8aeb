"""Runs a recipe: its stages in order, from the cache where they are done; and scores at the ends of stages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from harness.api.recipe import Stage, Train
from harness.engine.context import Context
from harness.engine.inference.score import objective_now
from harness.engine.inference.sources import source_of
from harness.engine.stages import per_image, train
from harness.engine.stages.keys import stage_key
from harness.engine.stages.stage import make
from harness.plan.recipes import steps_before, target_before


def run_recipe(context: Context, versions: Mapping[str, int]) -> None:
    """Run what is not done of a run's stages; `context.made` then holds what all of them left.

    `context.reused` gets the seconds of the stages that other runs have made, `context.by_stage` those spent here.
    """
    for stage in context.recipe.stages:
        if isinstance(stage, Train):
            _report_end(context, stage)
        before = context.phases.unscored
        folder = context.store.root / "cache" / stage_key(stage, context, versions)
        if isinstance(stage, Train):
            done = make(train.outputs_of(stage), folder, context, partial(train.train_stage, stage, context))
        else:
            done = make(per_image.outputs_of(stage), folder, context, partial(per_image.write_files, stage, context))
        context.made.update(done.outputs)
        context.by_stage[stage.name] = context.phases.unscored - before
        if done.run != context.key:
            context.reused += done.seconds


def _report_end(context: Context, stage: Stage) -> None:
    """Report at the rung between the stages before and this one, where there is one: the last target made so far."""
    share = steps_before(context.run, context.recipe, stage) / context.run.total
    rung = next((r for r in context.session.rungs if share and abs(r - share) < 1e-6), None)
    target = target_before(context.recipe, stage)
    if rung is None or target is None:
        return
    with context.phases.of("score"):
        objective = objective_now(context, target, source_of(context, target))
    context.session.report(rung, objective)
