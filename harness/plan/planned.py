"""What a plan consists of: rows, which share words, data and machine, and their studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.api.dataset import Dataset
from harness.cli.run_words import Words
from harness.clusters.file import ClusterFile
from harness.datasets.splits import SplitPlan
from harness.errors import Problem
from harness.plan.config import Machine, RunConfig
from harness.plan.payload import PlannedData
from harness.plan.pretrained import Pretrained
from harness.plan.studies import Study

SINGLE = "train"
"""Marks studies and sweeps of `harness.train`: one run that belongs to no study of a sweep."""


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What the studies of one set of words share: the words, the data, the machine."""

    words: Words
    given: Mapping[str, str]
    machine: Machine
    dataset: Dataset
    splits: SplitPlan
    all_data: PlannedData
    """As a run has it that reads no sparse labels."""
    weak_fingerprints: Mapping[str, str] = field(default_factory=dict)
    """By kind of labels, for those that are neither tags nor masks."""
    densities: Mapping[str, str] = field(default_factory=dict)
    """How much these label, in words."""
    notes: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    """What is odd about the data, though it can be trained on."""
    gpus: float = 0.0
    """Of each worker."""
    cluster: ClusterFile | None = None
    """Where the runs go, where `address=` names a cluster whose file says what its machines have."""

    def data(self, labels: str) -> PlannedData:
        """The data of a run that reads these labels."""
        return self.all_data.with_weak(self.weak_fingerprints.get(labels), self.densities.get(labels, ""))

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Ids, order and labels by role (`train`, `tune`, `report`)."""
        return self.all_data.fingerprints


@dataclass(frozen=True, kw_only=True)
class PlannedStudy:
    """One study of a sweep: what the tuner needs, the run that its trials vary, and what it shares with others."""

    study: Study
    run: RunConfig
    pretrained: Pretrained
    further: Mapping[str, Pretrained]
    """The pretrained weights of further networks of its recipe."""
    versions: Mapping[str, int]
    part: PlanRow
    ablation: str = ""
    """Names of the ablations of this method, joined by `+`."""
