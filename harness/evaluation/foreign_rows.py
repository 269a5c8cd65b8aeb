"""The row that another program's results stand for in the leaderboard, and its one eval."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.api.dataset import Dataset
from harness.api.registry import registry
from harness.api.vocabulary import VARIANTS
from harness.cli.evaluate_words import AUTO, EvaluateWords
from harness.cli.parsing import Parsed
from harness.datasets import open_dataset
from harness.datasets.disk.foreign_files import MAPS, MASKS, find_files
from harness.datasets.splits import plan_splits
from harness.engine.inference.counting import Scored
from harness.engine.inference.evals import NO_RULE, Tables, add_eval, counts_at, thresholds_of
from harness.errors import BadInput, Problem
from harness.evaluation.foreign import USUAL_THRESHOLD, Counter, count
from harness.evaluation.job import scored_ids, threads_of
from harness.evaluation.record import counts_of, known_eval
from harness.files import digest_of
from harness.scoring.crf import NONE
from harness.scoring.curves import threshold_grid
from harness.store import Store
from harness.store.rows import run_row


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A folder of another program's masks or CAMs, its files found, not yet read."""

    dataset: Dataset
    split: str
    ids: tuple[str, ...]
    tune: tuple[str, ...]
    """Images that the threshold is chosen on; empty but for `held-out`."""
    counter: Counter
    columns: Mapping[str, Any]
    row: Mapping[str, Any]
    threads: int

    def score(self, store: Store) -> tuple[Tables, bool, list[Problem]]:
        """The one eval, whether it was in the store already, and warnings on the files.

        Raises BadInput with everything that is wrong with the files, and where the name stands for other results.
        """
        began = time.perf_counter()
        processes = None if self.threads > 1 else 0
        every = tuple(dict.fromkeys((*self.tune, *self.ids)))
        counted, warnings = count(self.counter, every, what="scoring", processes=processes)
        found = dict(zip(every, counted, strict=True))
        results = [found[i] for i in self.ids]
        rule = str(self.columns["threshold_rule"])
        curve, thresholds = thresholds_of(results, {rule: self._threshold(rule, found)})
        threshold = thresholds.get(rule)
        tables = Tables()
        add_eval(
            tables,
            self.columns,
            threshold,
            counts_at(results, threshold),
            self.ids,
            protocol=str(self.row["protocol"]),
            seconds=time.perf_counter() - began,
            curve=curve,
        )
        return tables, self._is_known(tables, store), warnings

    def _threshold(self, rule: str, found: Mapping[str, Scored]) -> float | None:
        if rule != "held-out":
            return USUAL_THRESHOLD if rule == "fixed" else None
        _, thresholds = thresholds_of([found[i] for i in self.tune], {rule: None})
        return thresholds[rule]

    def _is_known(self, tables: Tables, store: Store) -> bool:
        known = known_eval(store, self.columns)
        if known is None:
            return False
        order = ["image", "class"]
        new = pl.concat(tables.counts).drop("eval").sort(order)
        old = counts_of(store, known["eval"]).drop("eval").sort(order)
        if not new.equals(old.select(new.columns)):
            name = self.row["method"]
            found = f"{name} stands for other results on {self.split} already (eval {known['eval']})"
            fix = "give another name, or another seed= where it is the same method trained anew"
            raise BadInput(Problem("name", found, fix))
        tables.evals[0] = known
        return True


