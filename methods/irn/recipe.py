"""The stages of `irn`, by its knob `refine`. No torch here."""

from __future__ import annotations

from harness.api.recipe import Recipe, RecipeInfo
from methods.irn.config import IrnConfig
from methods.parts.stages.recipe import walked_recipe


def recipe(config: IrnConfig, info: RecipeInfo) -> Recipe:
    """Classifier, CAMs, confident labels, boundary network, masks, segmenter (irn.md 2)."""
    return walked_recipe(config, info, labels="methods.irn.stages:labels", masks="methods.irn.stages:masks")
