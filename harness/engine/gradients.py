"""The gradients of one step: forward and backward of this worker's groups, as many together as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.api.method import Batch, Method, Progress, StepOutput
from harness.api.precision import of_run
from harness.engine.session import Session
from harness.plan.seeding import Draws


@dataclass
class Found:
    """What a step leaves besides gradients."""

    names: list[str]
    """Of loss terms and logged values."""
    values: Tensor
    """Theirs, summed over this worker's groups, divided by all groups of the batch."""
    stats: list[dict[str, Tensor]]
    """Of each group."""
    logged: set[str]
    """The names that are no loss terms."""


@dataclass
class Gradients:
    """Accumulates gradients. A method that takes groups together (`Method.takes_groups`) gets all of this worker's on
    a GPU, where each launch costs, and half as many from the step on at which these do not fit; on the CPU, where only
    memory does, it gets one at a time."""

    method: Method
    session: Session
    seed: int
    groups: int
    """In the global batch."""
    precision: str
    together: int | None = None
    """Groups at once; None: as above."""
    _fits: int = field(init=False)

    def __post_init__(self) -> None:
        most = self.groups if self.session.device.startswith("cuda") else 1
        self._fits = (self.together or most) if self.method.takes_groups else 1

    def of(self, groups: Sequence[Batch], progress: Progress) -> Found:
        """The gradients of this worker's groups, in place of any that were there. Raises torch.OutOfMemoryError where
        a single group does not fit."""
        self._fits = max(1, min(self._fits, len(groups)))
        while self._fits > 1:
            try:
                return self._accumulated(groups, progress)
            except torch.OutOfMemoryError:
                self._fits = -(-self._fits // 2)
            # Outside of the handler, which would keep the tensors of the failed step.
            torch.cuda.empty_cache()
        return self._accumulated(groups, progress)

    def _accumulated(self, groups: Sequence[Batch], progress: Progress) -> Found:
        sums: dict[str, Tensor] = {}
        stats: list[dict[str, Tensor]] = []
        logged: set[str] = set()
        for p in self.method.parameters():
            p.grad = None
        for outputs in self._outputs(groups, progress):
            totals = [torch.stack([v.float() for v in out.losses.values()]).sum() / self.groups for out in outputs]
            (torch.stack(totals).sum() if len(totals) > 1 else totals[0]).backward()
            for out in outputs:
                for name, value in {**out.losses, **out.logged}.items():
                    part = value.detach().float() / self.groups
                    sums[name] = sums[name] + part if name in sums else part
                stats.append(out.stats)
                logged.update(out.logged)
        return Found(list(sums), torch.stack(list(sums.values())), stats, logged)

    def _outputs(self, groups: Sequence[Batch], progress: Progress) -> Iterator[list[StepOutput]]:
        """What the method makes of each group, of as many at once as fit."""
        first = self.session.rank * len(groups)
        for at in range(0, len(groups), self._fits):
            some = groups[at : at + self._fits]
            draws = [Draws(self.session.device, self.seed, progress.step, first + at + i) for i in range(len(some))]
            with of_run(self.precision, self.session.device):
                if len(some) > 1:
                    outputs = self.method.steps(some, progress, draws)
                else:
                    with draws[0]:
                        outputs = [self.method.step(some[0], progress)]
            for out in outputs:
                twice = out.losses.keys() & out.logged.keys()
                if twice:
                    raise ValueError(f"{min(twice)} is the name of a loss and of a logged value")
            yield outputs
