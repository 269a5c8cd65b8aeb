"""From checked words and a preset to the resolved config of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.inference import inference_of, inference_problems
from harness.api.registry import Chosen
from harness.cli.run_words import Words
from harness.errors import BadInput, Problem
from harness.plan.ablations import overrides
from harness.plan.config import RunConfig
from harness.plan.knobs import knob_from_text, preset_knobs, typed_knobs
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
    problems.extend(_size_rules(run, words))
    if problems:
        raise BadInput(problems)
    return run


def check_words(words: Words) -> list[Problem]:
    """Rules on words alone that are more than a list of values or a lowest one, which the words themselves say."""
    problems = [*inference_problems(words.scales, words.flip, words.fusion), *crf_problems(words.crf)]
    if not 0 < words.fidelity <= 1:
        problems.append(Problem("fidelity", f"{words.fidelity} is outside (0,1]", "1 is the whole run"))
    return problems


def _size_rules(run: RunConfig, words: Words) -> list[Problem]:
    problems = []
    if run.batch % run.group:
        problems.append(
            Problem("batch", f"{run.batch} is no multiple of group={run.group}", "a step holds whole groups")
        )
    elif (run.batch // run.group) % words.workers:
        problems.append(
            Problem(
                "workers",
                f"{run.batch // run.group} groups of {run.group} do not divide over {words.workers} workers",
                "choose batch, group and workers so that they do",
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
