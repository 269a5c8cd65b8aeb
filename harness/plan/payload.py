"""What travels from the plan to the process that runs: one frozen object, made by `Plan.resolve` alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import Problem
from harness.files import digest_of
from harness.plan.config import Machine, RunConfig
from harness.store.rows import run_row

if TYPE_CHECKING:
    # Reports name payloads too, and datasets import much.
    from harness.api.dataset import Dataset
    from harness.datasets.splits import SplitPlan

GENERATED = "generated"
"""Stands for the digest of pixels that the fingerprint of the labels decides."""
_FIX = "run the same command again: it plans anew with the data as it is now; or put the data back and add retry=failed"


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
    """Ids, order and labels by role (`train`, `tune`, `report`), and `weak` for the sparse labels that the run reads,
    if any."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Pixels by role; empty where labels and pixels come from one generator."""
    density: str = ""
    """How much the sparse labels label, in words; empty for a run that reads none."""
    every: str = ""
    """Labels and pixels of all splits that can be trained or scored on, whatever role they have; empty as `images`."""

    @classmethod
    def of(cls, dataset: Dataset, splits: SplitPlan) -> PlannedData:
        """The data of an open dataset. Raises BadInput where it cannot be read."""
        return cls(
            name=dataset.name,
            family=dataset.family,
            class_names=tuple(dataset.class_names),
            has_background=dataset.has_background,
            fingerprints={role: dataset.fingerprint(ids) for role, ids in _roles(splits).items()},
            images=_images(dataset, splits),
            every=_every(dataset),
        )

    def with_weak(self, digest: str | None, density: str = "") -> PlannedData:
        """The same for a run that reads sparse labels of this digest and density; None for one that reads none."""
        weak = {} if digest is None else {"weak": digest}
        return dataclasses.replace(self, fingerprints={**self.fingerprints, **weak}, density=density)

    @property
    def train(self) -> str:
        """Digest of the training images' ids and of the labels that a run reads."""
        weak = self.fingerprints.get("weak", "")
        return digest_of([self.fingerprints["train"], weak]) if weak else self.fingerprints["train"]

    def stored(self) -> str:
        """The column `split_fingerprints` of `runs`."""
        pixels = digest_of(dict(self.images)) if self.images else GENERATED
        told = {"density": self.density} if self.density else {}
        return json.dumps({**self.fingerprints, "images": pixels, **told})

    def changes(self, dataset: Dataset, splits: SplitPlan, labels: str) -> list[Problem]:
        """What of an open dataset is not as it was planned; `labels` is the kind that the run reads."""
        names = {"train": "train", "tune": splits.tune_name, "report": splits.report_name}
        found = []
        for role, ids in _roles(splits).items():
            if dataset.fingerprint(ids) != self.fingerprints[role]:
                found.append((names[role], "its list of images, class names, masks or tags"))
            if self.images and dataset.image_fingerprint(ids) != self.images[role]:
                found.append((names[role], "pixels of its images"))
        if "weak" in self.fingerprints and dataset.weak_fingerprint(splits.train, labels) != self.fingerprints["weak"]:
            found.append(("train", f"its {labels}"))
        return [Problem(f"{dataset.name}, {name}", f"changed since the plan: {what}", _FIX)
                for name, what in dict.fromkeys(found)]  # fmt: skip

    def described(self) -> dict[str, Any]:
        """What the column `config` of `runs` holds beside the config."""
        return {
            "family": self.family,
            "class_names": list(self.class_names),
            "has_background": self.has_background,
        }


def _roles(splits: SplitPlan) -> dict[str, tuple[str, ...]]:
    return {"train": splits.train, "tune": splits.tune, "report": splits.report}


def _images(dataset: Dataset, splits: SplitPlan) -> dict[str, str]:
    found = {role: dataset.image_fingerprint(ids) for role, ids in _roles(splits).items()}
    return found if any(found.values()) else {}


def _every(dataset: Dataset) -> str:
    used = [split for split, has_masks in sorted(dataset.splits().items()) if has_masks or split == "train"]
    pixels = [dataset.image_fingerprint(dataset.ids(split)) for split in used]
    labels = [dataset.fingerprint(dataset.ids(split)) for split in used]
    return digest_of([used, labels, pixels]) if any(pixels) else ""


@dataclass(frozen=True, kw_only=True)
class Payload:
    """One run, ready to execute on any machine."""

    key: str
    earlier_key: str = ""
    """What its key was before pixels entered keys; empty where they are no part of it."""
    run: RunConfig
    machine: Machine
    data: PlannedData
    versions: Mapping[str, int]
    origin: Origin = field(default_factory=Origin)
    pretraining: str = ""
    """The pretrained weights and what they were trained on (`harness.store.pretraining`), as the store has it."""
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

    def under_earlier_key(self) -> Payload | None:
        """The same run under the key from before pixels entered keys; None where it has no other."""
        return dataclasses.replace(self, key=self.earlier_key, earlier_key="") if self.earlier_key else None

    def stands_as(self, runs: Mapping[str, Mapping[str, Any]]) -> str:
        """The key under which the run stands or will stand in a store, of whose rows of `runs` the latest are given.

        Its own; but the earlier one where it is done under that alone, and the labels that it was scored on are those
        of today.
        """
        before = runs.get(self.earlier_key)
        own = runs.get(self.key)
        if before is None or before["status"] != "done" or (own is not None and own["status"] == "done"):
            return self.key
        then = json.loads(before["split_fingerprints"] or "{}")
        # Under another protocol another split was the tuning one.
        roles = ["report"] + ["tune"] * (before["protocol"] == self.machine.protocol)
        same = all(then.get(role) in (None, self.data.fingerprints[role]) for role in roles)
        return self.earlier_key if same else self.key

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
            split_fingerprints=self.data.stored(),
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
