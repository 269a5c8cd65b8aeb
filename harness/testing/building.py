"""A method on an encoder that is given as a module, as numeric checks of its step need it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from harness.api.encoders import given
from harness.api.method import BuildInfo, Method
from harness.api.registry import registry
from harness.api.spec import Preset, resolve
from harness.errors import BadInput, Problem
from harness.plan.knobs import plain, preset_knobs, typed_knobs
from harness.plan.seeding import seed_all

GIVEN = "given"
"""Name of the backbone of such a method."""


def build(
    method: str,
    family: str,
    encoder: nn.Module,
    *,
    crop: int,
    classes: int,
    variant: str,
    iterations: int,
    group: int,
    **knobs: Any,
) -> Method:
    """The registered `method` (`base+plug-in` too) with the preset of a dataset family, ready for `step`.

    `encoder` stands for the backbone: an `Encoder` or `Pyramid` as they are, or a plain network that one is made of.
    Its output stride and dilations stay, whatever the preset asks of backbones by name.
    `classes` are C foreground classes, background beside them; `iterations` is T. `knobs` replace those of the preset.
    Parameters are initialised from seed 0. Raises BadInput for unknown methods, variants and knobs, and where encoder,
    crop and knobs clash.
    """
    chosen = registry().choose(method)
    if variant not in chosen.spec.variants:
        raise BadInput(Problem("variant", f"{method} has no variant {variant!r}", ", ".join(chosen.spec.variants)))
    tier = "smoke" if family == "shapes" else "paper"
    preset: Preset = chosen.preset(family, tier, variant)
    values = {**preset_knobs(chosen.spec, preset), **{name: plain(value) for name, value in knobs.items()}}
    info = BuildInfo(
        num_classes=classes,
        has_background=True,
        crop=crop,
        iterations=iterations,
        group=group,
        tier=tier,
        variant=variant,
        labels=chosen.spec.labels[0],
        backbone=GIVEN,
        backbone_weights=None,
        decoder=preset.decoder,
    )
    seed_all(0, 0)
    with given(encoder):
        if chosen.base is not None and chosen.spec.trains_base:
            of_base = typed_knobs(chosen.base, preset_knobs(chosen.base, chosen.base_preset(family, tier, variant)))
            info = replace(info, base=resolve(chosen.base.build)(of_base, info))
        built: Method = resolve(chosen.spec.build)(typed_knobs(chosen.spec, values), info)
    return built.train()
