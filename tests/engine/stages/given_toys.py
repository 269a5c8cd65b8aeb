"""A method that learns from a user's files, and a plug-in on it, registered by the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import recipe_toys

from harness.api.method import BuildInfo
from harness.api.recipe import Given, Recipe, RecipeInfo, Train
from harness.api.registry import registry
from harness.api.spec import MethodSpec, knob


@dataclass(frozen=True, kw_only=True)
class SeededConfig(recipe_toys.ToyConfig):
    """The folder that the second network's seeds are read from; empty: from the maps that the first one wrote."""

    seeds: str = knob("", "folder of seeds", source="test", stage="train-segmenter")


def recipe(config: SeededConfig, info: RecipeInfo) -> Recipe:
    """As the toys' recipe, with the user's seeds where there are some."""
    usual = recipe_toys.recipe(config, info)
    if not config.seeds:
        return usual
    *others, last = usual.stages
    assert isinstance(last, Train)
    return Recipe((*others, replace(last, extra={"seed": "seeds"})), usual.scored, (Given(name="seeds", knob="seeds"),))


def build(config: SeededConfig, info: BuildInfo) -> recipe_toys.First:
    return recipe_toys.First(config, info, info.num_classes)


METHOD = replace(
    recipe_toys.METHOD, name="seeded", config=SeededConfig, recipe="given_toys:recipe", build="given_toys:build"
)


@contextmanager
def registered() -> Iterator[MethodSpec]:
    """The method under its name, for as long as the block lasts."""
    known = registry()
    known.add("seeded", "given_toys:METHOD", "a test")
    try:
        yield METHOD
    finally:
        known._entries.pop("seeded")
        known._specs.pop("seeded", None)
