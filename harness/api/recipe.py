"""Recipes: what a method's stages train and write, in order, and what each target is scored from. Plain data, no torch.

A name in a recipe is that of a network, which a `Train` stage leaves, or of an artefact: one file for each image, which
a `PerImage` stage writes or a user gives. Names are unique in a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.errors import BadInput, Problem, nearest

Owner = Literal["own", "base"]
NETWORK = "network"
"""The network of a single-stage method, whose sizes are a run's own `crop`, `batch`, `group`, `iterations`, `backbone`
and `decoder`. Those of any other are its own: `Preset.networks` and the words `<network>.<size>`."""

BASE = "base-"
"""Start of the names of what a plug-in's recipe takes from its base's."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """A stage that trains one network: a `Method` under the loop of every other."""

    name: str = "train"
    network: str = NETWORK
    build: str | None = None
    """`module:function`, called as `function(config, info) -> Method`; None: the method's own."""
    label: str | None = None
    """Artefact of label maps that stand for the dataset's labels: `Sample.label_HW`."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """By name in `Sample.extra`: the artefact that it is read from."""
    networks: tuple[str, ...] = ()
    """Earlier networks that it is built beside, trained, in eval mode and without gradient: `BuildInfo.networks`."""
    owner: Owner = "own"
    """base: of a plug-in's base, built and keyed as the base's, so that its own runs share it."""
    version: int = 1
    """Raised when the stage itself comes to do something else."""

    @property
    def makes(self) -> str:
        """The network."""
        return self.network

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of what it takes from earlier stages."""
        label = () if self.label is None else (self.label,)
        return tuple(dict.fromkeys((*self.networks, *label, *self.extra.values())))


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """A stage that writes one file for each image, shared out over the run's workers, resumable image by image."""

    name: str
    makes: str
    """The artefact."""
    does: str
    """`module:function`, called as `function(config, info) -> worker` with an `ImageInfo`; the worker is called with
    one `ImageInput` and returns what is written: `Maps`, a label map uint8 (H,W), or a vector."""
    networks: tuple[str, ...] = ()
    """Trained networks that the worker asks, by name in `ImageInfo.networks`."""
    inputs: tuple[str, ...] = ()
    """Artefacts that it reads of each image, by name in `ImageInput.inputs`."""
    images: tuple[Literal["train", "scored"], ...] = ("train", "scored")
    """Which images: those trained on, those of the tuning and the reported split."""
    crf: str | None = None
    """Preset of the dense CRF (operators.md A12) that its worker is given as `ImageInfo.crf`; needs the extra `crf`."""
    predicts: bool = False
    """True where it only writes what its first network's `predict` says: that network stands in for its files, with the
    weights of a teacher and while it trains."""
    owner: Owner = "own"
    version: int = 1

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of what it takes from earlier stages."""
        return (*self.networks, *self.inputs)


Stage = Train | PerImage
Held = Literal["maps", "labels", "vectors"]


@dataclass(frozen=True, kw_only=True)
class Given:
    """An artefact that no stage makes: a folder of one file for each image, named by a knob.

    The files are checked and digested before anything trains; in config and keys the knob then holds the digest of
    their content, wherever the folder lies. A recipe lists it where the knob is not empty.
    """

    name: str
    knob: str
    """Its text is the folder; the digest once the run is planned."""
    holds: Held = "maps"
    """maps: `.npz` with `classes` (n,) and `cam` (n,h,w) in [0,1], or `.npy` (C,h,w); labels: `.png` (H,W), 255 =
    ignored; vectors: `.npy` (n,)."""
    images: tuple[Literal["train", "scored"], ...] = ("train",)
    """Which images must have a file."""
    owner: Owner = "own"


def own_name(stage: Stage) -> str:
    """The name of a stage in the recipe that it comes from: of a base's, in the base's own."""
    return stage.name.removeprefix(BASE) if stage.owner == "base" else stage.name


@dataclass(frozen=True)
class Recipe:
    """Stages in order, and by target the network or artefact that it is scored from."""

    stages: tuple[Stage, ...]
    scored: Mapping[str, str]
    given: tuple[Given, ...] = ()
    """Artefacts that a user has."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        given = [g.name for g in self.given]
        made: dict[str, Stage] = {}
        for stage in self.stages:
            problems += [
                Problem(f"recipe, stage {stage.name}", f"reads {name!r}, which no stage before it makes",
                        nearest(name, [*made, *given]) if made or given else "put the stage that makes it first")
                for name in stage.reads if name not in made and name not in given
            ]  # fmt: skip
            if stage.makes in (*made, *given) or stage.name in (s.name for s in made.values()):
                problems.append(
                    Problem(f"recipe, stage {stage.name}", f"or {stage.makes!r} is there twice", "rename it")
                )
            made[stage.makes] = stage
        problems += [
            Problem(
                f"recipe, target {target}", f"is scored from {source!r}, which no stage makes", nearest(source, made)
            )
            for target, source in self.scored.items()
            if source not in made
        ]
        if problems:
            raise BadInput(problems)

    @property
    def training(self) -> tuple[Train, ...]:
        """The stages that train, in order."""
        return tuple(s for s in self.stages if isinstance(s, Train))

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that are made, in the order of the method's."""
        return tuple(self.scored)

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises BadInput with the names that there are."""
        found = [s for s in self.stages if s.name == name]
        if not found:
            names = [s.name for s in self.stages]
            raise BadInput(Problem(f"stage {name!r}", "is not in the recipe", nearest(name, names)))
        return found[0]

    def maker(self, made: str) -> Stage:
        """The stage that makes a network or an artefact."""
        return next(s for s in self.stages if s.makes == made)

    def network_of(self, target: str) -> str | None:
        """The network that predicts a target; None for one that exists in files alone."""
        maker = self.maker(self.scored[target])
        if isinstance(maker, Train):
            return maker.network
        return maker.networks[0] if maker.predicts else None

    def until(self, name: str) -> Recipe:
        """The recipe up to a stage, with the targets that can be scored then.

        Raises BadInput for another name, and where nothing can be scored.
        """
        last = self.stages.index(self.stage(name))
        stages = self.stages[: last + 1]
        made = {s.makes for s in stages}
        scored: dict[str, str] = {}
        for target, source in self.scored.items():
            network = self.network_of(target)
            if source in made:
                scored[target] = source
            elif network in made and network is not None:
                scored[target] = network
        if not scored:
            raise BadInput(Problem("until", f"nothing can be scored after {name}", f"stages: {self._scorable()}"))
        return replace(self, stages=stages, scored=scored)

    def of_base(self) -> Recipe:
        """The same stages as those of a plug-in's base: its network is called `base`, all else `base-<name>`."""

        def renamed(name: str) -> str:
            return "base" if name == NETWORK else f"{BASE}{name}"

        def all_renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(map(renamed, names))

        stages: list[Stage] = []
        for s in self.stages:
            name = f"{BASE}{s.name}"
            if isinstance(s, Train):
                label = None if s.label is None else renamed(s.label)
                extra = {key: renamed(value) for key, value in s.extra.items()}
                stages.append(
                    replace(s, owner="base", name=name, network=renamed(s.network), label=label, extra=extra,
                            networks=all_renamed(s.networks))
                )  # fmt: skip
            else:
                stages.append(
                    replace(s, owner="base", name=name, makes=renamed(s.makes), networks=all_renamed(s.networks),
                            inputs=all_renamed(s.inputs))
                )  # fmt: skip
        given = tuple(replace(g, owner="base", name=renamed(g.name)) for g in self.given)
        return Recipe(tuple(stages), {target: renamed(source) for target, source in self.scored.items()}, given)

    def through_plugin(self) -> Recipe:
        """The same stages for a plug-in that trains its base: the first network is its own, all else the base's."""
        stages = tuple(s if s.makes == NETWORK else replace(s, owner="base") for s in self.stages)
        return Recipe(stages, self.scored, tuple(replace(g, owner="base") for g in self.given))

    def _scorable(self) -> str:
        made: set[str] = set()
        names = []
        for stage in self.stages:
            made.add(stage.makes)
            if any(source in made for source in self.scored.values()):
                names.append(stage.name)
        return ", ".join(names)


