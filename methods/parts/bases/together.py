"""Steps whose passes run over the images of several groups at once, while losses stay with their group
(`harness.api.method.Method.steps`).

Axes: B images, L residual branches.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.api.method import Batch, Method, Progress, StepOutput
from methods.parts.nets.deeplab import take_stats
from methods.parts.nets.depth import Depth, joined_depth

ReadT = TypeVar("ReadT")


@dataclass(frozen=True)
class Drawn:
    """What the passes over a group draw, by name."""

    noise: Mapping[str, Tensor] = field(default_factory=dict)
    """(B,...)."""
    depth: Mapping[str, Depth | None] = field(default_factory=dict)
    """Of each pass, by `draw_depth`."""


@dataclass(frozen=True)
class DrawnTogether:
    """What was drawn for the passes over a batch, by the names of `Drawn`. Empty where each pass draws for itself."""

    noise: Mapping[str, Tensor] = field(default_factory=dict)
    depth: Mapping[str, Tensor | None] = field(default_factory=dict)
    """(L,B), what branches are multiplied with."""


class StepsTogether(Method):
    """A method on an encoder, in three parts: `draw` of each group, `read` of all images, `losses` of each group."""

    net: Any

    @property
    def takes_groups(self) -> bool:
        """Where all that the passes draw can be drawn beforehand."""
        return self.net.encoder.drops is not None

    @abstractmethod
    def draw(self, group: Batch, progress: Progress) -> Drawn:
        """What the passes over a group draw, in the order of the passes."""

    @abstractmethod
    def read(self, batch: Batch, progress: Progress, drawn: DrawnTogether) -> Any:
        """All that is made image by image: a dataclass of tensors (B,...), of such dataclasses, of None and of what
        holds for all images."""

    @abstractmethod
    def losses(self, group: Batch, read: Any, progress: Progress) -> StepOutput:
        """Losses and statistics of a group, of its part of what was read."""

    def step(self, group: Batch, progress: Progress) -> StepOutput:
        """`steps` of one group, whose generators are at work already."""
        return self.steps([group], progress, [nullcontext()])[0]

    def steps(
        self, groups: Sequence[Batch], progress: Progress, draws: Sequence[AbstractContextManager[object]]
    ) -> list[StepOutput]:
        """`draw` of each group, `read` of all, `losses` of each."""
        take_stats(self.net)  # what a step that ran out of memory has left
        batch, drawn = Batch.joined(groups), DrawnTogether()
        if self.takes_groups:
            apart = []
            for group, own in zip(groups, draws, strict=True):
                with own:
                    apart.append(self.draw(group, progress))
            drawn = self._joined(apart)
        parts = split_record(self.read(batch, progress, drawn), [len(g.tags_BC) for g in groups])
        outputs = []
        for group, part, own in zip(groups, parts, draws, strict=True):
            with own:
                outputs.append(self.losses(group, part, progress))
        return outputs

    def _joined(self, apart: Sequence[Drawn]) -> DrawnTogether:
        encoder = self.net.encoder
        depth = {name: joined_depth(encoder, [one.depth[name] for one in apart]) for name in apart[0].depth}
        noise = {name: torch.cat([one.noise[name] for one in apart]) for name in apart[0].noise}
        return DrawnTogether(noise, depth)


def split_record(record: ReadT, sizes: Sequence[int]) -> list[ReadT]:
    """A dataclass whose tensors have an axis of images first, cut into groups of these sizes; its other values are
    everyone's."""
    if len(sizes) == 1:
        return [record]
    columns = {f.name: _split(getattr(record, f.name), sizes) for f in dataclasses.fields(record)}  # type: ignore[arg-type]
    return [
        dataclasses.replace(record, **{name: column[i] for name, column in columns.items()})  # type: ignore[type-var]
        for i in range(len(sizes))
    ]


def _split(value: Any, sizes: Sequence[int]) -> Sequence[Any]:
    if isinstance(value, Tensor):
        return value.split(list(sizes))
    if dataclasses.is_dataclass(value):
        return split_record(value, sizes)
    return [value] * len(sizes)
