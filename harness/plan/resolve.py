"""From checked words and a preset to the resolved config of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.api.inference import inference_of, inference_problems
from harness.api.recipe import NETWORK, PerImage, Recipe
from harness.api.registry import Chosen
from harness.api.spec import Preset
from harness.cli.run_words import NETWORK_WORDS, Words
from harness.cli.tracking_uri import tracking_problems
from harness.errors import BadInput, Problem
from harness.plan.ablations import overrides
from harness.plan.config import RunConfig
from harness.plan.knobs import knob_from_text, preset_knobs, typed_knobs
from harness.plan.recipes import SIZES, own_network, stage_problems, usual_recipe, whole_recipe
from harness.scoring.crf import crf_problems


def resolve_run(
    chosen: Chosen,
    words: Words,
    *,
    family: str,
    dataset: str,
    labels: str,
    precision: str,
    options: Mapping[str, str],
    knobs: Mapping[str, Mapping[str, str]],
    seed: int,
    network: tuple[str, str] | None = None,
) -> RunConfig:
    """The preset of a method with the command line's words on top.

    `network` is the (backbone, decoder) that a baseline takes from the row beside it. Raises BadInput with every
    problem of this method's words.
    """
    spec = chosen.spec
    tier = words.tier or ("smoke" if dataset == "shapes" else "paper")
    problems: list[Problem] = []
    if words.variant not in spec.variants:
        have = ", ".join(spec.variants)
        problems.append(Problem("variant", f"{spec.name} has no variant {words.variant!r}", f"it has: {have}"))
        raise BadInput(problems)
    preset = chosen.preset(family, tier, words.variant)
    values = preset_knobs(spec, preset) | overrides(spec, words.ablation)
    for name, raw in knobs.get(spec.name, {}).items():
        try:
            values[name] = knob_from_text(spec, name, raw)
        except BadInput as e:
            problems.extend(e.problems)
    if not problems:
        try:
            typed_knobs(spec, values)
        except BadInput as e:
            problems.extend(e.problems)
    backbone = words.backbone.name or (network[0] if network else preset.backbone)
    decoder = words.decoder or (network[1] if network else preset.decoder)
    run = RunConfig(
        method=chosen.name,
        variant=words.variant,
        knobs=values,
        base_knobs=_base_knobs(chosen, family, tier, words.variant, knobs),
        dataset=dataset,
        masks=words.data.masks,
        options={**options, "tune": words.data.tune},
        labels=labels,
        backbone=backbone,
        decoder=decoder,
        tier=tier,
        crop=words.crop or preset.crop,
        batch=words.batch or preset.batch,
        group=words.group or min(preset.group, words.batch or preset.batch),
        iterations=words.iterations or preset.iterations,
        fidelity=words.fidelity,
        precision=precision,
        seed=seed,
        cam_threshold=preset.cam_threshold,
        crf=words.crf,
        split=words.split,
    ).with_inference(inference_of(words.scales, words.flip, words.fusion, preset.inference))
    if problems:
        raise BadInput(problems)
    run = _with_networks(run, words, chosen, preset, family, problems)
    if problems:
        raise BadInput(problems)
    return run


def _with_networks(
    run: RunConfig, words: Words, chosen: Chosen, preset: Preset, family: str, problems: list[Problem]
) -> RunConfig:
    """The run as far as the word `until` goes, with the sizes of the further networks that it trains then."""
    whole = whole_recipe(run)
    problems.extend(stage_problems(chosen.spec, whole, usual_recipe(run)))
    # A method that has no such stage runs to its end (`StageWords`).
    until = next((stage.name for stage in whole.stages if stage.name == words.until), None)
    recipe = whole if until is None else whole.until(until)
    problems.extend(_missing_crf(recipe))
    last = recipe.stages[-1] is whole.stages[-1]
    given = {name: dataclasses.asdict(getattr(words, name)) for name in NETWORK_WORDS}
    sizes = {}
    for stage in recipe.training:
        name = stage.network
        if name == NETWORK:
            continue
        asked = {k: v for k, v in given.get(name, {}).items() if v is not None}
        of = preset if stage.owner == "own" else chosen.base_preset(family, run.tier, run.variant)
        usual = {size: getattr(run, size) for size in SIZES}
        if stage.owner == "base":
            words_of_run = {"backbone": words.backbone.name, **{s: getattr(words, s) for s in SIZES if s != "backbone"}}
            usual = {size: words_of_run[size] or getattr(of, size) for size in SIZES}
        own = usual | dict(of.networks.get(own_network(name, stage.owner), {})) | asked
        if "group" not in asked:
            own["group"] = min(own["group"], own["batch"])
        sizes[name] = {size: own[size] for size in SIZES}
    return dataclasses.replace(run, networks=sizes, until=None if last else until)


def _missing_crf(recipe: Recipe) -> list[Problem]:
    """Stages whose dense CRF is not installed."""
    return [
        Problem(f"stage {s.name}", p.found, p.fix)
        for s in recipe.stages
        if isinstance(s, PerImage) and s.crf is not None
        for p in crf_problems(s.crf)
    ]


def check_words(words: Words) -> list[Problem]:
    """Rules on words alone that are more than a list of values or a lowest one, which the words themselves say."""
    problems = [*inference_problems(words.scales, words.flip, words.fusion), *crf_problems(words.crf)]
    problems += tracking_problems(words.mlflow)
    if not 0 < words.fidelity <= 1:
        problems.append(Problem("fidelity", f"{words.fidelity} is outside (0,1]", "1 is the whole run"))
    return problems


def size_problems(run: RunConfig, words: Words) -> list[Problem]:
    """Batches of a run's networks that do not divide into groups, or groups that do not divide over its workers."""
    problems = []
    own = {"": {"batch": run.batch, "group": run.group}}
    for prefix, sizes in {**own, **{f"{name}.": of for name, of in run.networks.items()}}.items():
        batch, group = int(sizes["batch"]), int(sizes["group"])
        if batch % group:
            problems.append(
                Problem(f"{prefix}batch", f"{batch} is no multiple of group={group}", "a step holds whole groups")
            )
        elif (batch // group) % words.workers:
            problems.append(
                Problem(
                    "workers",
                    f"{batch // group} groups of {group} do not divide over {words.workers} workers",
                    f"choose {prefix}batch, {prefix}group and workers so that they do",
                )
            )
    return problems


def _base_knobs(
    chosen: Chosen, family: str, tier: str, variant: str, knobs: Mapping[str, Mapping[str, str]]
) -> dict[str, Any] | None:
    if chosen.base is None:
        return None
    base = chosen.base
    values = preset_knobs(base, chosen.base_preset(family, tier, variant))
    values.update({k: knob_from_text(base, k, raw) for k, raw in knobs.get(base.name, {}).items()})
    return values
