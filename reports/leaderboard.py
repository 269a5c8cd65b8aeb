"""`python -m reports.leaderboard`: the leaderboard of a store, in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.errors import EXIT_DONE, BadInput, Problem, nearest
from harness.store import Results
from reports.format.output import ALL_FORMATS, NETWORKS, OUT_TEXT, STORE_TEXT, WEIGHTS_TEXT, deliver, output_problems
from reports.format.render import FORMATS
from reports.rows.row import Filters
from reports.rows.rows import load_rows
from reports.sections.leaderboard import build

ABOUT = """Prints method, variant, supervision, backbone, CAM / pseudo-mask / segmentation mIoU with 95 % interval,
seeds, iterations, trials, hours, protocol and rank. Rows that differ in data, split, supervision, CRF, variant, tier,
protocol or budget stand in sections of their own and are never ranked together."""


@dataclass
class LeaderboardWords:
    """The words of `reports.leaderboard`."""

    store: str = word("results", STORE_TEXT)
    format: str = word(
        "terminal", f"{', '.join(FORMATS)}; arrow and parquet write the per-class IoU table", choices=ALL_FORMATS
    )
    out: str | None = word(None, OUT_TEXT)
    per_class: bool = word(False, "add the IoU of every class")
    thresholds: bool = word(
        False, "fixed, held-out and oracle thresholds and, for tuned rows, choices side by side, with their gaps"
    )
    weights: str = word("student", WEIGHTS_TEXT, choices=NETWORKS)
    sweep: str | None = word(None, "one sweep by its id; default all")
    dataset: str | None = word(None, "one dataset; default all")
    tier: str | None = word(None, "one tier; default all")
    split: str | None = word(None, "the reported split; default test where it was scored, else val")
    intervals: bool = word(True, "false: scores alone, at once; nothing is ranked")


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("reports.leaderboard", LeaderboardWords, ABOUT))
        return EXIT_DONE
    parsed = parse(argv, LeaderboardWords, collect=True)
    words = parsed.words
    problems = [*parsed.problems, *output_problems(words)]
    if problems:
        raise BadInput(problems)
    filters = Filters(words.sweep, words.dataset, words.tier, words.weights, words.split)
    results = load_rows(words.store, filters, trials=words.thresholds)
    _check_found(words, results)
    board = build(results, sweep=words.sweep, dataset=words.dataset, tier=words.tier, weights=words.weights,
                  split=words.split, thresholds=words.thresholds, by_class=words.per_class,
                  intervals=words.intervals)  # fmt: skip
    deliver(words, board.table, board.per_class)
    return EXIT_DONE


def _check_found(words: Any, results: Results) -> None:
    problems = []
    known = {"sweep": {*results.trials["sweep"], *results.runs["sweep"]}, "dataset": {*results.runs["dataset"]},
             "tier": {*results.runs["tier"]}}  # fmt: skip
    for name, values in known.items():
        asked = getattr(words, name)
        values = {v for v in values if v}
        if asked is not None and asked not in values:
            fix = nearest(asked, values) if values else "the store is empty"
            problems.append(Problem(name, f"{asked!r} is not in {words.store}", fix))
    if problems:
        raise BadInput(problems)


if __name__ == "__main__":
    raise SystemExit(main(run))
