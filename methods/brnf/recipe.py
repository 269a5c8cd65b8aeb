"""The stages of `base+brnf`: the base's until its maps, or a folder of such; BRNF's CAM network on them; and what
follows a CAM network in the recipes of IRN and SIPE. No torch here."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from harness.api.recipe import Given, PerImage, Recipe, RecipeInfo, Stage, Train
from methods.brnf.knobs import SEED, BrnfConfig
from methods.parts.stages.recipe import WRITE_CAMS, walked_recipe

WRITER = "methods.brnf.stages:writer"
Role = Literal["train", "scored"]


def recipe(config: BrnfConfig, info: RecipeInfo) -> Recipe:
    """All stages. The base gives seeds and nothing else: with the knob `seeds` none of its stages is there."""
    adds_seed = config.final == "seed"
    before: tuple[Stage, ...] = ()
    given: tuple[Given, ...] = ()
    if config.seeds:
        seeds = "seeds"
        given = (Given(name=seeds, knob="seeds", holds="maps", images=read_of(adds_seed)),)
    else:
        before, seeds = seeds_of(info.base, read_of(adds_seed))
    own = walked_recipe(config, info, labels="methods.brnf.stages:labels", masks="methods.brnf.stages:masks")
    stages: list[Stage] = []
    for stage in own.stages:
        if isinstance(stage, Train) and stage.name == "train":
            stage = replace(stage, extra={SEED: seeds})
        elif isinstance(stage, PerImage) and stage.name == "write-cams" and config.final != "prototype":
            stage = replace(stage, does=WRITER, inputs=(seeds,) if adds_seed else (), predicts=False)
        stages.append(stage)
    return Recipe((*before, *stages), own.scored, given)


def read_of(scored: bool) -> tuple[Role, ...]:
    """The images of which seeds are read: those trained on, and where written maps hold them the scored ones."""
    return ("train", "scored") if scored else ("train",)


def seeds_of(base: Recipe | None, images: tuple[Role, ...]) -> tuple[tuple[Stage, ...], str]:
    """The base's stages until its maps of training images are written, and their name; of a base that writes none,
    until its network is trained, and a stage of ours that writes those of `images`.

    Raises TypeError without a base.
    """
    if base is None:
        raise TypeError("brnf stands on a base: write base+brnf")
    for stage in base.stages:
        if isinstance(stage, PerImage) and stage.makes == base.scored["cam"] and "train" in stage.images:
            return base.until(stage.name).stages, stage.makes
    network = base.network_of("cam")
    assert network is not None
    trained = base.stages[: base.stages.index(base.maker(network)) + 1]
    write = PerImage(
        name="write-seeds",
        makes="seeds",
        does=WRITE_CAMS,
        networks=(network,),
        images=images,
    )
    return (*trained, write), "seeds"
