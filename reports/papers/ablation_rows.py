"""Which runs of a store are which row of a paper's ablation table: by their knobs, not by the name they ran under."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from harness.api.papers import Paper, PaperTable, TableColumn, TableRow
from harness.api.registry import registry
from harness.api.spec import MethodSpec
from harness.plan.knobs import plain
from harness.store import Results
from reports.papers.verdicts import changed_knobs
from reports.rows.data import from_json
from reports.rows.row import Filters, Row, Scored
from reports.rows.rows import rows_of
from reports.rows.studies import Runs, by_key, chosen_runs

SIZES = ("crop", "batch", "group", "fidelity")


@dataclass(frozen=True)
class Found:
    """One row of the table as it was run in one setting: where each column's evals are."""

    row: Row
    scored: Mapping[str, Scored] = field(default_factory=dict)
    """By the column's name."""


@dataclass(frozen=True)
class ComparableRuns:
    """Runs that differ in nothing but the table's row (and seeds): what may stand in one table."""

    head: Row
    pinned: Mapping[str, Any]
    """Knobs off the preset that no ablation touches."""
    rows: Mapping[str, Found]
    """By the table row's name."""
    sizes: tuple[str, ...] = ()
    """Crop and batch, in words."""
    started: str = ""
    """When the last of its runs began."""
    older: bool = False
    """Whether newer code ran rows in the same setting."""


def groups_of(
    results: Results, paper: Paper, table: PaperTable, filters: Filters, **wanted: str | None
) -> list[ComparableRuns]:
    """The settings in which rows of the table were run, the one with most rows first.

    `wanted`: fields of a leaderboard row (variant, protocol) that must have this value.
    """
    spec = registry().choose(paper.method).spec
    runs = by_key(chosen_runs(results, filters))
    evals = {r["eval"]: r for r in results.evals.to_dicts()}
    found: dict[tuple[str, str], list[tuple[Row, str]]] = {}
    pinned_of: dict[str, Mapping[str, Any]] = {}
    for row in rows_of(results, filters):
        if row.method != paper.method or any(v is not None and getattr(row, k) != v for k, v in wanted.items()):
            continue
        run = runs[_trial_0(results, row, runs)]
        name, pinned = row_of(spec, table, row, from_json(run["config"]))
        if name is None:
            continue
        where = _setting(row, run, pinned)
        pinned_of[where] = pinned
        # Rows that other versions of the code ran are not compared with each other.
        found.setdefault((where, str(runs[row.keys[0]]["versions"])), []).append((row, name))
    newest_first: dict[str, list[ComparableRuns]] = {}
    for (where, _), pairs in found.items():
        group = _group(table, pairs, pinned_of[where], evals, runs)
        if group.rows:
            newest_first.setdefault(where, []).append(group)
            newest_first[where].sort(key=lambda g: g.started, reverse=True)
    groups = [replace(g, older=i > 0) for same in newest_first.values() for i, g in enumerate(same)]
    return sorted(groups, key=lambda g: (g.older, -len(g.rows), str(g.head.dataset), g.head.study))


def row_of(
    spec: MethodSpec, table: PaperTable, row: Row, config: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """The table's row that a run is, and the knobs that the user pinned besides; no name where it is none of them."""
    if row.variant not in spec.variants:
        return None, {}
    changed = changed_knobs(config, row, registry().choose(row.method))
    touched = {knob for overrides in spec.ablations.values() for knob in overrides}
    ablated = {k: v for k, v in changed.items() if k in touched}
    pinned = {k: v for k, v in changed.items() if k not in touched}
    usual = {k: v for k, v in dict(config.get("knobs") or {}).items() if k not in changed}
    for line in table.rows:
        overrides = overrides_of(spec, line)
        if {k: v for k, v in overrides.items() if usual.get(k) != v} == ablated:
            return line.name, pinned
    return None, pinned


def overrides_of(spec: MethodSpec, line: TableRow) -> dict[str, Any]:
    """The knobs that a row of the table sets."""
    if line.ablation is None:
        return {}
    return {k: plain(v) for k, v in spec.ablations[line.ablation].items()}


def _trial_0(results: Results, row: Row, runs: Runs) -> str:
    """The run with the values that the study was planned with; its final where the table of trials has none."""
    first = results.trials.filter(
        pl.col("study") == row.study, pl.col("role") == "trial", pl.col("trial") == 0,
        pl.col("protocol") == row.protocol, pl.col("key").is_in(row.spent),
    )["key"]  # fmt: skip
    return max(first, key=lambda k: (str(runs[k]["started"]), k), default=row.keys[0])


def _setting(row: Row, run: Mapping[str, Any], pinned: Mapping[str, Any]) -> str:
    config = from_json(run["config"])
    return json.dumps(
        [row.dataset, row.split, *row.data.trained_on, row.data.report, row.supervision, row.backbone, row.decoder,
         row.tier, row.variant, row.protocol, row.trials, row.iterations, [config.get(n) for n in SIZES], pinned],
        sort_keys=True,
    )  # fmt: skip


def _group(
    table: PaperTable,
    pairs: list[tuple[Row, str]],
    pinned: Mapping[str, Any],
    evals: Mapping[str, Mapping[str, Any]],
    runs: Runs,
) -> ComparableRuns:
    rows: dict[str, Found] = {}
    for line in table.rows:
        mine = sorted((r for r, name in pairs if name == line.name), key=lambda r: (-len(r.seeds), r.study))
        scored: dict[str, Scored] = {}
        for column in table.columns:
            cells = [s for r in mine if (s := _scored(r, column, evals)) is not None]
            if cells:
                scored[column.name] = max(cells, key=lambda s: len(s.evals))
        if scored:
            rows[line.name] = Found(mine[0], scored)
    config = from_json(runs[pairs[0][0].keys[0]]["config"])
    sizes = tuple(f"{name} {config[name]}" for name in ("crop", "batch") if name in config)
    started = max(str(runs[key]["started"]) for row, _ in pairs for key in row.keys)
    return ComparableRuns(pairs[0][0], pinned, rows, sizes, started)


def _scored(row: Row, column: TableColumn, evals: Mapping[str, Mapping[str, Any]]) -> Scored | None:
    """The evals of a row that a column asks for: its target, rule, scales and flip, without CRF."""
    setting = row.setting(column.target, column.tags, column.rule)
    if setting is None:
        return None
    scored = row.scores[setting]
    how = evals[scored.evals[0]]
    scales = tuple(float(s) for s in (how["scales"] or "1").split(","))
    fits = (
        (how["crf"] or "none") == "none"
        and column.scales in (None, scales)
        and column.flip in (None, bool(how["flip"]))
    )
    return scored if fits else None
