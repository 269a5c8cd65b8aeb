"""From the store's tables to leaderboard rows: the evals of each study's finals, gathered by way of scoring."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from harness.api.vocabulary import TARGETS
from harness.store import Results, load
from harness.store.pretraining import pretraining_of
from harness.store.reading import StoreWarning, load_of
from reports.rows.apart import told_apart
from reports.rows.data import Data, data_of, from_json, pixels_unknown
from reports.rows.row import Filters, Row, Scored, ScoringOptions, Setting
from reports.rows.studies import Runs, StoredStudy, by_key, chosen_runs, hours, studies_of, untimed, widest

TABLES = ("runs", "trials", "evals", "counts")
"""The tables that rows are made of: what a report loads."""


def load_rows(store: str | Path, filters: Filters, *, trials: bool = False, further: Sequence[str] = ()) -> Results:
    """The tables that reports of these rows read, and `further` ones; of `counts` the evals of the rows alone, with
    `trials` also those of every trial of their studies. Raises StoreError as `harness.store.load`.

    A store of thousands of runs has gigabytes of counts, of which a leaderboard shows the finals.
    """
    results = load(store, ("runs", "trials", "evals", *further))
    rows = rows_of(results, filters)
    evals = [e for row in rows for scored in row.scores.values() for e in scored.evals]
    keys = [k for row in rows for k in row.keys]
    if trials:
        keys = list(dict.fromkeys([*keys, *(k for row in rows for k in row.spent)]))
        evals += results.evals.filter(pl.col("key").is_in(keys))["eval"].to_list()
    counts = load_of(store, ("counts",), keys=keys, evals=dict.fromkeys(evals)).counts
    if not set(evals) <= set(counts["eval"].unique()):
        # Lost, or in files that are called by neither run nor eval.
        counts = load(store, ("counts",), only={"counts": pl.col("eval").is_in(evals)}).counts
    return results.with_tables(counts=counts)


def rows_of(results: Results, filters: Filters) -> list[Row]:
    """Every row that the store holds under `filters`; a study seen by two sweeps is one row, its widest."""
    runs = by_key(chosen_runs(results, filters))
    studies = studies_of(results, runs, filters)
    wanted = {k for s in studies for k in s.finals}
    evals = results.evals.filter(pl.col("key").is_in(sorted(wanted)), pl.col("weights") == filters.weights)
    by_run = {str(k[0]): g for k, g in evals.partition_by("key", as_dict=True).items()}
    rows = [row for study in widest(studies) for row in _rows(study, runs, by_run, filters)]
    return told_apart(rows, lambda row: from_json(runs[row.keys[0]]["config"]))


def _rows(study: StoredStudy, runs: Runs, evals: Mapping[str, pl.DataFrame], filters: Filters) -> list[Row]:
    mine = [evals[k] for k in study.finals if k in evals]
    if not mine:
        return []
    table = _of_known_targets(pl.concat(mine))
    splits = set(table["split"])
    reported = from_json(runs[study.finals[0]]["config"]).get("split") or ("test" if "test" in splits else "val")
    split = filters.split or ("test" if "test" in splits else "val")
    table = table.filter(pl.col("split") == split)
    if table.is_empty():
        return []
    data = data_of(runs[study.finals[0]], reported=split == reported)
    found = (_row(study, runs, scoring, part, split, data, filters) for scoring, part in _scorings(table))
    return [row for row in found if row is not None]


def _of_known_targets(table: pl.DataFrame) -> pl.DataFrame:
    """The evals without those of targets that this version does not know, of which a warning is given."""
    known = pl.col("target").is_in(TARGETS).fill_null(False)
    for row in table.filter(~known).iter_rows(named=True):
        warnings.warn(f"eval {row['eval']} scores {row['target']!r}, no target of ours; left out", StoreWarning,
                      stacklevel=2)  # fmt: skip
    return table.filter(known)


def _scorings(table: pl.DataFrame) -> list[tuple[ScoringOptions, pl.DataFrame]]:
    """A part for each way of inference; targets that were each scored in one way stay together."""
    table = table.with_columns(
        pl.col("crf").replace("", "none").fill_null("none"),
        pl.col("flip").fill_null(False),
        pl.col("fusion").fill_null(""),
        pl.col("scales").fill_null("1"),
        pl.col("threshold_rule").replace("", "none").fill_null("none"),
        pl.col("tags").fill_null("none"),
    )
    options = ["scales", "flip", "fusion", "crf"]
    last = max(table["target"], key=lambda t: TARGETS.index(t) if t in TARGETS else -1)
    main, others = table.filter(pl.col("target") == last), table.filter(pl.col("target") != last)
    each = others.group_by("target", "tags", "threshold_rule").agg(pl.struct(options).n_unique())[options[0]].max()
    if others.height and each != 1:
        return [(ScoringOptions(*key), part) for key, part in sorted(table.partition_by(options, as_dict=True).items())]
    scorings = {ScoringOptions(*key): part for key, part in main.partition_by(options, as_dict=True).items()}
    # Maps are made in one way, whatever the segmenter's: they stand beside its plainest.
    order = sorted(scorings, key=lambda w: (w.crf != "none", w.scales.count(","), w.flip, w.scales, w.fusion, w.crf))
    return [(w, pl.concat([scorings[w], others]) if n == 0 else scorings[w]) for n, w in enumerate(order)]


def _row(
    study: StoredStudy,
    runs: Runs,
    scoring: ScoringOptions,
    part: pl.DataFrame,
    split: str,
    data: Data,
    filters: Filters,
) -> Row | None:
    seeds = {k: runs[k]["seed"] for k in study.finals}
    scores: dict[Setting, Scored] = {}
    for (target, tags, rule), group in part.partition_by("target", "tags", "threshold_rule", as_dict=True).items():
        latest = group.sort("step", "eval", nulls_last=False).unique("key", keep="last", maintain_order=True)
        by_key = {r["key"]: r for r in latest.to_dicts()}
        chosen = [by_key[k] for k in seeds if k in by_key]
        scores[Setting(str(target), str(tags), str(rule))] = Scored(
            tuple(r["eval"] for r in chosen),
            tuple(r["threshold"] for r in chosen if r["threshold"] is not None),
            int(chosen[0]["images"]),
            f"{runs[chosen[0]['key']]['method']} of {study.study}",
        )
    have = [k for k in seeds if k in set(part["key"])]
    if not have:
        return None
    run = runs[have[0]]
    config = from_json(run["config"])
    names = tuple(str(n) for n in config.get("class_names") or ())
    gpu, core = hours(runs[k] for k in study.spent)
    return Row(
        study=study.study,
        method=run["method"],
        variant=run["variant"],
        dataset=run["dataset"],
        supervision=run["supervision"],
        backbone=run["backbone"],
        decoder=run["decoder"] or "",
        tier=run["tier"],
        protocol=study.protocol,
        weights=filters.weights,
        split=split,
        iterations=tuple(sorted({runs[k]["iterations"] for k in have if runs[k]["iterations"] is not None})),
        trials=study.trials,
        seeds=tuple(seeds[k] for k in have),
        keys=tuple(have),
        inference=scoring,
        gpu_hours=gpu,
        core_hours=core,
        scores=scores,
        retried=any(runs[k]["error_class"] for k in have),
        pixels_unknown=any(pixels_unknown(runs[k]) for k in have),
        untimed=sum(untimed(runs[k]) for k in study.spent),
        class_names=names,
        has_background=bool(config.get("has_background", not names or names[0] == "background")),
        ablation=str(config.get("ablation") or ""),
        family=str(config.get("family") or ""),
        foreign=bool({"foreign", "published"} & set(config)),
        data=data,
        pretraining=pretraining_of(run["pretraining"]),
        spent=study.spent,
    )
