"""Words to a pure list of studies and runs, checked whole before anything starts. Never imports Ray."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.config import RunConfig, check_words, content_key, digest_of, resolve_run
from harness.datasets.base import Dataset
from harness.datasets.splits import SplitPlan
from harness.engine.context import Machine
from harness.errors import BadInput, Problem
from harness.inputs import chosen_methods, gpus_per_worker, labels_of, open_data
from harness.knobs import knob_from_text, typed_knobs
from harness.pretrained import Pretrained, find
from harness.registry import Chosen, registry
from harness.spec import Preset, resolve
from harness.tuning.space import Space
from harness.tuning.studies import Resolved, Study
from harness.versions import versions
from harness.words import Parsed, Words, split_list


@dataclass(frozen=True, kw_only=True)
class PlannedStudy:
    """One study of a sweep: what the tuner needs, and the run that its trials vary."""

    study: Study
    run: RunConfig
    pretrained: Pretrained
    versions: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep before it runs: its studies, its data and the machine words."""

    sweep: str
    words: Words
    studies: tuple[PlannedStudy, ...]
    machine: Machine
    dataset: Dataset
    splits: SplitPlan
    fingerprints: Mapping[str, str]
    notes: tuple[str, ...] = ()
    gpus: float = 0.0
    words_given: Mapping[str, str] = field(default_factory=dict)
    by_id: dict[str, PlannedStudy] = field(default_factory=dict)

    def planned(self, study_id: str) -> PlannedStudy:
        """The study of this id."""
        if not self.by_id:
            self.by_id.update({p.study.id: p for p in self.studies})
        return self.by_id[study_id]

    def fitted(self, planned: PlannedStudy) -> dict[str, Any]:
        """Values of a study's card that were fitted to its size (design section 4), from the method as built."""
        from harness.engine.build import build_method

        return build_method(planned.run, self.dataset, planned.pretrained.path).describe()

    @staticmethod
    def target(method: str) -> str:
        """What a method's objective scores: its last target."""
        return registry().choose(method).spec.targets[-1]

    def resolve(
        self, study: Study, knobs: Mapping[str, Any], seed: int, *, trial: int = 0, role: str = "trial"
    ) -> Resolved:
        """The run of a study with these knobs and seed: its key, and the payload that `engine.run.execute` takes.

        Raises BadInput when a rule between knobs is broken.
        """
        planned = self.planned(study.id)
        run = planned.run.with_knobs(knobs, seed)
        typed_knobs(run.chosen.spec, run.knobs)
        key = content_key(
            run,
            train_fingerprint=self.fingerprints["train"],
            weights_digest=planned.pretrained.digest,
            versions=planned.versions,
        )
        machine = dataclasses.replace(
            self.machine, weights=planned.pretrained.path, weights_digest=planned.pretrained.digest
        )
        payload = {
            "key": key,
            "config": run.to_dict(),
            "machine": dataclasses.asdict(machine),
            "labels": {"sweep": self.sweep, "study": study.id, "trial": trial, "role": role},
            "train_fingerprint": self.fingerprints["train"],
            "fingerprints": dict(self.fingerprints),
            "versions": dict(planned.versions),
            "pretraining": planned.pretrained.label,
            "described": {
                "dataset": self.dataset.name,
                "class_names": list(self.dataset.class_names),
                "has_background": self.dataset.has_background,
                "ablation": self.words.ablation or "",
            },
        }
        return Resolved(key=key, payload=payload)


def make_plan(parsed: Parsed, *, single: bool = False) -> Plan:
    """The plan of `harness.sweep` (or of one run, for `harness.train`).

    Raises BadInput with every problem of words, methods, knobs, data, weights and machine at once.
    """
    words: Words = parsed.words
    problems = check_words(words)
    chosen = chosen_methods(words, single, problems)
    opened = open_data(words, parsed.options, problems)
    gpus = gpus_per_worker(words, problems)
    precision = words.precision if words.precision != "auto" else ("bf16" if gpus else "fp32")
    if opened is None or not chosen or problems:
        raise BadInput(problems)
    dataset, splits = opened
    labels, notes = labels_of(words, chosen, problems)
    runs = _runs(parsed, chosen, labels, dataset, precision, problems)
    studies = []
    for run in runs:
        try:
            studies.append(_study(run, parsed, words, gpus, dataset.family))
        except BadInput as e:
            problems.extend(e.problems)
    if problems:
        raise BadInput(problems)
    fingerprints = {
        "train": dataset.fingerprint(splits.train),
        "tune": dataset.fingerprint(splits.tune),
        "report": dataset.fingerprint(splits.report),
    }
    machine = Machine(
        store=os.path.abspath(words.store),
        data_root=_abs(words.data.root),
        classes_file=_abs(words.data.classes),
        threads=words.threads or (4 if gpus else 1),
        loaders=words.loaders if words.loaders is not None else (4 if gpus else 0),
        checkpoint_every=words.checkpoint_every,
        keep=tuple(split_list(words.keep)),
        protocol=words.protocol,
    )
    unique = {s.study.id: s for s in studies}
    sweep = digest_of([sorted(unique), fingerprints])[:12]
    return Plan(
        sweep=sweep,
        words=words,
        studies=tuple(unique.values()),
        machine=machine,
        dataset=dataset,
        splits=splits,
        fingerprints=fingerprints,
        notes=tuple(notes),
        gpus=gpus,
        words_given=dict(parsed.given),
    )


