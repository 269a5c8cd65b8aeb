"""`python -m reports.page`: everything that a store can show as one self-contained HTML file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.errors import EXIT_DONE, BadInput, Problem
from harness.files import plain_words
from reports.format.output import NETWORKS, STORE_TEXT, WEIGHTS_TEXT
from reports.page.build import write_page

ABOUT = """Writes one HTML file that needs no network: leaderboard, cost, classes, thresholds, tuning, training, time,
examples, what stands behind every number and the command that makes it again. Light and dark, on phones and paper."""


@dataclass
class PageWords:
    """The words of `reports.page`."""

    store: str = word("results", STORE_TEXT)
    out: str = word("board.html", "file to write")
    weights: str = word("student", WEIGHTS_TEXT, choices=NETWORKS)
    sweep: str | None = word(None, "one sweep by its id; default all")
    dataset: str | None = word(None, "one dataset; default all")
    tier: str | None = word(None, "one tier; default all")
    split: str | None = word(None, "the reported split; default test where it was scored, else val")
    pictures: bool = word(False, "predict the example pictures that the store lacks, once, from kept weights")


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("reports.page", PageWords, ABOUT))
        return EXIT_DONE
    parsed = parse(argv, PageWords, collect=True)
    words: PageWords = parsed.words
    problems = list(parsed.problems)
    if not Path(words.store).is_dir():
        problems.append(Problem("store", f"{words.store} is no folder", "name the store= of a sweep"))
    if not Path(words.out).resolve().parent.is_dir():
        problems.append(Problem("out", f"{Path(words.out).parent} does not exist", "make the folder first"))
    if problems:
        raise BadInput(problems)
    part = {n: getattr(words, n) for n in ("sweep", "dataset", "tier", "weights", "split", "pictures")}
    try:
        path = write_page(words.store, words.out, **part)
    except OSError as error:
        problem = Problem("out", f"{words.out} cannot be written: {plain_words(error)}", "name another file")
        raise BadInput(problem) from error
    print(f"written: {path} ({path.stat().st_size / 2**20:.1f} MiB)", file=sys.stderr)
    return EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(main(run))
