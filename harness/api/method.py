"""The contract between the engine and a method. Axes in tensor names: B images, C foreground classes,
K labels (C, plus background where there is one), H W pixels, h w tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from harness.api.contract import Contract
from harness.api.dataset import Sample
from harness.api.vocabulary import IGNORE


@dataclass(frozen=True, kw_only=True)
class BuildInfo:
    """What a method is built for: data, sizes, network and length of the run."""

    num_classes: int
    has_background: bool
    crop: int
    """Side of the square training input, pixels."""
    iterations: int
    """T of this run, fidelity already applied."""
    group: int
    """Images over which a loss may normalise."""
    tier: str
    variant: str
    labels: str
    backbone: str
    backbone_weights: str | None
    decoder: str
    base: nn.Module | None = None
    """The built base of a plug-in that trains it; any other finds its base among `networks`."""
    stage: str = "train"
    """Name of the recipe's stage that trains it."""
    networks: Mapping[str, nn.Module] = field(default_factory=dict)
    """Earlier networks of the recipe that the stage names: trained, frozen, in eval mode. One that becomes a
    submodule is part of every checkpoint."""

    @property
    def num_labels(self) -> int:
        """K: label values that a segmenter predicts."""
        return self.num_classes + int(self.has_background)


@dataclass(frozen=True)
class Views:
    """What `transform` makes of one image: named float (3,H,W) tensors, and the labels that follow the first view.

    A tensor of uint8 is not a finished view: `Method.on_device` makes views of it. Those of a group may differ in size.
    """

    views: Mapping[str, Tensor]
    label_HW: Tensor | None = None
    """int64, 255 = unlabelled or ignored; None for methods that read tags only."""
    content_HW: Tensor | None = None
    """True on real pixels, false on padding; None means all true."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What travels with the image, as the first view shows it (`methods.parts.views.warp`), and what else is made
    of it: float32 maps (K,h,w), int64 label maps (h,w), vectors (n,), of equal shapes for all images."""


@dataclass(frozen=True)
class Extents:
    """Sizes of a group that depend on its data, counted on the host while the batch is made: a step that knows them
    beforehand never waits for the device to tell it a shape. Of a part of the group they are upper bounds."""

    classes: int
    """Most present classes of an image."""
    values: int = 0
    """Most label values of an image's label map, 255 aside."""
    labelled: int = 0
    """Pixels with a label, in all images together."""

    @staticmethod
    def of(tags_BC: Tensor, label_BHW: Tensor | None) -> Extents:
        """Counted from tags and labels that lie on the host."""
        classes = int((tags_BC > 0).sum(dim=1).max()) if tags_BC.numel() else 0
        if label_BHW is None or not label_BHW.numel():
            return Extents(classes)
        counts_BV = [np.bincount(one.ravel(), minlength=IGNORE + 1)[:IGNORE] for one in label_BHW.numpy()]
        return Extents(classes, max(int((n > 0).sum()) for n in counts_BV), int(sum(n.sum() for n in counts_BV)))


@dataclass(frozen=True)
class Batch:
    """One group of images on one device."""

    ids: tuple[str, ...]
    views: Mapping[str, Tensor]
    tags_BC: Tensor
    """float32 in {0,1}."""
    label_BHW: Tensor | None
    content_BHW: Tensor | None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """`Views.extra`, stacked: (B,K,h,w), (B,h,w), (B,n)."""
    tags_BK: Tensor | None = None
    """float32 in {0,1}, background in column 0 where there is one; for methods that set `background_tags`."""
    extents: Extents | None = None
    """Counted by itself where the batch is made on the host; None for one that is made on a device."""

    def __post_init__(self) -> None:
        if self.extents is None and self.tags_BC.device.type == "cpu":
            object.__setattr__(self, "extents", Extents.of(self.tags_BC, self.label_BHW))

    def to(self, device: str) -> Batch:
        """The same group on a device; copies from pinned memory do not wait."""

        def move(t: Tensor) -> Tensor:
            return t.to(device, non_blocking=True)

        return self.of_tensors(move)

    def pin_memory(self) -> Batch:
        """The same group in memory that a GPU copies from without waiting; loaders ask for it."""
        return self.of_tensors(Tensor.pin_memory)

    def of_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same ids with every tensor changed: moved, or cut along its first axis."""
        return Batch(
            self.ids,
            {name: change(view) for name, view in self.views.items()},
            change(self.tags_BC),
            None if self.label_BHW is None else change(self.label_BHW),
            None if self.content_BHW is None else change(self.content_BHW),
            {name: change(one) for name, one in self.extra.items()},
            None if self.tags_BK is None else change(self.tags_BK),
            self.extents,
        )

    @staticmethod
    def joined(groups: Sequence[Batch]) -> Batch:
        """The images of several groups, in their order, as one batch; a single group is itself."""
        if len(groups) == 1:
            return groups[0]
        first, known = groups[0], [g.extents for g in groups if g.extents is not None]

        def together(take: Callable[[Batch], Tensor | None]) -> Tensor | None:
            found = [one for one in map(take, groups) if one is not None]
            return torch.cat(found) if found else None

        return Batch(
            tuple(i for g in groups for i in g.ids),
            {name: torch.cat([g.views[name] for g in groups]) for name in first.views},
            torch.cat([g.tags_BC for g in groups]),
            together(lambda g: g.label_BHW),
            together(lambda g: g.content_BHW),
            {name: torch.cat([g.extra[name] for g in groups]) for name in first.extra},
            together(lambda g: g.tags_BK),
            Extents(max(e.classes for e in known), max(e.values for e in known), sum(e.labelled for e in known))
            if len(known) == len(groups)
            else None,
        )


@dataclass(frozen=True)
class Progress:
    """Where the run is: `step` counts from 0 to `total`-1."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of the run that lies behind this step, in [0,1)."""
        return self.step / self.total


