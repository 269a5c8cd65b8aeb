"""Builds the method of a run, freshly initialised from the run's seed."""

from __future__ import annotations

import contextlib
import dataclasses

import torch

from harness.api.dataset import Dataset
from harness.api.method import BuildInfo, Method
from harness.api.spec import resolve
from harness.plan.config import RunConfig
from harness.plan.pretrained import RANDOM, Pretrained
from harness.plan.seeding import seed_all

BUILD_PLACE = 0xB111D
"""Marks the generator that initialises parameters, apart from those of any step."""


def check_build(run: RunConfig, dataset: Dataset) -> None:
    """Builds the method without memory for its numbers. Raises BadInput where network, decoder, crop, knobs do not fit.

    A method that needs numbers for this is left to its run.
    """
    # Tensors without memory answer NotImplementedError where numbers are asked of them.
    with contextlib.suppress(NotImplementedError), torch.device("meta"):
        build_method(run, dataset, RANDOM)


_known_to_fit: set[tuple[str, ...]] = set()


def check_weights(run: RunConfig, dataset: Dataset, pretrained: Pretrained) -> None:
    """Builds the method with a file of the user's own, once for each file and kind of network.

    Raises BadInput where the file does not fit, which a worker would find out after everything has started.
    """
    chosen = run.chosen
    place = (str(pretrained.path), pretrained.digest, chosen.spec.build, chosen.name, run.backbone, run.decoder)
    if pretrained.path in (None, RANDOM) or place in _known_to_fit:
        return
    build_method(run, dataset, pretrained.path)
    _known_to_fit.add(place)


def build_method(run: RunConfig, dataset: Dataset, weights: str | None) -> Method:
    """The method of `run` for `dataset`, a plug-in on its built base. `weights` is a local file, or None.

    Raises BadInput for knobs that break a rule and weights that do not fit.
    """
    chosen = run.chosen
    info = BuildInfo(
        num_classes=dataset.num_classes,
        has_background=dataset.has_background,
        crop=run.crop,
        iterations=run.total,
        group=run.group,
        tier=run.tier,
        variant=run.variant,
        labels=run.labels,
        backbone=run.backbone,
        backbone_weights=weights,
        decoder=run.decoder,
    )
    seed_all(run.seed, BUILD_PLACE)
    if chosen.base is not None:
        base = resolve(chosen.base.build)(run.base_config(), info)
        info = dataclasses.replace(info, base=base)
    method: Method = resolve(chosen.spec.build)(run.method_config(), info)
    return method
