"""FSAE's training step next to what it cannot do without: its base's step, a forward of the teacher, and a forward and
backward of the student's class maps."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from benchmarks import Case
from benchmarks.method_step import SIZES, TOTAL, MethodStep
from harness.api.method import Progress

GOAL = 1 / 1.15
AT = 900
"""A step of a thousand with every term."""


class FsaeStep(MethodStep):
    """The step on `cam`."""

    name = "cam+fsae"
    view_names = ("view1", "fsae_strong")

    def outputs(self, progress: Progress) -> list[Tensor]:
        """The base's losses, and the class maps of the strong view."""
        with torch.no_grad():
            self.method.teacher.cam_logits(self.batch.views["view1"])
        base = self.method.base.step(self.batch, progress)
        return [*base.losses.values(), self.method.base.cam_logits(self.batch.views["fsae_strong"])]

    def floor(self) -> None:
        """Passes of a step with the base's losses and update, without labels, consistency and average."""
        torch.manual_seed(AT)
        progress = Progress(AT, TOTAL)
        torch.stack([p.sum() for p in self.outputs(progress)]).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.base.update({}, progress)

    def equal(self) -> str:
        """The base's losses of a step are those of the base alone."""
        progress = Progress(AT, TOTAL)
        torch.manual_seed(AT)
        alone = self.method.base.step(self.batch, progress).losses
        torch.manual_seed(AT)
        beside = self.method.step(self.batch, progress).losses
        differ = [name for name, loss in alone.items() if not torch.equal(beside[name], loss)]
        assert not differ, f"{', '.join(differ)} of the base differ"
        return f"{len(alone)} losses of the base bit-equal"


def cases(quick: bool) -> list[Case]:
    """Sizes of tier lab and of the embedded dataset; quick: two images and no goal."""
    return [_case(size, quick) for size in SIZES]


def _case(size: str, quick: bool) -> Case:
    @functools.cache
    def step() -> FsaeStep:
        return FsaeStep(size, 2 if quick else None)

    return Case(
        f"cam+fsae {size}",
        lambda: step().floor(),
        lambda: step().run(AT),
        lambda: step().equal(),
        None if quick else GOAL,
        prepare=step,
        unit=SIZES[size][2],
    )
