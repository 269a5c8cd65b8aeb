"""What travels from the plan to the process that runs: one frozen object, made by `Plan.resolve` alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.api.dataset import Dataset
from harness.files import digest_of
from harness.plan.config import Machine, RunConfig
from harness.store.rows import run_row


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run comes from. Shown and stored, no part of its key."""

    sweep: str = ""
    study: str = ""
    trial: int = 0
    role: str = "trial"


@dataclass(frozen=True, kw_only=True)
class PlannedData:
    """The data that a run was planned on: what reports say of it, and the digests that tell it from any other."""

    name: str
    """`voc`, `folder:pets`."""
    family: str
    class_names: tuple[str, ...]
    has_background: bool
    fingerprints: Mapping[str, str]
    """Labels by split (`train`, `tune`, `report`), and `weak` for the sparse labels that the run reads, if any."""

    @classmethod
    def of(cls, dataset: Dataset, fingerprints: Mapping[str, str]) -> PlannedData:
        """The data of an open dataset."""
        return cls(
            name=dataset.name,
            family=dataset.family,
            class_names=tuple(dataset.class_names),
            has_background=dataset.has_background,
            fingerprints=dict(fingerprints),
        )

    @property
    def train(self) -> str:
        """Digest of the training images and of the labels that a run reads."""
        return train_digest(self.fingerprints)

    def described(self) -> dict[str, Any]:
        """What the column `config` of `runs` holds beside the config."""
        return {
            "family": self.family,
            "class_names": list(self.class_names),
            "has_background": self.has_background,
        }


def train_digest(fingerprints: Mapping[str, str]) -> str:
    """Digest of what a run learns from, of its fingerprints."""
    weak = fingerprints.get("weak", "")
    return digest_of([fingerprints["train"], weak]) if weak else fingerprints["train"]


@dataclass(frozen=True, kw_only=True)
class Payload:
    """One run, ready to execute on any machine."""

    key: str
    run: RunConfig
    machine: Machine
    data: PlannedData
    versions: Mapping[str, int]
    origin: Origin = field(default_factory=Origin)
    pretraining: str = ""
    """Name of the pretrained weights."""
    ablation: str = ""
    """Names of the ablations of its method, joined by `+`."""
    workers: int = 1
    gpus: float = 0.0
    """GPUs of one worker."""

    def with_origin(self, **changes: Any) -> Payload:
        """The same run for another sweep, study, trial or role."""
        return dataclasses.replace(self, origin=dataclasses.replace(self.origin, **changes))

    def with_low_memory(self) -> Payload:
        """The one retry after running out of memory."""
        return dataclasses.replace(self, machine=dataclasses.replace(self.machine, low_memory=True))

    def row(self, status: str, **measured: Any) -> dict[str, Any]:
        """Its row of `runs` with this status, `measured` beside what was planned."""
        run, origin = self.run, self.origin
        return run_row(
            status,
            key=self.key,
            sweep=origin.sweep,
            study=origin.study,
            trial=origin.trial,
            method=run.method,
            variant=run.variant,
            dataset=self.data.name,
            split_fingerprints=json.dumps(dict(self.data.fingerprints)),
            supervision=run.labels,
            backbone=run.backbone,
            decoder=run.decoder,
            pretraining=self.pretraining,
            tier=run.tier,
            iterations=run.total,
            seed=run.seed,
            protocol=self.machine.protocol,
            config=run.stored({**self.data.described(), "ablation": self.ablation}),
            versions=json.dumps(dict(self.versions)),
            threads=self.machine.threads,
            precision=run.precision,
            **measured,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        parts = {name: dataclasses.asdict(values[name]) for name in ("machine", "data", "origin")}
        plain: dict[str, Any] = json.loads(json.dumps({**values, **parts, "run": self.run.to_dict()}, default=dict))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Payload:
        """The payload of `to_dict`'s values. Raises TypeError and StoreError for unknown and missing ones."""
        machine, data = values["machine"], values["data"]
        return cls(
            **{
                **values,
                "run": RunConfig.from_dict(values["run"]),
                "machine": Machine(**{**machine, "keep": tuple(machine["keep"])}),
                "data": PlannedData(**{**data, "class_names": tuple(data["class_names"])}),
                "origin": Origin(**values["origin"]),
            }
        )
