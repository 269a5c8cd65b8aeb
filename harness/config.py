"""The resolved config of one run, how it is made from words and preset, and its content key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.ablations import overrides
from harness.errors import BadInput, Problem, nearest
from harness.knobs import knob_from_text, plain, preset_knobs, typed_knobs
from harness.registry import Chosen, registry
from harness.scoring.crf import crf_problems
from harness.scoring.inference import Inference, inference_of, inference_problems
from harness.spec import VARIANTS, MethodConfig, Preset, resolve
from harness.words import Words, split_list

TIERS = ("smoke", "lab", "paper")
DECODERS = ("largefov", "deeplabv2", "deeplabv3plus")
PROTOCOLS = ("fixed", "held-out", "oracle")


INFERENCE_FIELDS = frozenset({"scales", "flip", "fusion", "crf", "split", "scoring"})
"""Fields of a run that say how its network is scored, and nothing of how it is made."""


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

    @property
    def total(self) -> int:
        """T: optimiser steps of this run."""
        return max(1, round(self.iterations * self.fidelity))

    @property
    def chosen(self) -> Chosen:
        """The registered method."""
        return registry().choose(self.method)

    def method_config(self) -> MethodConfig:
        """The typed knobs. Raises BadInput when a rule between them does not hold."""
        return typed_knobs(self.chosen.spec, self.knobs)

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
        """Plain JSON-able values; `from_dict` is the inverse."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        if not values["scoring"]:
            del values["scoring"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """A config from `to_dict`'s values."""
        known = {f.name for f in dataclasses.fields(cls)}
        kept = {k: v for k, v in values.items() if k in known}
        kept["scales"] = tuple(kept.get("scales", (1.0,)))
        return cls(**kept)

    def with_knobs(self, knobs: Mapping[str, Any], seed: int) -> RunConfig:
        """The same run with other knobs (the rest as they are) and another seed."""
        merged = {**self.knobs, **{k: plain(v) for k, v in knobs.items()}}
        return dataclasses.replace(self, knobs=merged, seed=seed)


def content_key(run: RunConfig, *, train_fingerprint: str, weights_digest: str, versions: Mapping[str, int]) -> str:
    """A run's key: digest of config, training data, pretrained weights, seed and versions (design section 4)."""
    identity = {
        "config": _identity(run),
        "train": train_fingerprint,
        "weights": weights_digest,
        "versions": dict(versions),
    }
    return digest_of(identity)


def _identity(run: RunConfig) -> dict[str, Any]:
    """The config without added knobs that stand at their defaults."""
    values, chosen = run.to_dict(), run.chosen
    for part, spec in (("knobs", chosen.spec), ("base_knobs", chosen.base)):
        if spec is not None and values[part] is not None:
            quiet = {k: plain(f.default) for k, f in spec.config.knobs().items() if f.metadata.get("added")}
            values[part] = {k: v for k, v in values[part].items() if k not in quiet or v != quiet[k]}
    return values


def digest_of(value: Any) -> str:
    """The first 20 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def resolve_run(
    chosen: Chosen,
    words: Words,
    *,
    family: str,
    dataset: str,
    labels: str,
    precision: str,
    options: Mapping[str, str],
    knobs: Mapping[str, Mapping[str, str]],
    seed: int,
    network: tuple[str, str] | None = None,
) -> RunConfig:
    """The preset of a method with the command line's words on top.

    `network` is the (backbone, decoder) that a baseline takes from the row beside it. Raises BadInput with every
    problem of this method's words.
    """
    spec = chosen.spec
    tier = words.tier or ("smoke" if dataset == "shapes" else "paper")
    problems: list[Problem] = []
    if words.variant not in spec.variants:
        have = ", ".join(spec.variants)
        problems.append(Problem("variant", f"{spec.name} has no variant {words.variant!r}", f"it has: {have}"))
        raise BadInput(problems)
    preset: Preset = resolve(spec.preset)(family, tier, words.variant)
    values = preset_knobs(spec, preset) | overrides(spec, words.ablation)
    for name, raw in knobs.get(spec.name, {}).items():
        try:
            values[name] = knob_from_text(spec, name, raw)
        except BadInput as e:
            problems.extend(e.problems)
    if not problems:
        try:
            typed_knobs(spec, values)
        except BadInput as e:
            problems.extend(e.problems)
    backbone = words.backbone.name or (network[0] if network else preset.backbone)
    decoder = words.decoder or (network[1] if network else preset.decoder)
    run = RunConfig(
        method=chosen.name,
        variant=words.variant,
        knobs=values,
        base_knobs=_base_knobs(chosen, family, tier, words.variant, knobs),
        dataset=dataset,
        masks=words.data.masks,
        options={**options, "tune": words.data.tune},
        labels=labels,
        backbone=backbone,
        decoder=decoder,
        tier=tier,
        crop=words.crop or preset.crop,
        batch=words.batch or preset.batch,
        group=words.group or min(preset.group, words.batch or preset.batch),
        iterations=words.iterations or preset.iterations,
        fidelity=words.fidelity,
        precision=precision,
        seed=seed,
        cam_threshold=preset.cam_threshold,
        crf=words.crf,
        split=words.split,
    ).with_inference(inference_of(words.scales, words.flip, words.fusion, preset.inference))
    problems.extend(_size_rules(run, words))
    if problems:
        raise BadInput(problems)
    return run


def check_words(words: Words) -> list[Problem]:
    """Rules on words alone, before any dataset or method is looked at."""
    problems: list[Problem] = []

    def one_of(name: str, value: str | None, allowed: Sequence[str]) -> None:
        if value is not None and value not in allowed:
            problems.append(Problem(name, f"{value!r} is unknown", nearest(value, allowed)))

    one_of("tier", words.tier, TIERS)
    one_of("variant", words.variant, VARIANTS)
    one_of("decoder", words.decoder, DECODERS)
    one_of("protocol", words.protocol, PROTOCOLS)
    one_of("search", words.search, ("tpe", "rules"))
    one_of("precision", words.precision, ("auto", "fp32", "bf16"))
    one_of("retry", words.retry, ("failed",))
    one_of("data.tune", words.data.tune, ("auto", "val", "carve"))
    one_of("split", words.split, ("train", "val", "test"))
    problems.extend(inference_problems(words.scales, words.flip, words.fusion))
    problems.extend(crf_problems(words.crf))
    for part in split_list(words.keep):
        one_of("keep", part, ("last", "best", "maps", "none"))
    for name in ("crop", "batch", "iterations", "group", "trials", "seeds", "workers", "threads", "checkpoint_every"):
        value = getattr(words, name)
        if value is not None and value < 1:
            problems.append(Problem(name, f"{value} is below 1", "give a whole number of at least 1"))
    if words.loaders is not None and words.loaders < 0:
        problems.append(Problem("loaders", f"{words.loaders} is negative", "0 loads in the training process"))
    if not 0 < words.fidelity <= 1:
        problems.append(Problem("fidelity", f"{words.fidelity} is outside (0,1]", "1 is the whole run"))
    if words.gpus is not None and words.gpus < 0:
        problems.append(Problem("gpus", f"{words.gpus} is negative", "gpus=0 runs on the CPU"))
    if words.seed < 0:
        problems.append(Problem("seed", f"{words.seed} is negative", "give a whole number of at least 0"))
    return problems


def _size_rules(run: RunConfig, words: Words) -> list[Problem]:
    problems = []
    if run.batch % run.group:
        problems.append(
            Problem("batch", f"{run.batch} is no multiple of group={run.group}", "a step holds whole groups")
        )
    elif (run.batch // run.group) % words.workers:
        problems.append(
            Problem(
                "workers",
                f"{run.batch // run.group} groups of {run.group} do not divide over {words.workers} workers",
                "choose batch, group and workers so that they do",
            )
        )
    return problems


def _base_knobs(
    chosen: Chosen, family: str, tier: str, variant: str, knobs: Mapping[str, Mapping[str, str]]
) -> dict[str, Any] | None:
    if chosen.base is None:
        return None
    base = chosen.base
    preset: Preset = resolve(base.preset)(family, tier, variant if variant in base.variants else "default")
    values = preset_knobs(base, preset)
    values.update({k: knob_from_text(base, k, raw) for k, raw in knobs.get(base.name, {}).items()})
    return values
