"""`run=<key>`: a finished run scored again in another way, with the weights that it left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api.dataset import Dataset
from harness.api.inference import inference_of
from harness.api.method import Method
from harness.cli.evaluate_words import AUTO, BEST, EvaluateWords
from harness.cli.parsing import Parsed
from harness.engine.inference.counting import Target
from harness.engine.inference.evals import NO_RULE, Tables, eval_columns
from harness.engine.inference.predictions import MAPS
from harness.errors import BadInput, Problem
from harness.evaluation.data_of import check_same, open_data
from harness.evaluation.finished import find_run
from harness.evaluation.job import ScoringJob, device_of, precision_of, score, scored_ids, threads_of
from harness.evaluation.trained import best_of, held_out, load_network, weights_of
from harness.plan.config import RunConfig
from harness.plan.recipes import recipe_of, run_of
from harness.store import Store, load
from harness.store.rows import json_of


@dataclass(frozen=True)
class Again:
    """A run that is scored again: what is scored, by which of its networks, and the files of weights."""

    job: ScoringJob
    run: RunConfig
    network: str
    weights: Mapping[str, Path]
    """Of the network and of those that it was built beside."""

    def score(self, store: Store) -> Tables:
        """The one eval. Raises BadInput where the weights do not fit the code of today."""
        return score(self.job, self.trained(self.network))

    def trained(self, name: str) -> Method:
        """A network of the run with its weights. Raises BadInput where they do not fit the code of today."""
        return load_network(self.run, name, self.weights, self.job.dataset)


def plan_again(parsed: Parsed, store: Store) -> Again:
    """What `run=` asks for. Raises BadInput with every problem of words, run, weights and data at once."""
    words: EvaluateWords = parsed.words
    results = load(store.root, ["runs", "evals", "artifacts"])
    row = find_run(results, str(words.run))
    config = json_of(row, "config")
    if {"foreign", "published"} & set(config):
        fix = "score its files again with preds= or cams=, or the weights file with weights="
        raise BadInput(Problem("run", f"{row['key']} is {row['method']}, which was not trained here", fix))
    run = RunConfig.from_stored(row["config"])
    problems: list[Problem] = []
    target = _target(words, run, problems)
    how = inference_of(words.scales, words.flip, words.fusion, run.inference)
    if target.name in MAPS:
        for name in ("scales", "flip", "fusion", "crf"):
            if name in parsed.given:
                fix = "target=segmentation, or train with other cam_scales"
                problems.append(Problem(name, f"is for segmenters; CAM scales are a knob of {run.method}", fix))
    elif "crf" not in parsed.given:
        target = dataclasses.replace(target, crf=run.crf)
    recipe = recipe_of(run)
    network = recipe.network_of(target.name) if target.name in recipe.targets else None
    if network is None and target.name in recipe.targets:
        problems.append(Problem("target", f"no network predicts {target.name} of {run.method}: a stage writes it",
                                "train again: a run scores what its stages wrote"))  # fmt: skip
    weights = {} if network is None else weights_of(results, row["key"], store, recipe, network, problems)
    best: dict[str, Any] = {}
    if words.weights == BEST and network in weights:
        path, meta = best_of(weights[network], problems)
        weights |= {} if path is None else {network: path}
        best = {} if path is None else {"weights": BEST, "step": int(meta["step"])}
    opened = scored_data(words, run, row, store, problems)
    device = device_of(words, problems)
    if opened is None or network is None or network not in weights or problems:
        raise BadInput(problems)
    dataset, split, ids = opened
    maps = target.name in MAPS and dataset.has_background
    asked = str(row["protocol"]) if words.protocol == AUTO else words.protocol
    rule = asked if maps else NO_RULE
    columns = eval_columns(row["key"], run, target, split, rule, how) | best
    threshold = {
        "fixed": run.cam_threshold,
        "held-out": held_out(results, columns["key"], columns["target"], columns["weights"]),
    }.get(rule)
    if rule == "held-out" and threshold is None:
        fix = "protocol=fixed or protocol=oracle"
        raise BadInput(Problem("protocol", "the run has no threshold that was chosen on a held-out split", fix))
    precision = precision_of(words, run.precision, device)
    job = ScoringJob(
        run=dataclasses.replace(run_of(run, recipe.maker(network)), precision=precision),
        key=row["key"],
        columns=columns,
        target=target,
        how=how,
        dataset=dataset,
        split=split,
        ids=ids,
        threshold=threshold,
        protocol=str(row["protocol"]),
        threads=threads_of(words),
        device=device,
    )
    return Again(job, run, network, weights)


def _target(words: EvaluateWords, run: RunConfig, problems: list[Problem]) -> Target:
    made = recipe_of(run).targets
    name = words.target or made[-1]
    if name not in made:
        problems.append(Problem("target", f"{run.method} makes no {name}", f"it makes: {', '.join(made)}"))
    return Target(name, "teacher" if words.weights == "teacher" else "student", words.crf)


def scored_data(
    words: EvaluateWords, run: RunConfig, row: Mapping[str, Any], store: Store, problems: list[Problem]
) -> tuple[Dataset, str, tuple[str, ...]] | None:
    """The run's dataset and the split that is scored, as it was where the run was reported on it."""
    opened = open_data(run, row, store, words.data.root, words.data.classes, problems)
    if opened is None:
        return None
    dataset, splits = opened
    split, ids = scored_ids(dataset, words.split or splits.report_name, problems)
    try:
        dataset.check(ids)
    except BadInput as e:
        problems.extend(e.problems)
        return None
    if split == splits.report_name:
        check_same(row, "report", split, dataset, splits.report, problems)
    return dataset, split, ids
