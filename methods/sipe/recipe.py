"""The stages of `sipe`, by its knob `refine`. No torch here."""

from __future__ import annotations

from harness.api.recipe import Recipe, RecipeInfo
from methods.parts.stages.recipe import walked_recipe
from methods.sipe.config import SipeConfig


def recipe(config: SipeConfig, info: RecipeInfo) -> Recipe:
    """Classifier with prototypes, its maps, confident labels, boundary network, masks, segmenter (sipe.md 2)."""
    return walked_recipe(config, info, labels="methods.sipe.stages:labels", masks="methods.sipe.stages:masks")
