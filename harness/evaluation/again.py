"""`run=<key>`: a finished run scored again in another way, with the weights that it left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.api.dataset import Dataset
from harness.api.inference import inference_of
from harness.api.method import Method
from harness.api.recipe import Recipe, Train, weights_kind
from harness.cli.evaluate_words import AUTO, BEST, EvaluateWords
from harness.cli.parsing import Parsed
from harness.datasets import open_dataset
from harness.datasets.splits import plan_splits
from harness.engine.checkpoint import BEST as BEST_FILE
from harness.engine.checkpoint import best_meta, load_weights
from harness.engine.inference.counting import Target
from harness.engine.inference.evals import NO_RULE, Tables, eval_columns
from harness.engine.inference.predictions import MAPS
from harness.errors import BadInput, Problem, StoreError
from harness.evaluation.finished import find_run
from harness.evaluation.job import ScoringJob, device_of, precision_of, score, scored_ids, threads_of
from harness.files import file_digest
from harness.plan.build import build_network
from harness.plan.config import RunConfig
from harness.plan.pretrained import RANDOM
from harness.plan.recipes import recipe_of, run_of
from harness.store import Results, Store, load
from harness.store.rows import json_object, json_of


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
        stage = recipe_of(self.run).maker(name)
        assert isinstance(stage, Train)
        earlier = {n: self.trained(n) for n in stage.networks}
        method = build_network(self.run, stage, self.job.dataset, RANDOM, earlier)
        try:
            load_weights(self.weights[name], method)
        except RuntimeError as e:
            found = (
                f"{self.weights[name].name} does not fit {self.job.run.method} as it is now: {str(e).splitlines()[0]}"
            )
            raise BadInput(Problem("run", found, "check out the commit that the table runs names")) from e
        return method.eval()


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
    weights = {} if network is None else _weights(results, row["key"], store, recipe, network, problems)
    best: dict[str, Any] = {}
    if words.weights == BEST and network in weights:
        path, best = _best(weights[network].with_name(BEST_FILE), problems)
        weights |= {} if path is None else {network: path}
    opened = _open(words, run, row, store, problems)
    device = device_of(words, problems)
    if opened is None or network is None or network not in weights or problems:
        raise BadInput(problems)
    dataset, split, ids = opened
    maps = target.name in MAPS and dataset.has_background
    asked = str(row["protocol"]) if words.protocol == AUTO else words.protocol
    rule = asked if maps else NO_RULE
    columns = eval_columns(row["key"], run, target, split, rule, how) | best
    threshold = {"fixed": run.cam_threshold, "held-out": _held_out(results, columns)}.get(rule)
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


def _weights(
    results: Results, key: str, store: Store, recipe: Recipe, network: str, problems: list[Problem]
) -> dict[str, Path]:
    """The files of a network and of those that it was built beside; what is missing becomes a problem."""
    stage = recipe.maker(network)
    assert isinstance(stage, Train)
    out: dict[str, Path] = {}
    for earlier in stage.networks:
        out |= _weights(results, key, store, recipe, earlier, problems)
    kind = weights_kind(network)
    rows = results.artifacts.filter((pl.col("key") == key) & (pl.col("kind") == kind))
    path = store.root / rows["path"][0] if rows.height else None
    if path is not None and path.is_file() and file_digest(path) == rows["digest"][0]:
        return {**out, network: path}
    if path is None:
        found = "left no weights (keep=none)"
    elif path.is_file():
        found = f"its weights are damaged: {path}"
    else:
        found = f"its weights are gone from {path} (gc, or moved)"
    problems.append(Problem("run", f"{key} {found}", "train it again with keep=last: harness.train retrains the rest"))
    return out


def _best(path: Path, problems: list[Problem]) -> tuple[Path | None, dict[str, Any]]:
    """The student's weights of the run's best rung, and what they change in the columns of an eval."""
    meta = best_meta(path)
    if meta is None:
        rule = "a run has it where it was compared on the way (search=tpe, 4 trials or more)"
        found = f"{path} is damaged" if path.is_file() else f"best is not there: {rule}"
        problems.append(Problem("weights", found, "weights=student scores the final ones"))
        return None, {}
    return path, {"weights": BEST, "step": int(meta["step"])}


def _open(
    words: EvaluateWords, run: RunConfig, row: Mapping[str, Any], store: Store, problems: list[Problem]
) -> tuple[Dataset, str, tuple[str, ...]] | None:
    """The run's dataset, found where the words say or where its sweep had it, with equal classes and labels."""
    given = _given(store, str(row["sweep"]), run.dataset)
    options = {k: v for k, v in run.options.items() if k != "tune"}
    try:
        dataset = open_dataset(
            run.dataset,
            root=words.data.root or given.get("data.root"),
            masks=run.masks,
            classes=words.data.classes or given.get("data.classes"),
            options=options,
        )
        splits = plan_splits(dataset, run.options.get("tune", "auto"), str(row["protocol"]), report=run.split)
        split, ids = scored_ids(dataset, words.split or splits.report_name, problems)
        dataset.check(ids)
    except BadInput as e:
        problems.extend(e.problems)
        return None
    known = json_of(row, "config").get("class_names")
    if known and list(dataset.class_names) != known:
        names = ", ".join(dataset.class_names[:5])
        problems.append(Problem("data", f"has classes {names}, ..., not those of the run", "name the run's own data"))
    before = json_of(row, "split_fingerprints").get("report")
    if split == splits.report_name and before and dataset.fingerprint(splits.report) != before:
        found = f"{split} of {dataset.name} is not what the run was reported on: images or labels differ"
        problems.append(Problem("data", found, "data.root=<the folder that it was trained on>"))
    return dataset, split, ids


def _given(store: Store, sweep: str, dataset: str) -> Mapping[str, str]:
    """The words of the sweep that made a run, for where its data lies; empty where nobody knows."""
    try:
        outline = json_object((store.root / "sweeps" / f"{sweep}.json").read_text(), f"the plan of sweep {sweep}")
    except (OSError, ValueError, StoreError):
        return {}
    rows = outline.get("words", [])
    for given in rows if isinstance(rows, list) else [rows]:
        if isinstance(given, dict) and given.get("data", given.get("data.name", "shapes")) == dataset:
            return given
    return {}


def _held_out(results: Results, columns: Mapping[str, Any]) -> float | None:
    """The threshold that the run chose for this target on its tuning split."""
    same = [pl.col(name) == columns[name] for name in ("key", "target", "weights")]
    rows = results.evals.filter(*same, pl.col("threshold_rule") == "held-out")
    return None if rows.is_empty() else float(rows["threshold"][0])
