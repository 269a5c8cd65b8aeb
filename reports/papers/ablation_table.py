"""The table behind `reports.ablations`: printed numbers, ours in every setting, and how far rows are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from harness.api.papers import Paper, PaperTable, TableColumn
from harness.store import Results
from reports.format.table import Cell, Column, Score, Section, Signed, Table
from reports.papers.ablation_rows import ComparableRuns, Found, groups_of
from reports.papers.claims import Claim, load_claims
from reports.papers.verdicts import BACKBONES, remarks_of
from reports.rows.ranking import resampled
from reports.rows.row import Filters

SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("paper", "table", "row", "column", "dataset", "split", "tier", "variant", "protocol", "backbone"),
                    pl.Utf8()),
    "iterations": pl.Int64(),
    **dict.fromkeys(("claim", "ours", "low", "high", "difference"), pl.Float64()),
    "seeds": pl.Int64(), "study": pl.Utf8(),
}  # fmt: skip
"""One row per setting, table row and column; claim, ours, low, high in percent, null where there is none."""


@dataclass(frozen=True)
class Line:
    """A printed number and, where it was run, ours."""

    claim: Claim | None
    score: Score | None
    found: Found | None
    seeds: int

    @property
    def difference(self) -> float | None:
        """Ours minus the printed number, points."""
        return self.score.value - self.claim.value if self.score and self.claim else None


@dataclass(frozen=True)
class Shown:
    """One setting of a table: lines by row and column."""

    group: ComparableRuns | None
    lines: Mapping[tuple[str, str], Line]


def build(results: Results, paper: Paper, table: PaperTable, filters: Filters, rows: Sequence[str] = (),
          **wanted: str | None) -> tuple[Table, list[Shown]]:  # fmt: skip
    """The table with a section per setting, and the numbers behind it. `rows`: names to show, none for all."""
    claims = {(c.row, c.column): c for c in load_claims(paper.name) if c.table == table.table}
    names = [r.name for r in table.rows if not rows or r.name in rows]
    groups: list[ComparableRuns | None] = [*groups_of(results, paper, table, filters, **wanted)] or [None]
    shown: list[Shown] = []
    sections = []
    for group in groups:
        one, gains = _shown(results, table, group, names, claims)
        shown.append(one)
        sections.append(_section(paper, table, one, names, [*_other_setting(group, claims), *gains]))
    sources = tuple(dict.fromkeys(c.source for c in claims.values()))
    remarks = remarks_of([c for (row, _), c in claims.items() if row in names])
    notes = (*table.notes, *remarks, *([f"printed numbers: {'; '.join(sources)}"] if sources else []))
    return Table(f"{paper.title}, table {table.table}: {table.title}; mIoU in %", tuple(sections), notes), shown


def frame(table: PaperTable, paper: Paper, shown: Sequence[Shown]) -> pl.DataFrame:
    """One row per setting and number, columns as SCHEMA."""
    return pl.DataFrame(
        [_flat(paper, table, one, key, line) for one in shown for key, line in one.lines.items()],
        schema=SCHEMA,
        orient="row",
    )


def _shown(
    results: Results,
    table: PaperTable,
    group: ComparableRuns | None,
    names: Sequence[str],
    claims: Mapping[tuple[str, str], Claim],
) -> tuple[Shown, list[str]]:
    """The numbers of one setting, and in words how far its rows are from the baseline row, paired."""
    lines: dict[tuple[str, str], Line] = {}
    gains: list[str] = []
    for column in table.columns:
        cells = {n: group.rows[n] for n in names if n in group.rows} if group else {}
        found = {n: f for n, f in cells.items() if column.name in f.scored}
        scores, gaps = _scores(results, table, column, found)
        for name, gap in gaps.items():
            text = f"{Signed(gap.value)} [{Signed(gap.low)}, {Signed(gap.high)}]"
            printed = _printed_gap(claims, table, column, name)
            gains.append(f"{column.title} {name} − {table.baseline}: {text}{printed}")
        for name in names:
            mine = found.get(name)
            seeds = len(mine.scored[column.name].evals) if mine else 0
            lines[name, column.name] = Line(claims.get((name, column.name)), scores.get(name), mine, seeds)
    return Shown(group, lines), gains


def _scores(
    results: Results, table: PaperTable, column: TableColumn, found: Mapping[str, Found]
) -> tuple[dict[str, Score], dict[str, Score]]:
    """The score of each row, and its paired distance from the baseline row where that was run, in points."""
    if not found:
        return {}, {}
    drawn = resampled([f.scored[column.name] for f in found.values()], results.counts_by_eval)
    names = list(found)
    scores = {n: drawn.interval(i) for i, n in enumerate(names)}
    gaps = {}
    if table.baseline is not None and table.baseline in found:
        base = names.index(table.baseline)
        gaps = {n: drawn.difference(i, base) for i, n in enumerate(names) if i != base}
    return (
        {n: Score(100 * s.value, 100 * s.low, 100 * s.high) for n, s in scores.items()},
        {n: Score(100 * g.value, 100 * g.low, 100 * g.high) for n, g in gaps.items()},
    )


def _other_setting(group: ComparableRuns | None, claims: Mapping[tuple[str, str], Claim]) -> list[str]:
    """Says so where the printed numbers are of other data or another network than ours."""
    printed = {(c.dataset, c.backbone) for c in claims.values()}
    if group is None or len(printed) != 1:
        return []
    dataset, backbone = printed.pop()
    if (group.head.dataset, group.head.backbone) == (dataset, BACKBONES.get(backbone or "", backbone)):
        return []
    return [f"printed on {dataset} with {backbone}: diff. is between different settings"]


def _printed_gap(claims: Mapping[tuple[str, str], Claim], table: PaperTable, column: TableColumn, name: str) -> str:
    row, base = claims.get((name, column.name)), claims.get((table.baseline or "", column.name))
    return f" (printed {Signed(row.value - base.value)})" if row and base else ""


def _section(paper: Paper, table: PaperTable, one: Shown, names: Sequence[str], gains: Sequence[str]) -> Section:
    columns = [Column("row", "row"), *(Column(_id(h), h) for h in table.heads)]
    for column in table.columns:
        name = _id(column.name)
        columns += [
            Column(f"{name}_printed", column.title, "printed", right=True),
            Column(f"{name}_ours", column.title, "ours", right=True),
            Column(f"{name}_difference", "diff.", right=True),
            Column(f"{name}_seeds", "seeds", right=True),
        ]
    rows = []
    for row in (r for r in table.rows if r.name in names):
        cells: dict[str, Cell] = {"row": row.name, **{_id(h): row.cells.get(h, "") for h in table.heads}}
        for column in table.columns:
            cells.update(_cells(_id(column.name), one.lines[row.name, column.name]))
        rows.append(cells)
    if one.group is None:
        heading = f"{paper.name} · table {table.table} · not run in this store"
        return Section(heading, tuple(columns), tuple(rows), {"paper": paper.name, "table": table.table})
    head = one.group.head
    heading = (f"{paper.name} · table {table.table} · ours on {head.dataset} {head.split} · variant {head.variant} · "
               f"tier {head.tier} · protocol {head.protocol}")  # fmt: skip
    facts = {"paper": paper.name, "table": table.table, "dataset": head.dataset, "split": head.split,
             "variant": head.variant, "tier": head.tier, "protocol": head.protocol, "backbone": head.backbone,
             "iterations": _iterations(one.group)}  # fmt: skip
    pinned = [f"{k}={v}" for k, v in one.group.pinned.items()]
    parts = [head.backbone, head.decoder, f"{_iterations(one.group)} iterations", *one.group.sizes, *pinned,
             "older versions of the code" if one.group.older else ""]  # fmt: skip
    return Section(heading, tuple(columns), tuple(rows), facts, ", ".join(p for p in parts if p), tuple(gains))


def _cells(name: str, line: Line) -> dict[str, Cell]:
    printed = None
    if line.claim is not None:
        spread = "" if line.claim.spread is None else f" ± {line.claim.spread:g}"
        printed = f"{line.claim.value:.1f}{spread}"
    return {
        f"{name}_printed": printed,
        f"{name}_ours": line.score,
        f"{name}_difference": None if line.difference is None else Signed(line.difference),
        f"{name}_seeds": line.seeds or None,
    }


def _flat(paper: Paper, table: PaperTable, one: Shown, key: tuple[str, str], line: Line) -> dict[str, object]:
    head, score = one.group.head if one.group else None, line.score
    return {
        "paper": paper.name, "table": table.table, "row": key[0], "column": key[1],
        **{name: getattr(head, name) if head else None
           for name in ("dataset", "split", "tier", "variant", "protocol", "backbone")},
        "iterations": max(head.iterations, default=None) if head else None,
        "claim": line.claim.value if line.claim else None, "ours": score.value if score else None,
        "low": score.low if score else None, "high": score.high if score else None, "difference": line.difference,
        "seeds": line.seeds, "study": line.found.row.study if line.found else None,
    }  # fmt: skip


def _iterations(group: ComparableRuns) -> str:
    return "-".join(str(i) for i in group.head.iterations)


def _id(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")
