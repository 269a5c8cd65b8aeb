"""The resolved config of one run, how it is made from words and preset, and its content key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.api.inference import Inference
from harness.api.registry import Chosen, registry
from harness.api.spec import MethodConfig
from harness.errors import StoreError
from harness.files import digest_of
from harness.plan.field_types import misfits
from harness.plan.knobs import plain, typed_knobs, without_defaults
from harness.store.rows import json_object

INFERENCE_FIELDS = frozenset({"scales", "flip", "fusion", "crf", "split", "scoring"})
"""Fields of a run that say how its network is scored, and nothing of how it is made."""


SCHEMA = 3
"""Of a config as it is written. Raised when a field comes, goes or changes its meaning; `MIGRATIONS` then says how."""
DESCRIBED = frozenset({"family", "class_names", "has_background", "ablation", "published", "foreign"})
"""What a column `config` of `runs` holds beside a config's own fields."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers. Machine, storage and search words are elsewhere."""

    method: str
    """The command-line word, `sipe+fsae` for a plug-in on its base."""
    variant: str
    knobs: Mapping[str, Any]
    base_knobs: Mapping[str, Any] | None = None
    dataset: str
    masks: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    labels: str
    backbone: str
    decoder: str
    tier: str
    crop: int
    batch: int
    group: int
    iterations: int
    """The tier's or the word's; `total` is what is run."""
    fidelity: float = 1.0
    precision: str = "fp32"
    seed: int = 0
    cam_threshold: float = 0.5
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    fusion: str = "max"
    crf: str = "none"
    split: str | None = None
    scoring: Mapping[str, Any] = field(default_factory=dict)
    """Parts of the inference protocol that scales, flip and fusion do not say (`Inference.extras`); empty ones are no
    part of the key."""
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each further network that the run's stages train: backbone, decoder, crop, batch, group, iterations, and as
    `weights` the digest of its pretrained ones. No part of the key of runs that train one."""
    until: str | None = None
    """The stage that the recipe ends with; None, which is no part of the key, for the last one."""

    @property
    def total(self) -> int:
        """T: optimiser steps of this run, of all its training stages together."""
        further = sum(_steps(sizes["iterations"], self.fidelity) for sizes in self.networks.values())
        return self.own_steps + further

    @property
    def own_steps(self) -> int:
        """Optimiser steps of the network that the run's own sizes are of."""
        return _steps(self.iterations, self.fidelity)

    @property
    def chosen(self) -> Chosen:
        """The registered method."""
        return registry().choose(self.method)

    def method_config(self) -> MethodConfig:
        """The typed knobs. Raises BadInput when a rule between them does not hold."""
        return typed_knobs(self.chosen.spec, self.knobs)

    def base_config(self) -> MethodConfig | None:
        """The typed knobs of a plug-in's base; None where there is no base. Raises BadInput as `method_config`."""
        base = self.chosen.base
        return None if base is None else typed_knobs(base, self.base_knobs or {})

    @property
    def trained_knobs(self) -> Mapping[str, Any]:
        """The knobs of whose targets are made: of a plug-in that trains its base, the base's."""
        own = self.chosen.trained is self.chosen.spec
        return self.knobs if own else self.base_knobs or {}

    @property
    def inference(self) -> Inference:
        """How the segmenter sees an image that is scored."""
        usual = {"scales": self.scales, "flip": "add" if self.flip else "none", "fusion": self.fusion}
        return Inference(**{**usual, **self.scoring})

    def with_inference(self, how: Inference) -> RunConfig:
        """The same run, scored by another inference protocol."""
        return dataclasses.replace(
            self, scales=how.scales, flip=how.flip != "none", fusion=how.fusion, scoring=how.extras()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, the schema among them; `from_dict` is the inverse."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"schema": SCHEMA, **values}

    def identity(self) -> dict[str, Any]:
        """The values that enter keys: as of the first schema, which left out what is usual."""
        values = self.to_dict()
        del values["schema"]
        # Where it lies is no part of a run: the digest of its masks is part of the training data's.
        values["options"].pop("pseudo", None)
        for name in ("scoring", "networks", "until"):
            if not values[name]:
                del values[name]
        return _without(values, self.chosen, "silent")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """A config from `to_dict`'s values of this schema or an earlier one.

        Raises StoreError naming unknown and missing fields and those of a wrong type, or a later schema.
        """
        return cls(**_checked(migrated(values), {f.name for f in dataclasses.fields(cls)}))

    def stored(self, described: Mapping[str, Any]) -> str:
        """The column `config` of `runs`: the config, and beside it what reports ask for (`DESCRIBED`)."""
        return json.dumps({**self.to_dict(), **described}, sort_keys=True)

    @classmethod
    def from_stored(cls, text: str) -> RunConfig:
        """The config in a column `config` of whatever schema. Raises StoreError as `from_dict` does."""
        values = json_object(text, "the config of a run")
        return cls.from_dict({k: v for k, v in values.items() if k not in DESCRIBED})

    def with_knobs(self, knobs: Mapping[str, Any], seed: int) -> RunConfig:
        """The same run with other knobs (the rest as they are) and another seed."""
        merged = {**self.knobs, **{k: plain(v) for k, v in knobs.items()}}
        return dataclasses.replace(self, knobs=merged, seed=seed)


def _steps(iterations: int, fidelity: float) -> int:
    return max(1, round(iterations * fidelity))


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values of an earlier schema as today's has them; fields that are no config's own stay as they are.

    Raises StoreError for a later schema.
    """
    found = dict(values)
    schema = found.pop("schema", 1)
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise StoreError(f"a config of schema {schema!r}; this version reads 1 to {SCHEMA}: update the harness")
    for old in range(schema, SCHEMA):
        found = MIGRATIONS[old](found)
    return found


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Inference was scales, flip and fusion alone unless `scoring` said more; rows named folders as `folder:pets`."""
    named = {"dataset": str(values["dataset"]).partition(":")[0]} if "dataset" in values else {}
    return {"scoring": {}, **values, **named}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    """Runs trained one network, to the end."""
    return {**values, "networks": {}, "until": None}


MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""By schema, what makes of its values those of the next one."""


def _checked(values: dict[str, Any], known: set[str]) -> dict[str, Any]:
    unknown, missing = sorted(set(values) - known), sorted(known - set(values))
    if unknown or missing:
        said = [f"{what} {', '.join(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names]
        raise StoreError(f"a config of schema {SCHEMA} with fields {'; '.join(said)}: another version wrote it")
    wrong = misfits(RunConfig, values)
    if not wrong:
        odd = sorted(set(values["scoring"]) - {f.name for f in dataclasses.fields(Inference)})
        wrong = [f"scoring has {name!r}" for name in odd] + misfits(Inference, values["scoring"])
    if wrong:
        raise StoreError(f"a config of which {'; '.join(wrong)}: it was changed after a run wrote it")
    return {**values, "scales": tuple(values["scales"])}


def content_key(
    run: RunConfig, *, train_fingerprint: str, weights_digest: str, versions: Mapping[str, int], data: str = ""
) -> str:
    """A run's key: digest of config, training data, pretrained weights, seed and versions (design section 4).

    `data` is `PlannedData.every`: labels and pixels of all images; keys from before it was there have none.
    """
    identity = {
        "config": without_added(run.identity(), run.chosen),
        "train": train_fingerprint,
        "weights": weights_digest,
        "versions": dict(versions),
    }
    return digest_of(identity | ({"data": data} if data else {}))


def without_added(values: Mapping[str, Any], chosen: Chosen) -> dict[str, Any]:
    """A config's values without knobs that were added to their method and stand at their defaults.

    Runs from before such a knob was there say nothing of it; those from after do, and their keys do not.
    """
    return _without(values, chosen, "added")


def _without(values: Mapping[str, Any], chosen: Chosen, kind: str) -> dict[str, Any]:
    """A config's values without knobs of a kind (`added`, `silent`) that stand at their defaults."""
    found = dict(values)
    for part, spec in (("knobs", chosen.spec), ("base_knobs", chosen.base)):
        if spec is not None and isinstance(found.get(part), dict):
            found[part] = without_defaults(spec.config, found[part], kind)
    return found


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How a run is executed; nothing here changes a number beyond summation order."""

    store: str
    data_root: str | None = None
    classes_file: str | None = None
    weights: str | None = None
    weights_digest: str = ""
    network_weights: Mapping[str, str | None] = field(default_factory=dict)
    """Files of the pretrained weights of further networks."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Folders that knobs name (`harness.api.recipe.Given`), by the digest of their content."""
    threads: int = 1
    loaders: int | None = 0
    """Loader processes; None: as many as the method's views need beside its steps."""
    checkpoint_every: int | None = None
    keep: tuple[str, ...] = ("last", "best")
    protocol: str = "held-out"
    low_memory: bool = False
    """Set on the one retry after running out of memory: groups are halved where the method allows it."""
