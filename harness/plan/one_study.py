"""One resolved run to the study whose trials vary it: pretrained weights, space, trials, seeds, where it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.api.registry import Chosen, registry
from harness.api.space import Space
from harness.api.spec import resolve
from harness.cli.parsing import Parsed
from harness.cli.run_words import NETWORK_WORDS, Words
from harness.errors import BrokenPlugin
from harness.files import digest_of
from harness.plan.ablations import names_for, overrides
from harness.plan.config import RunConfig
from harness.plan.knobs import knob_from_text
from harness.plan.planned import SINGLE, PlannedStudy, PlanRow
from harness.plan.pretrained import find, must_be_fetched
from harness.plan.recipes import early_knobs, idle_knobs, judged, recipe_of
from harness.plan.studies import Study
from harness.plan.versions import versions


def study_of(run: RunConfig, parsed: Parsed, part: PlanRow, single: bool) -> PlannedStudy:
    """The study of a run, its networks not yet built. Raises BadInput for weights that are not there, BrokenPlugin for
    a broken space."""
    words, chosen = part.words, run.chosen
    preset = chosen.preset(part.dataset.family, run.tier, run.variant)
    space = None if single else _space(chosen, run, parsed)
    if space is not None and words.protocol != "fixed":
        # What no stage of this run reads would change nothing but the key.
        space = space.without(*idle_knobs(run), *early_knobs(run, preset.search_from))
    searched = words.protocol != "fixed" and space is not None and bool(space.knobs)
    trials = (words.trials or preset.trials) if searched and not single else 1
    seeds = tuple(range(words.seed, words.seed + (1 if single else words.seeds or preset.seeds)))
    further = {name: find(sizes["backbone"], _weights_word(run, words, name)) for name, sizes in run.networks.items()}
    networks = {name: {**sizes, "weights": further[name].digest} for name, sizes in run.networks.items()}
    run = dataclasses.replace(run, networks=networks)
    if must_be_fetched(run.backbone, words.backbone.weights):
        # Nothing is fetched for a network that cannot work.
        from harness.plan.build import check_build

        check_build(run, part.dataset)
    pretrained = find(run.backbone, words.backbone.weights)
    identity = {
        "run": run.identity(),
        "trials": trials,
        "seeds": seeds,
        "search": words.search,
        "protocol": words.protocol,
        "space": sorted(map(str, space.knobs)) if space else [],
        # Other images, labels or weights under the same words are another study: its scores teach nothing here.
        "train": part.data(run.labels).train,
        "tune": part.fingerprints["tune"],
        "weights": pretrained.digest,
    }
    middle = f"{run.labels}-{SINGLE}" if single else run.labels
    ends, blind = judged(run, recipe_of(run))
    study = Study(
        id=f"{chosen.name}-{middle}-{digest_of(identity)[:8]}",
        method=chosen.name,
        space=space,
        preset_knobs=dict(run.knobs),
        trials=trials,
        seeds=seeds,
        search=words.search,
        protocol=words.protocol,
        cores_per_run=float(part.machine.threads),
        gpus=part.gpus,
        workers=words.workers,
        first_rung=_first_rung(run),
        ends=ends,
        blind=blind,
    )
    return PlannedStudy(
        study=study,
        run=run,
        pretrained=pretrained,
        further=further,
        versions=versions(chosen.spec, chosen.base),
        part=part,
        ablation="+".join(names_for(chosen.spec, words.ablation)),
    )


def check_networks(planned: PlannedStudy) -> None:
    """Builds the networks of a study without numbers. Raises BadInput for networks and weights that do not fit."""
    # It imports torch, which takes seconds: not before words, data and knobs are right.
    from harness.plan.build import check_build, check_weights

    check_build(planned.run, planned.part.dataset)
    check_weights(planned.run, planned.part.dataset, planned.pretrained)


def _weights_word(run: RunConfig, words: Words, network: str) -> str | None:
    """What the words say of a further network's weights: as of the first one where both have one backbone."""
    own = getattr(words, network).weights if network in NETWORK_WORDS else None
    same = run.networks[network]["backbone"] == run.backbone
    return own or (words.backbone.weights if same else None)


def _first_rung(run: RunConfig) -> float:
    """Share of T of the first early stop: a tenth of the run after the last loss term has started, or never."""
    base = run.base_config()
    last = max(run.method_config().last_start(), base.last_start() if base is not None else 0.0)
    # Losses start by the steps of their own stage; where there are several it is the first one's that count.
    rung = last * run.own_steps / run.total + 0.1
    return max(0.25, rung) if rung < 0.9 else 1.0


def _space(chosen: Chosen, run: RunConfig, parsed: Parsed) -> Space | None:
    """The method's search space without the knobs that the command line or an ablation pins."""
    target = registry().space_target(chosen.spec.name)
    if target is None:
        return None
    space: Space = resolve(target)
    texts = parsed.knobs.get(chosen.spec.name, {})
    for name, raw in texts.items():
        knob_from_text(chosen.spec, name, raw)
    ablated: Mapping[str, Any] = overrides(chosen.spec, parsed.words.ablation)
    space = space.without(*(k for k in space.knobs if k in texts or k in ablated))
    problems = space.check(chosen.spec.config, run.knobs)
    if problems:
        raise BrokenPlugin(problems)
    return space