def plan_foreign(parsed: Parsed, store: Store, mode: str) -> Foreign:
    """What `preds=` or `cams=` asks for. Raises BadInput with every problem of words, data and file names at once."""
    words: EvaluateWords = parsed.words
    problems: list[Problem] = []
    name = str(words.name)
    if name.partition("+")[0] in registry().names():
        problems.append(
            Problem("name", f"{name} is a method of this harness", "name the row after whose results it is")
        )
    folder = Path(str(words.preds or words.cams)).expanduser()
    data = words.data
    try:
        dataset = open_dataset(
            data.name, root=data.root, masks=data.masks, classes=data.classes, options=parsed.options
        )
    except BadInput as e:
        raise BadInput(problems + e.problems) from None
    split, ids = scored_ids(dataset, words.split, problems)
    files: dict[str, Path] = {}
    tune: tuple[str, ...] = ()
    rule = NO_RULE
    try:
        files = find_files(folder, ids, MASKS if mode == "preds" else MAPS, mode, instead="; or choose another split=")
        if mode == "cams" and dataset.has_background:
            rule, tune, more = _rule(words, dataset, folder, split)
            files |= more
        dataset.check((*tune, *ids))
    except BadInput as e:
        problems.extend(e.problems)
    if problems:
        raise BadInput(problems)
    row = _row(parsed, dataset, ids, rule)
    target = words.target or ("segmentation" if mode == "preds" else "cam")
    columns = {
        "key": row["key"],
        "target": target,
        "weights": "student",
        "step": 0,
        "split": split,
        "tags": "none" if target == "segmentation" else "truth",
        "scales": "1",
        "flip": False,
        "fusion": "max",
        "crf": words.crf if mode == "preds" else NONE,
        "threshold_rule": rule,
    }
    grid = threshold_grid(USUAL_THRESHOLD) if mode == "cams" else None
    return Foreign(
        dataset=dataset,
        split=split,
        ids=ids,
        tune=tune,
        counter=Counter(dataset, files, grid, dataset.palette(ids) if grid is None else {}),
        columns=columns,
        row=row,
        threads=threads_of(words),
    )


def _rule(
    words: EvaluateWords, dataset: Dataset, folder: Path, split: str
) -> tuple[str, tuple[str, ...], dict[str, Path]]:
    """Threshold rule, tuning images and their files: held-out where the folder has these, else oracle."""
    if words.protocol not in (AUTO, "held-out"):
        return words.protocol, (), {}
    try:
        tune = plan_splits(dataset, words.data.tune, "held-out", report=split).tune
        return "held-out", tune, find_files(folder, tune, MAPS, "cams")
    except BadInput as e:
        if words.protocol == AUTO:
            return "oracle", (), {}
        fix = Problem("protocol", "held-out chooses the threshold on the tuning split", "protocol=oracle or fixed")
        raise BadInput([*e.problems, fix]) from e


def _row(parsed: Parsed, dataset: Dataset, ids: tuple[str, ...], rule: str) -> dict[str, Any]:
    words: EvaluateWords = parsed.words
    protocol = "fixed" if rule == NO_RULE else rule
    described = {
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "has_background": dataset.has_background,
        "foreign": True,
    }
    config = {
        "method": words.name,
        "dataset": words.data.name,
        "variant": VARIANTS[0] if words.variant == AUTO else words.variant,
        "labels": words.labels or "tags",
        "backbone": words.backbone.name or "",
        "decoder": words.decoder or "",
        "tier": words.tier or ("smoke" if words.data.name == "shapes" else "paper"),
        "seed": words.seed,
        "iterations": 0,
        "fidelity": 1.0,
        "precision": "",
        "protocol": protocol,
        "knobs": {},
        "options": dict(parsed.options),
    }
    return run_row(
        "done",
        key=digest_of({"foreign": config, "data": described}),
        method=config["method"],
        variant=config["variant"],
        dataset=dataset.name,
        split_fingerprints=json.dumps({"report": dataset.fingerprint(ids)}),
        supervision=config["labels"],
        backbone=config["backbone"],
        decoder=config["decoder"],
        tier=config["tier"],
        iterations=None,
        seed=config["seed"],
        protocol=protocol,
        config=json.dumps({**config, **described}, sort_keys=True),
        versions="{}",
        threads=threads_of(words),
        precision="",
        seconds=json.dumps({"score": 0.0}),
    )
