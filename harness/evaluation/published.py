"""`weights=<file> method=...`: a published checkpoint, read without running anything in it, under our names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.api.dataset import Dataset
from harness.api.keymap import KeyMap
from harness.api.method import Method
from harness.api.registry import registry
from harness.api.spec import MethodSpec, resolve
from harness.api.vocabulary import VARIANTS
from harness.api.weight_files import read_weights
from harness.cli.evaluate_words import AUTO, EvaluateWords
from harness.cli.parsing import Parsed
from harness.cli.predict_words import PredictWords
from harness.datasets import open_dataset
from harness.engine.inference.counting import Target
from harness.engine.inference.evals import NO_RULE, Tables, eval_columns
from harness.engine.inference.predictions import MAPS
from harness.errors import BadInput, Problem
from harness.evaluation.job import ScoringJob, device_of, precision_of, score, scored_ids, threads_of
from harness.files import digest_of, file_digest
from harness.plan.ablations import unknown_names
from harness.plan.build import build_method
from harness.plan.config import INFERENCE_FIELDS, RunConfig
from harness.plan.pretrained import RANDOM, find
from harness.plan.resolve import resolve_run
from harness.plan.versions import versions
from harness.store import Store
from harness.store.pretraining import Pretraining
from harness.store.rows import run_row

RELEASED = "released"
"""Variant that is the published code, quirks included."""


@dataclass(frozen=True)
class Published:
    """A checkpoint that is scored, and the row of `runs` that it stands for."""

    job: ScoringJob
    state: Mapping[str, Tensor]
    row: Mapping[str, Any]

    def score(self, store: Store) -> Tables:
        """The one eval. Raises BadInput naming every tensor that does not fit."""
        built = build_method(self.job.run, self.job.dataset, RANDOM)
        method = fitted_to(self.job.dataset, built, self.job.run.chosen.spec, self.state)
        return score(self.job, method)


def fitted(method: Method, spec: MethodSpec, state: Mapping[str, Tensor]) -> Method:
    """The method with a published state dict, by its key map (`MethodSpec.published`), else under equal names.

    Raises BadInput naming every missing, unknown and wrong-shaped tensor.
    """
    names: KeyMap = resolve(spec.published)(method) if spec.published else KeyMap(rules=())
    method.load_state_dict(names.convert(state, method.state_dict()))
    return method


def fitted_to(dataset: Dataset, method: Method, spec: MethodSpec, state: Mapping[str, Tensor]) -> Method:
    """As `fitted`, of a method that was built for the labels of `dataset`.

    Raises BadInput as it does; of a file of another number of labels that says both numbers first.
    """
    try:
        return fitted(method, spec, state)
    except BadInput as e:
        names: KeyMap = resolve(spec.published)(method) if spec.published else KeyMap(rules=())
        labels = labels_of(names, state, method.state_dict(), dataset)
        if labels is None:
            raise
        found = f"are of {labels} labels, and here are {dataset.num_labels}"
        fix = "name the classes that they were trained on, with data= or data.classes="
        raise BadInput([Problem("weights", found, fix), *e.problems]) from e


def labels_of(
    names: KeyMap, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], dataset: Dataset
) -> int | None:
    """K of a weights file, where its classifiers and segmenters all say the same and that is another one than ours."""
    told = set()
    for published, tensor in state.items():
        ours = expected.get(names.name(published) or "")
        if ours is None or ours.ndim != tensor.ndim or not ours.ndim or ours.shape[1:] != tensor.shape[1:]:
            continue
        if ours.shape[0] in (dataset.num_labels, dataset.num_classes) and ours.shape[0] != tensor.shape[0]:
            told.add(int(tensor.shape[0]) + dataset.num_labels - int(ours.shape[0]))
    return told.pop() if len(told) == 1 else None


def variant_of(asked: str, spec: MethodSpec) -> str:
    """The variant that is asked for; for `auto` the one that a published file was trained as.

    A file trained with ImageNet's mean and std scores silently lower under the backbone's own, which `default` has.
    """
    if asked != AUTO:
        return asked
    return RELEASED if spec.published and RELEASED in spec.variants else VARIANTS[0]


def published_run(parsed: Parsed, family: str, device: str, problems: list[Problem]) -> RunConfig | None:
    """The config that a weights file is built with: the preset of its method under the words, whatever they train.

    None where something is wrong, which becomes a problem.
    """
    words: EvaluateWords | PredictWords = parsed.words
    try:
        chosen = registry().choose(str(words.method))
        problems.extend(unknown_names(words.ablation, [chosen.spec]))
        run = resolve_run(
            chosen,
            replace(words, variant=variant_of(words.variant, chosen.spec)),
            family=family,
            dataset=words.data.name,
            labels=words.labels or chosen.spec.labels[0],
            precision=precision_of(words, "bf16", device),
            options=parsed.options,
            knobs=parsed.knobs,
            seed=words.seed,
        )
        find(run.backbone, RANDOM)
    except BadInput as e:
        problems.extend(p for p in e.problems if p not in problems)
        return None
    return run


def plan_published(parsed: Parsed, store: Store) -> Published:
    """What `weights=` asks for. Raises BadInput with every problem of words, data and file at once."""
    words: EvaluateWords = parsed.words
    problems: list[Problem] = []
    path = Path(str(words.weights)).expanduser()
    state: dict[str, Tensor] = {}
    dataset = None
    split, ids = "", tuple[str, ...]()
    try:
        state = dict(read_weights(path).state)
    except BadInput as e:
        problems.extend(e.problems)
    try:
        data = words.data
        dataset = open_dataset(
            data.name, root=data.root, masks=data.masks, classes=data.classes, options=parsed.options
        )
        split, ids = scored_ids(dataset, words.split, problems)
        dataset.check(ids)
    except BadInput as e:
        problems.extend(e.problems)
    device = device_of(words, problems)
    run = published_run(parsed, dataset.family if dataset else "voc", device, problems)
    if run is None or dataset is None or problems:
        raise BadInput(problems)
    made = run.chosen.targets
    target = Target(words.target or made[-1], "student", words.crf)
    if target.name not in made:
        raise BadInput(Problem("target", f"{run.method} makes no {target.name}", f"it makes: {', '.join(made)}"))
    maps = target.name in MAPS
    if maps and target.crf != "none":
        raise BadInput(Problem("crf", "is for segmenters", "target=segmentation, or leave crf out"))
    asked = "fixed" if words.protocol == AUTO else words.protocol
    rule = asked if maps and dataset.has_background else NO_RULE
    if rule == "held-out":
        raise BadInput(Problem("protocol", "nothing is tuned here", "protocol=fixed or protocol=oracle"))
    protocol = rule if rule != NO_RULE else "fixed"
    identity = {"published": file_digest(path), "run": run.identity(), "name": words.name, "protocol": protocol}
    row = _row(words, run, path, digest_of(_without_scoring(identity)), dataset, split, ids, protocol)
    job = ScoringJob(
        run=run,
        key=str(row["key"]),
        columns=eval_columns(str(row["key"]), run, target, split, rule, run.inference),
        target=target,
        how=run.inference,
        dataset=dataset,
        split=split,
        ids=ids,
        threshold=run.cam_threshold if rule == "fixed" else None,
        protocol=protocol,
        threads=threads_of(words),
        device=device,
    )
    return Published(job, state, row)


def _without_scoring(identity: dict[str, Any]) -> dict[str, Any]:
    """Without the words of scoring: one file is one row, however often it is scored."""
    scoring = INFERENCE_FIELDS | {"precision"}
    return {**identity, "run": {k: v for k, v in identity["run"].items() if k not in scoring}}


def _row(
    words: EvaluateWords,
    run: RunConfig,
    path: Path,
    key: str,
    dataset: Any,
    split: str,
    ids: tuple[str, ...],
    protocol: str,
) -> dict[str, Any]:
    described = {
        "class_names": list(dataset.class_names),
        "has_background": dataset.has_background,
        "published": {"file": path.name, "method": run.method, "split": split},
    }
    return run_row(
        "done",
        key=key,
        method=words.name or f"{run.method}-published",
        variant=run.variant,
        dataset=dataset.name,
        split_fingerprints=json.dumps({"report": dataset.fingerprint(ids)}),
        supervision=run.labels,
        backbone=run.backbone,
        decoder=run.decoder,
        pretraining=Pretraining(path.name).stored(),
        tier=run.tier,
        iterations=None,  # nobody here knows for how long it was trained
        seed=run.seed,
        protocol=protocol,
        config=run.stored(described),
        versions=json.dumps(versions(run.chosen.spec, run.chosen.base)),
        threads=threads_of(words),
        precision=run.precision,
        seconds=json.dumps({"score": 0.0}),
    )
