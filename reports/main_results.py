"""`python -m reports.main_results`: a paper's main tables with what the harness measured beside each claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from harness.api.vocabulary import TARGETS
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.errors import EXIT_DONE, BadInput, Problem, nearest
from harness.store import load
from reports.format.output import ALL_FORMATS, NETWORKS, OUT_TEXT, STORE_TEXT, WEIGHTS_TEXT, deliver, output_problems
from reports.format.render import FORMATS
from reports.format.table import Cell, Column, Same, Section, Signed, Table
from reports.papers.claims import Claim, declared_papers, load_claims, papers
from reports.papers.reproducing import how, plans_of
from reports.papers.verdicts import SEEDS, TOLERANCE, WIDEST, Judge, Judged, remarks_of
from reports.rows.rows import TABLES

ABOUT = """Prints a paper's main tables, row by row as printed, with a column of ours: value, interval over seeds,
seeds, protocol, difference and verdict. Only rows with protocol fixed are read."""
SUPERVISION = {"tags": "I", "tags+saliency": "I+S"}
MOST_ACROSS = 4
"""Printed columns that stand side by side; of a table with more, each number is a line."""
NOTES = (
    f"ours: mean over seeds with its 95 % t-interval; verdict from {SEEDS} seeds on: reproduced where the interval "
    f"meets the claim ± {TOLERANCE}, above or below where it does not, too uncertain with a half-width above {WIDEST}",
    "not comparable: ours differs from the claim in what stands beside it",
)
SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("paper", "table", "group", "row", "column", "dataset", "split", "target", "backbone",
                     "supervision"), pl.Utf8()),
    **dict.fromkeys(("claim", "ours", "low", "high", "difference"), pl.Float64()),
    "seeds": pl.Int64(),
    **dict.fromkeys(("verdict", "why", "protocol", "variant", "study", "source"), pl.Utf8()),
}  # fmt: skip
"""One row per claim; claim, ours, low, high in percent, ours null where nothing was run."""


@dataclass
class MainWords:
    """The words of `reports.main_results`."""

    paper: str | None = word(None, f"whose tables; one of {', '.join(papers())}")
    table: str | None = word(None, "one table of the paper; default all that hold scores of ours")
    store: str = word("results", STORE_TEXT)
    how: bool = word(
        False, "instead of the tables, what would reproduce them: plans, FLOPs, hours, disk, what is missing"
    )
    tflops: float = word(50.0, "TFLOP/s that the machine sustains, for the hours of how=true")
    root: str | None = word(None, "where the paper's dataset lies, for how=true; default where it is looked for")
    format: str = word(
        "terminal", f"{', '.join(FORMATS)}; arrow and parquet write a row per claim", choices=ALL_FORMATS
    )
    out: str | None = word(None, OUT_TEXT)
    weights: str = word("student", WEIGHTS_TEXT, choices=NETWORKS)


def build(judge: Judge, paper: str, table: str | None = None) -> tuple[Table, list[Judged]]:
    """The paper's main tables and the judged claims behind them. Raises BadInput for an unknown paper or table."""
    claims = load_claims(paper)
    ablations = {(p.name, t.table) for p in declared_papers() for t in p.tables}
    tables = [t for t in dict.fromkeys(c.table for c in claims) if (paper, t) not in ablations]
    if table is not None and table not in tables:
        raise BadInput(Problem("table", f"{paper} has no main table {table!r}", nearest(table, tables)))
    # Logs by iteration, class or loss have no score of ours to stand beside: they are shown where they are asked for.
    scored = [t for t in tables if any(c.target in TARGETS for c in claims if c.table == t)]
    shown = [table] if table is not None else scored
    judged = [judge.judge(c) for c in claims if c.table in shown]
    sections = tuple(_section(paper, t, [j for j in judged if j.claim.table == t]) for t in shown)
    return Table(f"Main results of {paper}: mIoU in %, as printed and ours", sections, NOTES), judged


def listing() -> str:
    """What there is: papers with their tables and numbers, and the plans that reproduce them."""
    lines = ["papers with printed numbers, and the plans that run theirs:"]
    for paper in papers():
        claims = load_claims(paper)
        tables = ", ".join(dict.fromkeys(c.table for c in claims if c.target in TARGETS))
        own = ", ".join(plans_of(paper))
        lines.append(f"  {paper}: {len(claims)} numbers in {tables}" + (f"; plans {own}" if own else ""))
    lines.append("show one with paper=fsr, and what would reproduce it with how=true")
    return "\n".join(lines)


def frame(judged: Sequence[Judged]) -> pl.DataFrame:
    """One row per claim, columns as SCHEMA."""
    return pl.DataFrame([_flat(j) for j in judged], schema=SCHEMA, orient="row")


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("reports.main_results", MainWords, ABOUT))
        return EXIT_DONE
    parsed = parse(argv, MainWords, collect=True)
    words = parsed.words
    problems = [*parsed.problems, *output_problems(words, store_exists=words.paper is not None and not words.how)]
    if not words.tflops > 0:
        problems.append(Problem("tflops", f"{words.tflops:g}", "give a number above 0"))
    if words.paper is None and not problems:
        print(listing())
        return EXIT_DONE
    if words.paper is not None and words.paper not in papers():
        fix = nearest(words.paper, papers())
        problems.append(Problem("paper", f"{words.paper!r} has no printed numbers here", fix))
    if problems:
        raise BadInput(problems)
    if words.how:
        print(how(words.paper, tflops=words.tflops, store=words.store, root=words.root))
        return EXIT_DONE
    table, judged = build(Judge(load(words.store, TABLES), words.weights), words.paper, words.table)
    deliver(words, table, lambda: frame(judged))
    return EXIT_DONE


