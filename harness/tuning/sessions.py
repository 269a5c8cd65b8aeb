"""Sessions of workers that Ray started. Imports Ray only when a report is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TuneSession:
    """A one-worker run inside a reused Tune actor."""

    device: str = "cpu"
    rungs: tuple[float, ...] = ()
    rank: int = 0
    world_size: int = 1

    def report(self, reached: float, objective: float) -> None:
        """Reports to Tune, which raises SystemExit here when the trial is stopped."""
        from ray import tune

        tune.report({"reached": 100 * reached, "objective": objective})


@dataclass(frozen=True)
class TrainSession:
    """One of several Train workers of a run; `torch.distributed` is initialised."""

    rank: int
    world_size: int
    device: str = "cpu"
    rungs: tuple[float, ...] = ()

    def report(self, reached: float, objective: float) -> None:
        """Reports to Train, which passes the first worker's figures on to Tune. A stopped run is torn down."""
        import ray.train

        ray.train.report({"reached": 100 * reached, "objective": objective})