@dataclass(frozen=True, kw_only=True)
class RecipeInfo:
    """What a recipe may depend on besides the typed knobs."""

    targets: Sequence[str]
    variant: str
    tier: str
    labels: str
    base: Recipe | None = None
    """Of a plug-in's base, marked as the base's."""


def single_stage(config: object, info: RecipeInfo) -> Recipe:
    """The recipe of single-stage methods: one training stage, which all targets are scored from."""
    return Recipe((Train(),), dict.fromkeys(info.targets, NETWORK))


def weights_kind(network: str) -> str:
    """What the table `artifacts` calls the weights of a network."""
    return WEIGHTS if network == NETWORK else f"{WEIGHTS}-{network}"


def maps_kind(artefact: str) -> str:
    """What the table `artifacts` calls the folder of a stage's files, one for each image."""
    return f"maps-{artefact}"


WEIGHTS = "weights"
SCORE_MAPS = "score-maps"


def train_and_write_maps(config: object, info: RecipeInfo) -> Recipe:
    """Train, then write the CAM and pseudo-mask scores of the scored images for those who read files."""
    maps = {target: SCORE_MAPS for target in info.targets if target != "segmentation"}
    write = PerImage(
        name="write-cams",
        makes=SCORE_MAPS,
        does="harness.engine.stages.workers:predicted_maps",
        networks=(NETWORK,),
        images=("scored",),
        predicts=True,
    )
    return Recipe((Train(), write), {target: maps.get(target, NETWORK) for target in info.targets})