def _runs(
    parsed: Parsed,
    chosen: list[Chosen],
    labels: Mapping[str, list[str]],
    dataset: Dataset,
    precision: str,
    problems: list[Problem],
) -> list[RunConfig]:
    """One run per method and kind of labels; baselines once per distinct network of the others."""
    words: Words = parsed.words
    runs: list[RunConfig] = []

    def add(c: Chosen, label: str, network: tuple[str, str] | None = None) -> None:
        try:
            runs.append(
                resolve_run(
                    c,
                    words,
                    family=dataset.family,
                    dataset=words.data.name,
                    labels=label,
                    precision=precision,
                    options=parsed.options,
                    knobs=parsed.knobs,
                    seed=words.seed,
                    network=network,
                )
            )
        except BadInput as e:
            problems.extend(p for p in e.problems if p not in problems)

    for c in (c for c in chosen if not c.spec.baseline_of):
        for label in labels[c.name]:
            add(c, label)
    networks = list(dict.fromkeys((r.backbone, r.decoder) for r in runs))
    for c in (c for c in chosen if c.spec.baseline_of):
        for label in labels[c.name]:
            for network in networks or [_network_of_cam(dataset.family, words)]:
                add(c, label, network)
    return runs


def _network_of_cam(family: str, words: Words) -> tuple[str, str]:
    spec = registry().spec("cam")
    tier = words.tier or ("smoke" if words.data.name == "shapes" else "paper")
    preset: Preset = resolve(spec.preset)(family, tier, "default")
    return preset.backbone, preset.decoder


def _study(run: RunConfig, parsed: Parsed, words: Words, gpus: float, family: str) -> PlannedStudy:
    chosen = run.chosen
    preset: Preset = resolve(chosen.spec.preset)(family, run.tier, run.variant)
    fixed = words.protocol == "fixed"
    space = _space(chosen, run, parsed)
    trials = 1 if fixed or space is None or not space.knobs else (words.trials or preset.trials)
    seeds = tuple(range(words.seed, words.seed + (words.seeds or preset.seeds)))
    identity = {
        "run": run.to_dict(),
        "trials": trials,
        "seeds": seeds,
        "search": words.search,
        "protocol": words.protocol,
        "space": sorted(map(str, space.knobs)) if space else [],
    }
    study_id = f"{chosen.name}-{run.labels}-{digest_of(identity)[:8]}"
    threads = words.threads or (4 if gpus else 1)
    study = Study(
        id=study_id,
        method=chosen.name,
        space=space,
        preset_knobs=dict(run.knobs),
        trials=trials,
        seeds=seeds,
        search=words.search,
        protocol=words.protocol,
        cores_per_run=float(threads),
        gpus=gpus,
        workers=words.workers,
        first_rung=_first_rung(run),
    )
    used = versions(chosen.spec, chosen.base)
    return PlannedStudy(study=study, run=run, pretrained=find(run.backbone, words.backbone.weights), versions=used)


def _first_rung(run: RunConfig) -> float:
    """Share of T of the first early stop: a tenth of the run after the last loss term has started, or never."""
    rung = run.method_config().last_start() + 0.1
    return max(0.25, rung) if rung < 0.9 else 1.0


def _space(chosen: Chosen, run: RunConfig, parsed: Parsed) -> Space | None:
    """The method's search space without the knobs that the command line pins."""
    target = registry().space_target(chosen.spec.name)
    if target is None:
        return None
    space: Space = resolve(target)
    pinned = set(parsed.knobs.get(chosen.spec.name, {}))
    for name in pinned:
        knob_from_text(chosen.spec, name, parsed.knobs[chosen.spec.name][name])
    space = space.without(*(k for k in space.knobs if k in pinned))
    problems = space.check(chosen.spec.config, run.knobs)
    if problems:
        raise BadInput(problems)
    return space


def _abs(path: str | None) -> str | None:
    return os.path.abspath(os.path.expanduser(path)) if path else None