@dataclass
class StepOutput:
    """Losses: named scalars, already weighted, whose sum is minimised; a term that has not started is left out.

    Stats: tensors without gradient, averaged over the groups of the global batch (or concatenated in image order
    where the method's `stats_concat` names them), handed to `update`. Logged: further finite scalars that stand beside
    the losses in the table of steps, means over the groups; their names are no loss's.
    """

    losses: dict[str, Tensor]
    stats: dict[str, Tensor] = field(default_factory=dict)
    logged: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class OptimizerPlan:
    """One optimiser with its schedule: `factor(step)` multiplies every group's initial learning rate."""

    optimizer: torch.optim.Optimizer
    factor: Callable[[int], float]
    clip_norm: float | None = None
    active: Callable[[Progress], bool] = lambda progress: True


@dataclass(frozen=True)
class Prediction:
    """What a network says of images, before thresholds. Maps may be at token resolution."""

    cam_BCHW: Tensor | None = None
    """Normalised CAM in [0,1], all C classes, at image size."""
    pseudo_BCHW: Tensor | None = None
    """CAM refined into pseudo-mask scores in [0,1], at image size."""
    segmentation_BKhw: Tensor | None = None
    """Logits of the segmenter."""
    background_BHW: Tensor | None = None
    """Score of background beside `cam_BCHW`, where the method makes one: no threshold is left then."""


class Transform(Protocol):
    """Makes the training views of one image; picklable, runs in loader processes, draws only from `rng`."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views: ...


class Method(nn.Module, metaclass=Contract):
    """A way of learning segmentation from weak labels. Teachers, banks and centres are submodules or buffers."""

    stats_concat: frozenset[str] = frozenset()
    background_tags: bool = False
    """Whether batches carry `tags_BK`: the tags, the labels that the whole image has, and background where any pixel is
    labelled so, or where there are no pixel labels to say."""
    teacher: nn.Module | None
    """The network that `weights="teacher"` predicts with; None where there is none."""

    def __init__(self) -> None:
        super().__init__()
        # Set here and not on the class, where it would hide a submodule of that name.
        self.teacher = None

    @abstractmethod
    def transform(self) -> Transform:
        """The picklable callable that makes training views."""

    def on_device(self, group: Batch) -> Batch:
        """The group, which is on the device by now, with what the transform has left to make of its views there.

        Draws nothing, and never waits for the device. As written here nothing is left.
        """
        return group

    @abstractmethod
    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """Losses and statistics of one group, with gradient. Draws randomness from the seeded generators only."""

    @property
    def takes_groups(self) -> bool:
        """Whether `steps` runs passes over the images of several groups at once, which spares launches."""
        return False

    def steps(
        self, groups: Sequence[Batch], progress: Progress, draws: Sequence[AbstractContextManager[object]]
    ) -> list[StepOutput]:
        """`step` of each group. The engine gives a method that `takes_groups` as many groups as memory allows.

        Inside `draws[i]` the seeded generators are those of group i, and go on where the last visit left them: what
        group i draws is drawn there, in the order of `step`. Then only the order of sums can tell that groups ran
        together. As written here they run one after the other.
        """
        outputs = []
        for group, own in zip(groups, draws, strict=True):
            with own:
                outputs.append(self.step(group, progress))
        return outputs

    def update(self, stats: Mapping[str, Tensor], progress: Progress) -> None:
        """After the optimiser step: EMA, centres, banks."""

    @abstractmethod
    def optimizers(self) -> list[OptimizerPlan]:
        """The optimisers of this run, each with parameter groups, schedule and clipping."""

    def cam_logits(self, images_B3HW: Tensor) -> Tensor:
        """Class maps (B,C,h,w) before ReLU and normalisation, with gradient."""
        raise TypeError(f"{type(self).__name__} makes no CAMs")

    @abstractmethod
    def predict(
        self, images_B3HW: Tensor, tags_BC: Tensor | None = None, *, want: frozenset[str], weights: str = "student"
    ) -> Prediction:
        """The maps named in `want` (cam, pseudo, segmentation), without gradient, in eval mode.

        `tags_BC` zeroes absent classes in CAM and pseudo maps; None leaves all classes.
        `weights` is student or teacher. Raises ValueError for a target the method does not make.
        """

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation (RGB, of pixels in [0,1]) that images are normalised by."""
        raise TypeError(f"{type(self).__name__} does not say how its images are normalised")

    def describe(self) -> dict[str, Any]:
        """Values fitted to this size (design section 4, fitting rules), shown by dry_run and kept in the store."""
        return {}
