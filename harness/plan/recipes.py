"""A run's recipe: its stages, the config that each of them sees, their steps, and what enters a stage's key."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.api.recipe import BASE, NETWORK, Given, Recipe, RecipeInfo, Stage, Train, own_name
from harness.api.registry import Chosen
from harness.api.spec import MethodConfig, MethodSpec, resolve
from harness.datasets.splits import SplitPlan
from harness.errors import Problem, nearest
from harness.plan.config import INFERENCE_FIELDS, RunConfig
from harness.plan.knobs import plain, typed_knobs, without_defaults

SCORING_FIELDS = INFERENCE_FIELDS | {"cam_threshold"}
"""Config fields that no stage reads: a run that differs in them alone takes the training that is there.
Knobs that only `predict` reads are not told apart from the others."""
SIZES = ("backbone", "decoder", "crop", "batch", "group", "iterations")
"""What each network of a recipe has of its own."""
IMAGE_FIELDS = ("variant", "crop", "precision", "dataset", "masks", "options")
"""Config fields that stages read which go image by image."""


def full_recipe(
    chosen: Chosen, knobs: Mapping[str, Any], base_knobs: Mapping[str, Any] | None, info: RecipeInfo
) -> Recipe:
    """All stages of a method with these knobs. Raises BadInput for knobs that break a rule, and as `Recipe` does."""
    if chosen.base is not None:
        base = chosen.base
        of_base: Recipe = resolve(base.recipe)(
            typed_knobs(base, base_knobs or {}), dataclasses.replace(info, targets=base.targets)
        )
        if chosen.trained is base:
            return of_base.through_plugin()
        info = dataclasses.replace(info, base=of_base.of_base())
    recipe: Recipe = resolve(chosen.spec.recipe)(typed_knobs(chosen.spec, knobs), info)
    return recipe


def whole_recipe(run: RunConfig) -> Recipe:
    """The stages of a run's method with the run's knobs, all of them. Raises BadInput as `full_recipe` does."""
    chosen = run.chosen
    info = RecipeInfo(targets=chosen.targets, variant=run.variant, tier=run.tier, labels=run.labels)
    return full_recipe(chosen, run.knobs, run.base_knobs, info)


def recipe_of(run: RunConfig) -> Recipe:
    """The stages that a run has, as far as its word `until` goes. Raises BadInput as `full_recipe` and `until` do."""
    recipe = whole_recipe(run)
    return recipe if run.until is None else recipe.until(run.until)


def usual_recipe(run: RunConfig) -> Recipe:
    """The whole recipe of a run's method with the defaults of its knobs."""
    defaults = {name: plain(f.default) for name, f in run.chosen.spec.config.knobs().items()}
    return whole_recipe(dataclasses.replace(run, knobs=defaults))


def spec_of(run: RunConfig, stage: Stage | Given) -> MethodSpec:
    """Whose stage it is: the method, or the base of a plug-in."""
    chosen = run.chosen
    if stage.owner == "own":
        return chosen.spec
    assert chosen.base is not None
    return chosen.base


def config_of(run: RunConfig, stage: Stage) -> MethodConfig:
    """The typed knobs that a stage is built from. Raises BadInput when a rule between them does not hold."""
    return typed_knobs(spec_of(run, stage), knobs_of(run, stage))


def run_of(run: RunConfig, stage: Stage) -> RunConfig:
    """The run as a stage sees it: with the sizes of the network that it trains, or of the first one that it asks."""
    network = stage.network if isinstance(stage, Train) else (*stage.networks, NETWORK)[0]
    if network == NETWORK:
        return run
    return dataclasses.replace(run, **{size: run.networks[network][size] for size in SIZES})


def steps_of(run: RunConfig, stage: Stage) -> int:
    """Optimiser steps of a stage, fidelity applied; 0 of one that trains nothing."""
    return run_of(run, stage).own_steps if isinstance(stage, Train) else 0


def steps_before(run: RunConfig, recipe: Recipe, stage: Stage) -> int:
    """Optimiser steps of all stages before this one."""
    return sum(steps_of(run, s) for s in recipe.stages[: recipe.stages.index(stage)])


def target_during(recipe: Recipe, stage: Train) -> str | None:
    """The target that a network in training is judged by: the last one that it predicts."""
    found = [t for t in recipe.targets if recipe.network_of(t) == stage.network]
    return found[-1] if found else None


def target_before(recipe: Recipe, stage: Stage) -> str | None:
    """The last target that can be scored once all stages before this one are done; None where there is none."""
    made = {s.makes for s in recipe.stages[: recipe.stages.index(stage)]}
    found = [t for t, source in recipe.scored.items() if source in made]
    return found[-1] if found else None


