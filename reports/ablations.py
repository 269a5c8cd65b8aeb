"""`python -m reports.ablations`: a paper's ablation table with ours beside it; `execute=true` runs missing rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness.api.papers import Paper, PaperTable
from harness.api.registry import registry
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import command_words, main, parse, parse_rows, split_list, word
from harness.cli.run_words import Words
from harness.errors import EXIT_DONE, EXIT_FAILED, BadInput, Problem, nearest, shown
from harness.plan.plan import Plan
from harness.store import load
from reports.format.output import (
    ALL_FORMATS,
    BINARY,
    NETWORKS,
    OUT_TEXT,
    STORE_TEXT,
    WEIGHTS_TEXT,
    deliver,
    output_problems,
)
from reports.format.render import FORMATS
from reports.papers.ablation_table import build, frame
from reports.papers.claims import declared_papers
from reports.rows.row import Filters
from reports.rows.rows import TABLES

ABOUT = """Prints a paper's ablation table, row by row as printed, with ours beside it: value, 95 % interval (seeds,
then images, resampled), seeds, difference. A section for each setting in which rows were run. With execute=true
every word of harness.sweep may follow: the rows that are not in the store yet run as one sweep."""
ROW_WORDS = ("methods", "ablation", "plan")
"""Words of a sweep that the table itself decides."""


@dataclass
class AblationWords:
    """The words of `reports.ablations`; those of `harness.sweep` come on top with `execute=true`."""

    paper: str | None = word(None, "whose table")
    table: str | None = word(None, "which table")
    rows: str | None = word(None, "some rows of the table by name, a list; default all")
    execute: bool = word(False, "run the rows that are missing as one sweep; takes every word of harness.sweep")
    store: str = word("results", STORE_TEXT)
    format: str = word(
        "terminal", f"{', '.join(FORMATS)}; arrow and parquet write a row per setting and number", choices=ALL_FORMATS
    )
    out: str | None = word(None, OUT_TEXT)
    weights: str = word("student", WEIGHTS_TEXT, choices=NETWORKS)
    dataset: str | None = word(None, "show one dataset, by its name in the store; default all")
    tier: str | None = word(None, "show (and run) one tier")
    variant: str | None = word(None, "show (and run) one variant")
    protocol: str | None = word(None, "show (and run) one protocol")


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("reports.ablations", AblationWords, ABOUT))
        return EXIT_DONE
    own, others = _split(argv)
    parsed = parse(own, AblationWords, collect=True)
    words = parsed.words
    paper, table, rows = _asked(words, others, list(parsed.problems))
    failed: list[str] = []
    if words.execute:
        from harness.tuning.describe import plan_text
        from harness.tuning.run_plan import run_plan
        from reports.page.tracked import pages

        plan = plan_of(paper, table, rows, words, others)
        print(plan_text(plan, full=plan.words.dry_run), flush=True)
        if plan.words.dry_run:
            return EXIT_DONE
        failed = run_plan(plan, pages=pages).failed
    results = load(words.store, TABLES)
    filters = Filters(dataset=words.dataset, tier=words.tier, weights=words.weights)
    made, settings = build(results, paper, table, filters, rows, variant=words.variant, protocol=words.protocol)
    deliver(words, made, lambda: frame(table, paper, settings))
    for line in failed:
        print(f"failed: {shown(line)}", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_DONE


def plan_of(paper: Paper, table: PaperTable, rows: Sequence[str], words: AblationWords, others: Sequence[str]) -> Plan:
    """One sweep of the table's rows. Raises BadInput for words that the table decides itself, and as `make_plan`."""
    from harness.plan.plan import make_plan

    given = {text.partition("=")[0] for text in others}
    shared = [f"{k}={v}" for k, v in table.words.items() if k not in given]
    for name in ("store", "tier", "variant", "protocol"):
        if getattr(words, name) is not None:
            shared.append(f"{name}={getattr(words, name)}")
    # A plug-in's ablations are called by its own name: `cam+brnf` has `brnf.base`.
    spec = registry().choose(paper.method).spec
    sets = []
    for row in (r for r in table.rows if not rows or r.name in rows):
        ablation = [f"ablation={spec.name}.{row.ablation}"] if row.ablation else []
        argv = [*shared, *others, f"methods={paper.method}", *ablation]
        sets += parse_rows(argv, Words, "sweep", registry().names(), collect=True)
    return make_plan(sets)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    known = command_words(AblationWords, None)
    own = [text for text in argv if text.partition("=")[0] in known]
    return own, [text for text in argv if text.partition("=")[0] not in known]


def _asked(words: AblationWords, others: Sequence[str], problems: list[Problem]) -> tuple[Paper, PaperTable, list[str]]:
    """The paper, its table and the rows that the words name. Raises BadInput with all problems at once."""
    problems += output_problems(words, store_exists=not words.execute)
    papers = {p.name: p for p in declared_papers()}
    paper = papers.get(words.paper or "")
    table: PaperTable | None = None
    if paper is None:
        fix = nearest(words.paper or "", papers)
        problems.append(Problem("paper", f"{words.paper!r} has no ablation tables here", fix))
    else:
        try:
            table = paper.table(words.table or "")
        except BadInput as e:
            problems.extend(e.problems)
    rows = split_list(words.rows)
    if table is not None:
        names = [r.name for r in table.rows]
        problems += [Problem("rows", f"{r!r} is no row of table {table.table}", nearest(r, names)) for r in rows
                     if r not in names]  # fmt: skip
    if words.execute and words.format in (*BINARY, "csv") and words.out is None:
        fix = f"add out=table.{words.format}"
        problems.append(Problem("out", "progress and table would share the standard output", fix))
    problems += _sweep_problems(paper, others, execute=words.execute)
    if problems or paper is None or table is None:
        raise BadInput(problems)
    return paper, table, rows


def _sweep_problems(paper: Paper | None, others: Sequence[str], *, execute: bool) -> list[Problem]:
    given = [text.partition("=")[0] for text in others]
    if not execute:
        known = [*command_words(AblationWords, None), *command_words(Words, "sweep")]
        return [
            Problem(f"word {g!r}", "is no word of this report", "add execute=true" if g in known else nearest(g, known))
            for g in given
        ]
    problems = [Problem(g, "is decided by the table", "leave it out") for g in given if g in ROW_WORDS]
    if paper is not None:
        spec = registry().choose(paper.method).spec
        touched = {f"{spec.name}.{k}" for overrides in spec.ablations.values() for k in overrides}
        problems += [Problem(g, "is what ablations vary", "leave it out") for g in given if g in touched]
    return problems


if __name__ == "__main__":
    raise SystemExit(main(run))
