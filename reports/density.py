"""`python -m reports.density`: mIoU over how much of the training images is labelled, as tables and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.errors import EXIT_DONE, BadInput, Problem
from harness.store import load
from reports.format.output import ALL_FORMATS, NETWORKS, OUT_TEXT, STORE_TEXT, WEIGHTS_TEXT, deliver, output_problems
from reports.format.render import FORMATS
from reports.rows.densities import Setting, settings_of
from reports.rows.row import Filters
from reports.rows.rows import TABLES
from reports.sections import densities

ABOUT = """Prints the segmentation mIoU of every row of sparse labels beside the share of pixels that they label, what
more labels of the same kind give, and what masks give beyond. picture= draws it."""
SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("method", "labels", "dataset", "split", "tier", "study"), pl.Utf8()),
    **dict.fromkeys(("share", "marks", "miou", "low", "high", "step", "step_low", "step_high", "gap", "gap_low",
                     "gap_high"), pl.Float64()),
    "seeds": pl.Int64(),
}  # fmt: skip
"""One row per row of sparse labels; shares of 1; step and gap null where there is nothing to compare with."""


@dataclass
class DensityWords:
    """The words of `reports.density`."""

    store: str = word("results", STORE_TEXT)
    picture: str | None = word(None, f"also draw it into this file, {', '.join(densities.FORMATS)} by its name")
    format: str = word(
        "terminal", f"{', '.join(FORMATS)}; arrow and parquet write a row per row of sparse labels", choices=ALL_FORMATS
    )
    out: str | None = word(None, OUT_TEXT)
    weights: str = word("student", WEIGHTS_TEXT, choices=NETWORKS)
    dataset: str | None = word(None, "one dataset; default all")
    tier: str | None = word(None, "one tier; default all")
    split: str | None = word(None, "the reported split; default test where it was scored, else val")


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("reports.density", DensityWords, ABOUT))
        return EXIT_DONE
    parsed = parse(argv, DensityWords, collect=True)
    words: DensityWords = parsed.words
    problems = [*parsed.problems, *output_problems(words), *_picture_problems(words.picture)]
    if problems:
        raise BadInput(problems)
    filters = Filters(dataset=words.dataset, tier=words.tier, weights=words.weights, split=words.split)
    settings = settings_of(load(words.store, TABLES), filters)
    if words.picture:
        _write(settings, words)
    deliver(words, densities.table(settings), lambda: frame(settings))
    return EXIT_DONE


def frame(settings: list[Setting]) -> pl.DataFrame:
    """One row per point, columns as SCHEMA."""
    rows = []
    for p in (p for s in settings for p in s.points):
        rows.append({
            "method": p.name, "labels": p.labels, "dataset": p.row.dataset, "split": p.row.split,
            "tier": p.row.tier, "study": p.row.study, "share": p.share, "marks": p.marks, "miou": p.score.value,
            "low": p.score.low, "high": p.score.high, "seeds": len(p.row.seeds),
            **{f"{name}{end}": getattr(one, of) if one else None for name, one in (("step", p.step), ("gap", p.gap))
               for end, of in (("", "value"), ("_low", "low"), ("_high", "high"))},
        })  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _picture_problems(picture: str | None) -> list[Problem]:
    if picture is None:
        return []
    path = Path(picture)
    problems = []
    if path.suffix[1:].lower() not in densities.FORMATS:
        fix = f"name a file that ends in {', '.join('.' + form for form in densities.FORMATS)}"
        problems.append(Problem("picture", f"{path.name} is no kind of picture that can be drawn", fix))
    if not path.resolve().parent.is_dir():
        problems.append(Problem("picture", f"{path.parent} does not exist", "make the folder first"))
    return problems


def _write(settings: list[Setting], words: DensityWords) -> None:
    path = Path(words.picture or "")
    if not settings:
        found = f"{words.store} has no finished run on sparse labels that says how much they label"
        raise BadInput(
            Problem("picture", found, "for instance: python -m harness.sweep methods=pce labels=points,scribbles")
        )
    try:
        path.write_bytes(densities.picture(settings, path.suffix[1:].lower()))
    except OSError as error:
        raise BadInput(
            Problem("picture", f"{path} cannot be written: {error.strerror}", "name another file")
        ) from error


if __name__ == "__main__":
    raise SystemExit(main(run))
