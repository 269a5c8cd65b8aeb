"""What the training loop sees of the machinery around it: who it is, where it runs, when to report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Session(Protocol):
    """One worker of one run. The loop talks to this object only, never to Ray."""

    @property
    def rank(self) -> int:
        """Index of this worker, 0..world_size-1."""
        ...

    @property
    def world_size(self) -> int:
        """Workers of this run; with 2 or more, `torch.distributed` is initialised."""
        ...

    @property
    def device(self) -> str:
        """`cpu` or `cuda:<index>`."""
        ...

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of T, ascending in (0,1), where the loop scores the objective and reports; mostly none."""
        ...

    def report(self, reached: float, objective: float) -> None:
        """Tells the objective at share `reached` of T; every rank calls it equally often.

        Raises SystemExit when the run is to stop here (pruned): the loop may clean up, then lets it pass.
        """
        ...


class Pruned(SystemExit):
    """The run was stopped early at a rung."""


@dataclass(frozen=True)
class LocalSession:
    """A run in this process, alone. `on_report(reached, objective)` answers whether the run goes on."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    rungs: tuple[float, ...] = ()
    on_report: Callable[[float, float], bool] | None = None

    def report(self, reached: float, objective: float) -> None:
        """Hands the figures to `on_report`; raises Pruned when that answers False."""
        if self.on_report is not None and not self.on_report(reached, objective):
            raise Pruned(f"stopped at {reached:.0%} of the run")
