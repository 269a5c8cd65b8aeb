"""What a method says about itself before torch is imported: its knobs, presets, labels, targets and version."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.api.inference import SINGLE, Inference
from harness.errors import Problem

Fit = Literal["none", "ema", "width"]


def knob(
    default: Any,
    doc: str,
    *,
    source: str,
    unit: str = "1",
    fit: Fit = "none",
    added: bool = False,
    silent: bool = False,
    stage: str | tuple[str, ...] = (),
) -> Any:
    """A hyperparameter field: its card value, meaning, unit, source and how it is fitted to another size.

    `fit="ema"` marks a momentum (design section 4 b), `fit="width"` a head width (4 c). `added` marks a knob that
    joined a method which had results already: at its default it is no part of a run's key, so that these stay valid.
    `silent` is one that is then no part of ids of studies and of stages either.
    `stage` names the stages of a recipe that read it, which alone are made again for another value; none: all do.
    """
    stages = (stage,) if isinstance(stage, str) else stage
    meta = {"doc": doc, "source": source, "unit": unit, "fit": fit, "added": added or silent}
    meta |= {"silent": silent, "stages": stages}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Base of every method's typed config. Frozen; every field is made by `knob`."""

    def problems(self) -> list[Problem]:
        """Rules between knobs that do not hold (low above high, ratio outside (0,1), ...); empty when all hold."""
        return []

    def last_start(self) -> float:
        """Share of T, in [0,1], after which every loss term has started; no trial is stopped early before it.

        As written here: the latest of the knobs named `*_start`.
        """
        starts = [
            float(getattr(self, name))
            for name in self.knobs()
            if name.endswith("_start") and self.knobs()[name].metadata.get("unit") == "share of T"
        ]
        return max(starts, default=0.0)

    @classmethod
    def knobs(cls) -> dict[str, dataclasses.Field[Any]]:
        """The knobs by name, in order of definition."""
        return {f.name: f for f in dataclasses.fields(cls)}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A method's values for one dataset family and tier: sizes of work, and knobs that differ from the defaults."""

    backbone: str
    decoder: str
    crop: int
    batch: int
    group: int
    iterations: int
    card_iterations: int
    """The card's T; momenta are fitted from it (design section 4 b)."""
    cam_threshold: float = 0.5
    """Background score beta of the card's CAM evaluation (protocol `fixed`)."""
    inference: Inference = SINGLE
    """How the segmenter sees an image that is scored, where the command line does not say; those of the cards are in
    `harness.api.inference.PROTOCOLS`."""
    trials: int = 2
    seeds: int = 1
    search_from: str = ""
    """Stage of the recipe from which on knobs are searched: trials share the stages before it. Empty, and where a run
    ends before it: all of the search space."""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each further network of a recipe, by name: backbone, decoder, crop, batch, group, iterations, where they
    differ from those above."""


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One registered method. Strings of the form `module:object` are imported only when they are needed."""

    name: str
    config: type[MethodConfig]
    preset: str
    """`module:function`, called as `function(family, tier, variant) -> Preset`; family is voc, coco, cityscapes,
    acdc or shapes (any other dataset inherits voc); tier is smoke, lab or paper. No torch in that module."""
    build: str
    """`module:function`, called as `function(config, info) -> harness.api.method.Method`."""
    labels: tuple[str, ...]
    """Weak labels that it can read: tags, points, scribbles, clicks20, clicks50, clicks100, blocks, masks."""
    targets: tuple[str, ...]
    """What it produces, in order cam, pseudo, segmentation; the last one is the objective."""
    title: str
    recipe: str = "harness.api.recipe:single_stage"
    """`module:function`, called as `function(config, info) -> harness.api.recipe.Recipe` with the typed knobs and a
    `RecipeInfo`. No torch in that module."""
    space: str | None = None
    """`module:object` of its search space; None looks for `search_spaces/<name>.py`."""
    variants: tuple[str, ...] = ("default",)
    ablations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: str | None = None
    """`module:object` of a `harness.api.papers.Paper`: the paper's tables that this method can run. No torch there."""
    published: str | None = None
    """`module:function`, called as `function(method: Method) -> harness.api.keymap.KeyMap`: from the names in the
    published weights file to those of `method.state_dict()`. None where no such file is known."""
    version: int = 1
    """Raised when scores may move."""
    network_of: str | None = None
    """For baselines: planned once per distinct (backbone, decoder) of the sweep's other methods; alone, with the
    network of this method's preset. None for methods that have a network of their own."""
    plugin: bool = False
    """True for a method that stands on a base that makes CAMs, and is written `base+name`."""
    trains_base: bool = False
    """For plug-ins: true where the base itself is what is trained, with more beside. Recipe, targets and sizes of work
    are then the base's; of the plug-in's own preset knobs, trials and seeds are taken."""
    bases: tuple[str, ...] = ()
    """For plug-ins: bases that are known to work, cheapest first."""


def resolve(path: str) -> Any:
    """The object that `module:object` names.

    Raises ImportError or AttributeError with the path when there is none.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
