"""Recipes made of stages that every method shares: train a network, and write its maps for those who read files."""

from __future__ import annotations

from harness.engine.stages.stage import Stage
from harness.engine.stages.train import TRAIN
from harness.engine.stages.write_cams import WRITE_CAMS
from harness.plan.config import RunConfig


def single_stage(run: RunConfig) -> tuple[Stage, ...]:
    """The recipe of single-stage methods: one training stage; scoring follows every recipe."""
    return (TRAIN,)


def train_and_write_cams(run: RunConfig) -> tuple[Stage, ...]:
    """Train, then write the CAM and pseudo-mask scores of the scored images, which scoring reads from the files."""
    return (TRAIN, WRITE_CAMS)
