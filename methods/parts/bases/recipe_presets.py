"""Presets of the methods of several stages: classifier, boundary network, segmenter. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.api.inference import PROTOCOLS
from harness.api.spec import Preset
from methods.parts.bases.segmenter_knobs import segmenter_sizes, segmenter_values
from methods.parts.sizes import card_family, sized_preset

SHAPES_CNN = "shapes_cnn"
"""A classifier on the last stages of a CNN, as the cards have it."""
LATE = "masks"
"""Stage from which on tier smoke searches on `shapes`: its few trials share the classifier and its maps."""
RESNET50 = "resnet50.tv_in1k"
"""The ImageNet weights that the papers start from (irn.md 1, sipe.md 1)."""


def is_small(family: str, tier: str) -> bool:
    """Whether a run has sizes of its own and not the cards'."""
    return family == "shapes" or tier != "paper"


def recipe_preset(
    family: str,
    tier: str,
    knobs: Mapping[str, Any],
    *,
    steps: Mapping[str, tuple[int, int]],
    smoke_iterations: int,
    shapes_smoke: int | None = None,
    paper_segmenter: bool = False,
    **values: Any,
) -> Preset:
    """Sizes of all networks, and `knobs` with the segmenter's; `values` replace further fields of the preset.

    `steps`: T of the first network and of the boundary network at tier paper, by card family. At tier smoke and on data
    other than `shapes` the segmenter has the run's own backbone, so that one word changes all networks; with
    `paper_segmenter` tier paper has the segmenter's own. Iterations as of `sized_preset`. Raises ValueError for an
    unknown tier.
    """
    segmenter = segmenter_sizes(family, tier)
    small, smoke = is_small(family, tier), family == "shapes" and tier == "smoke"
    if smoke or (family != "shapes" and (small or not paper_segmenter)):
        del segmenter["backbone"]
    if small:
        knobs = {**knobs, **segmenter_values(family, tier)}
        sized = sized_preset(
            family,
            tier,
            knobs,
            smoke_iterations=smoke_iterations,
            lab_iterations=300,
            shapes_smoke=shapes_smoke,
        )
        values["search_from"] = LATE if smoke else ""
        backbone = SHAPES_CNN if family == "shapes" else sized.backbone
        networks = {"segmenter": segmenter, "affinity": {"iterations": max(1, sized.iterations // 3)}}
        return dataclasses.replace(sized, backbone=backbone, networks=networks, **values)
    first, boundary = steps[card_family(family)]
    return Preset(
        backbone=RESNET50,
        decoder="deeplabv2",
        crop=512,
        batch=16,
        group=16,
        iterations=first,
        inference=PROTOCOLS["deeplab"],
        trials=20,
        seeds=3,
        knobs=dict(knobs),
        networks={"segmenter": segmenter, "affinity": {"batch": 32, "group": 32, "iterations": boundary}},
        **values,
    )