def judged(run: RunConfig, recipe: Recipe) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Where a run in progress can be scored: shares of T at ends of training stages, and spans of T within which
    nothing can be scored, because the network in training predicts no target."""
    ends, blind = [], []
    for stage in recipe.training:
        start, steps = steps_before(run, recipe, stage), steps_of(run, stage)
        if start and target_before(recipe, stage) is not None:
            ends.append(start / run.total)
        if target_during(recipe, stage) is None:
            blind.append((start / run.total, (start + steps) / run.total))
    return tuple(ends), tuple(blind)


def training_fields(run: RunConfig, stage: Train) -> dict[str, Any]:
    """The config fields that enter a training stage's key: all but those of scoring, of knobs those that it reads."""
    own = run_of(run, stage)
    values = {k: v for k, v in own.identity().items() if k not in SCORING_FIELDS | {"networks", "until"}}
    values["knobs"] = _keyed_knobs(run, stage)
    if stage.owner == "base":
        # As a run of the base itself has it.
        values |= {"method": spec_of(run, stage).name, "base_knobs": None}
    return values


def image_fields(run: RunConfig, stage: Stage) -> dict[str, Any]:
    """The config fields that enter the key of a stage that goes image by image, besides what it reads."""
    own = run_of(run, stage).identity()
    return {
        **{name: own[name] for name in IMAGE_FIELDS},
        "method": spec_of(run, stage).name,
        "knobs": _keyed_knobs(run, stage),
    }


def _keyed_knobs(run: RunConfig, stage: Stage) -> dict[str, Any]:
    """What a stage reads without silent knobs that stand at their defaults."""
    return without_defaults(spec_of(run, stage).config, knobs_read(run, stage), "silent")


def knobs_read(run: RunConfig, stage: Stage) -> dict[str, Any]:
    """The knobs that a stage reads: those that name it, and those that name none."""
    known = spec_of(run, stage).config.knobs()
    return {
        name: value
        for name, value in knobs_of(run, stage).items()
        if not (stages := known[name].metadata.get("stages", ())) or own_name(stage) in stages
    }


def idle_knobs(run: RunConfig) -> frozenset[str]:
    """The knobs of a run's own method that no stage of the run reads."""
    return frozenset(run.knobs) - _read_by(run, recipe_of(run).stages)


def early_knobs(run: RunConfig, name: str) -> frozenset[str]:
    """The knobs of a run's own method that stages before the one of this name read; none where it has no such stage."""
    stages = recipe_of(run).stages
    names = [stage.name for stage in stages]
    return _read_by(run, stages[: names.index(name)]) if name in names else frozenset()


def _read_by(run: RunConfig, stages: Sequence[Stage]) -> frozenset[str]:
    return frozenset(name for stage in stages if stage.owner == "own" for name in knobs_read(run, stage))


def image_ids(which: Collection[str], splits: SplitPlan) -> list[str]:
    """The images that a stage goes through or that must have a file (`train`, `scored`), sorted."""
    of = {"train": splits.train, "scored": (*splits.tune, *splits.report)}
    return sorted({image_id for name in which for image_id in of[name]})


def stage_problems(spec: MethodSpec, recipe: Recipe, usual: Recipe) -> list[Problem]:
    """Knobs that name a stage which neither the recipe nor the `usual` one, of the defaults, has; and given folders
    that no knob names."""
    names = list(dict.fromkeys(s.name for r in (recipe, usual) for s in r.stages if s.owner == "own"))
    known = spec.config.knobs()
    given = [
        Problem(f"{spec.name}, given {g.name}", f"{g.knob!r} is no knob of this method", nearest(g.knob, known))
        for g in recipe.given
        if g.owner == "own" and g.knob not in known
    ]
    return given + [
        Problem(
            f"{spec.name}.{knob}", f"is read by stage {stage!r}, which the recipe does not have", nearest(stage, names)
        )
        for knob, field in known.items()
        for stage in field.metadata.get("stages", ())
        if stage not in names
    ]


def own_network(name: str, owner: str) -> str:
    """The name that a preset has for a network: of a plug-in's base, the base's own name for it."""
    return name.removeprefix(BASE) if owner == "base" else name


def knobs_of(run: RunConfig, stage: Stage | Given) -> Mapping[str, Any]:
    """The knobs of the method that a stage is of, or of the base of a plug-in."""
    return run.knobs if stage.owner == "own" else (run.base_knobs or {})
