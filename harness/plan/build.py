"""Builds the method of a run, freshly initialised from the run's seed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

import torch

from harness.api.dataset import Dataset
from harness.api.method import BuildInfo, Method
from harness.api.recipe import Train
from harness.api.spec import resolve
from harness.errors import BadInput, Problem
from harness.plan.config import RunConfig
from harness.plan.pretrained import RANDOM, Pretrained
from harness.plan.recipes import config_of, recipe_of, run_of, spec_of
from harness.plan.seeding import seed_all

BUILD_PLACE = 0xB111D
"""Marks the generator that initialises parameters, apart from those of any step."""


def check_build(run: RunConfig, dataset: Dataset) -> None:
    """Builds each network without memory for its numbers. Raises BadInput where encoder, decoder, crop, knobs clash.

    A method that needs numbers for this is left to its run.
    """
    # Tensors without memory answer NotImplementedError where numbers are asked of them.
    with contextlib.suppress(NotImplementedError), torch.device("meta"):
        built: dict[str, Method] = {}
        for stage in recipe_of(run).training:
            built[stage.network] = build_network(run, stage, dataset, RANDOM, built)
            _check_norms(built[stage.network], run_of(run, stage))


def _check_norms(method: Method, own: RunConfig) -> None:
    """No batch norm keeps statistics of its own where a batch has several groups: they would be those of one worker.

    A batch norm that declares `over_group` is the harness's synchronised one: it normalises over the group, which lies
    whole on one worker, and its statistics go through `StepOutput.stats`. Raises BadInput.
    """
    method.train()
    kind = torch.nn.modules.batchnorm._BatchNorm
    stray = [
        name
        for name, m in method.named_modules()
        if isinstance(m, kind) and m.training and m.track_running_stats and not getattr(m, "over_group", False)
    ]
    if stray and own.batch != own.group:
        found = (
            f"batch {own.batch} in groups of {own.group}, and batch norm {stray[0]} keeps statistics of whatever "
            "passes through it: they would depend on how groups are spread over workers"
        )
        fix = f"group={own.batch}; in the method: freeze it, or a batch norm with over_group (docs/methods.md)"
        raise BadInput(Problem("group", found, fix))


_known_to_fit: set[tuple[str, ...]] = set()


def check_weights(run: RunConfig, dataset: Dataset, pretrained: Pretrained) -> None:
    """Builds the first network with a file of the user's own, once for each file and kind of network.

    Raises BadInput where the file does not fit, which a worker would find out after everything has started.
    """
    chosen = run.chosen
    place = (str(pretrained.path), pretrained.digest, chosen.spec.build, chosen.name, run.backbone, run.decoder)
    if pretrained.path in (None, RANDOM) or place in _known_to_fit:
        return
    build_method(run, dataset, pretrained.path)
    _known_to_fit.add(place)


def build_method(run: RunConfig, dataset: Dataset, weights: str | None) -> Method:
    """The method of `run` for `dataset`, a plug-in on its built base: the network of the recipe's first training stage.

    `weights` is a local file, or None. Raises BadInput for knobs that break a rule and weights that do not fit.
    """
    return build_network(run, recipe_of(run).training[0], dataset, weights, {})


def build_network(
    run: RunConfig, stage: Train, dataset: Dataset, weights: str | None, networks: Mapping[str, Method]
) -> Method:
    """The network that a stage trains, freshly initialised from the run's seed. `networks` holds the earlier ones.

    Raises BadInput as `build_method` does.
    """
    own, spec, base = run_of(run, stage), spec_of(run, stage), run.chosen.base
    info = BuildInfo(
        num_classes=dataset.num_classes,
        has_background=dataset.has_background,
        crop=own.crop,
        iterations=own.own_steps,
        group=own.group,
        tier=own.tier,
        variant=own.variant,
        labels=own.labels,
        backbone=own.backbone,
        backbone_weights=weights,
        decoder=own.decoder,
        stage=stage.name,
        networks={name: networks[name] for name in stage.networks},
    )
    seed_all(run.seed, BUILD_PLACE)
    if base is not None and stage.owner == "own" and spec.trains_base:
        info = dataclasses.replace(info, base=resolve(base.build)(run.base_config(), info))
    method: Method = resolve(stage.build or spec.build)(config_of(run, stage), info)
    return method