def _section(paper: str, table: str, judged: Sequence[Judged]) -> Section:
    columns = list(dict.fromkeys(j.claim.column for j in judged))
    by_row: dict[str, dict[str, Judged]] = {}
    for j in judged:
        by_row.setdefault(j.claim.row, {})[j.claim.column] = j
    # A column in which nothing was run has no columns of ours, but for the first.
    ours = [c for i, c in enumerate(columns) if i == 0 or any(j.row for j in judged if j.claim.column == c)]
    several = len(ours) > 1
    facts = {c: next(j.claim for j in judged if j.claim.column == c) for c in columns}
    if len(columns) > MOST_ACROSS:
        shown = [*_heads(judged), Column("column", "column"), Column("printed", "printed", right=True),
                 *_ours_columns("", None, False)]  # fmt: skip
        lines = _number_by_number(judged)
    else:
        shown = [
            *_heads(judged),
            *(Column(f"printed_{_id(c)}", c, right=True) for c in columns),
            *(head for c in ours for head in _ours_columns(c, facts[c], several)),
        ]
        lines = _row_by_row(by_row)
    wanted = {c.id for c in shown}
    lines = [{k: v for k, v in line.items() if k in wanted} for line in lines]
    datasets = ", ".join(dict.fromkeys(j.claim.dataset for j in judged))
    sources = "; ".join(dict.fromkeys(j.claim.source for j in judged))
    heading = f"{paper} · table {table} · {datasets}"
    facts_of_all = {"paper": paper, "table": table}
    return Section(
        heading,
        tuple(shown),
        tuple(lines),
        facts_of_all,
        f"printed numbers: {sources}",
        remarks_of([j.claim for j in judged]),
    )


def _row_by_row(by_row: Mapping[str, Mapping[str, Judged]]) -> list[dict[str, Cell]]:
    """A line for each printed row, its numbers side by side."""
    lines = []
    before = ""
    for cells in by_row.values():
        claim = next(iter(cells.values())).claim
        line = _head_cells(claim, before)
        before = claim.group
        for c, j in cells.items():
            line[f"printed_{_id(c)}"] = _printed(j.claim)
            line.update(_ours(j, f"_{_id(c)}"))
        lines.append(line)
    return lines


def _number_by_number(judged: Sequence[Judged]) -> list[dict[str, Cell]]:
    """A line for each printed number."""
    lines = []
    before: Claim | None = None
    for j in judged:
        line = _head_cells(j.claim, before.group if before else "")
        if before is not None and before.row == j.claim.row:
            line["row"] = Same(j.claim.row)
        before = j.claim
        lines.append({**line, "column": j.claim.column, "printed": _printed(j.claim), **_ours(j)})
    return lines


def _printed(claim: Claim) -> str:
    return f"{claim.value:g}" if claim.value % 1 else f"{claim.value:.1f}"


def _heads(judged: Sequence[Judged]) -> list[Column]:
    found = [("group", "group", [j.claim.group for j in judged], 5), ("row", "method", ["x"], 0),
             ("reference", "reference", [j.claim.reference for j in judged], 7), ("supervision", "sup.", ["x"], 3),
             ("backbone", "network", ["x"], 4)]  # fmt: skip
    return [Column(name, title, spare=spare) for name, title, values, spare in found if any(values)]


def _head_cells(claim: Claim, before: str) -> dict[str, Cell]:
    group: Cell = Same(claim.group) if claim.group == before else claim.group
    return {"group": group, "row": claim.row, "reference": claim.reference,
            "supervision": SUPERVISION.get(claim.supervision, claim.supervision),
            "backbone": claim.backbone}  # fmt: skip


def _ours_columns(column: str, claim: Claim | None, several: bool) -> list[Column]:
    """Of one printed column, or without one of all of them."""
    name = f"_{_id(column)}" if column else ""
    title = f"ours, {column}" if several else "ours"
    of = f", {column}" if several else ""
    what = f"{claim.dataset} {claim.split}" if claim else ""
    return [
        Column(f"ours{name}", title, what, right=True),
        Column(f"seeds{name}", "seeds", right=True, spare=2),
        Column(f"protocol{name}", "protocol", spare=6),
        Column(f"difference{name}", "diff.", right=True),
        Column(f"verdict{name}", f"verdict{of}"),
        Column(f"why{name}", "because", spare=1),
    ]


def _ours(j: Judged, name: str = "") -> Mapping[str, Cell]:
    return {
        f"ours{name}": j.score,
        f"seeds{name}": j.seeds or None,
        f"protocol{name}": None if j.row is None else f"{j.row.protocol}, {j.row.variant}",
        f"difference{name}": None if j.difference is None else Signed(j.difference),
        f"verdict{name}": j.verdict,
        f"why{name}": j.why or None,
    }


def _flat(j: Judged) -> dict[str, object]:
    claim, score = j.claim, j.score
    return {
        "paper": claim.paper, "table": claim.table, "group": claim.group, "row": claim.row, "column": claim.column,
        "dataset": claim.dataset, "split": claim.split, "target": claim.target, "backbone": claim.backbone,
        "supervision": claim.supervision, "claim": claim.value, "ours": score.value if score else None,
        "low": score.low if score else None, "high": score.high if score else None, "difference": j.difference,
        "seeds": j.seeds, "verdict": j.verdict, "why": j.why, "protocol": j.row.protocol if j.row else None,
        "variant": j.row.variant if j.row else None, "study": j.row.study if j.row else None, "source": claim.source,
    }  # fmt: skip


def _id(column: str) -> str:
    return "_".join(column.lower().replace(",", "").split())


if __name__ == "__main__":
    raise SystemExit(main(run))
