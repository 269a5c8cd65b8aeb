"""`python -m reports.compare a b`: two rows of the leaderboard, paired on the same images, overall and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from harness.api.vocabulary import TARGETS
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import leading, main, parse, word
from harness.errors import EXIT_DONE, BadInput, Problem, StoreError, nearest
from harness.scoring.intervals import Difference, Interval, holm
from harness.store import Results, load
from reports.format.output import ALL_FORMATS, NETWORKS, OUT_TEXT, STORE_TEXT, WEIGHTS_TEXT, deliver, output_problems
from reports.format.render import FORMATS
from reports.format.table import Cell, Column, Section, Table, p_value
from reports.rows.comparing import counts_of, inference_text, score_cell
from reports.rows.ranking import Quantity, resampled
from reports.rows.row import USUAL_TAGS, Filters, Row
from reports.rows.rows import TABLES, rows_of
from reports.sections.board import display_name, one_seed, quantity_title

ABOUT = """Compares two rows of a store, a minus b, on the images that both were scored on: mIoU and the IoU of every
class with 95 % intervals, seeds and images resampled together. A row is named by its method, as the leaderboard shows
it, by its study, or by the key of one of its runs (its start is enough)."""
_KEY = 4
"""Letters of a key that name its row."""


@dataclass
class CompareWords:
    """The words of `reports.compare`, beside the two rows."""

    store: str = word("results", STORE_TEXT)
    format: str = word("terminal", f"{', '.join(FORMATS)}, arrow, parquet", choices=ALL_FORMATS)
    out: str | None = word(None, OUT_TEXT)
    target: str | None = word(None, "cam, pseudo or segmentation; default the last one that both have", choices=TARGETS)
    split: str | None = word(None, "the split; default test where it was scored, else val")
    weights: str = word("student", WEIGHTS_TEXT, choices=NETWORKS)
    crf: str | None = word(None, "rows with this CRF; default those without, where there are any")
    scales: str | None = word(None, "rows scored at these scales; default any")


@dataclass(frozen=True)
class Line:
    """One line of a comparison: a class, or the mean over all (`label` None); shares of 1."""

    label: int | None
    name: str
    a: Interval
    b: Interval
    difference: Difference
    p: float
    """Of no difference; over classes adjusted by Holm."""


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same images at one quantity."""

    a: Row
    b: Row
    quantity: Quantity
    images: int
    lines: tuple[Line, ...]

    def table(self) -> Table:
        """For printing: the mean, then the classes."""
        columns = (
            Column("class", "class", right=True),
            Column("name", "name"),
            Column("a", display_name(self.a), "a", right=True, measure="iou"),
            Column("b", display_name(self.b), "b", right=True, measure="iou"),
            Column("difference", "a − b", "points", right=True, measure="difference"),
            Column("p", "p", right=True),
        )
        rows = [self._cells(line) for line in self.lines]
        head = f"{quantity_title(self.quantity)} · {self.a.dataset} · {self.a.split} · tags {self.quantity.tags}"
        caption = f"{self.images} images; seeds {len(self.a.seeds)} and {len(self.b.seeds)}" + _unlike(self.a, self.b)
        note = "95 % intervals: seeds, then images, resampled together for both; p of the classes adjusted by Holm"
        few = one_seed([self.a, self.b])
        sections = (
            Section(f"mIoU · {head}", columns, tuple(rows[:1]), caption=caption, notes=few),
            Section("IoU by class", columns, tuple(rows[1:]), notes=(note,)),
        )
        return Table(f"{display_name(self.a)} against {display_name(self.b)}", sections)

    def frame(self) -> pl.DataFrame:
        """A row per class and one for the mean (class null); shares of 1."""
        return pl.DataFrame(
            [
                {"a": display_name(self.a), "b": display_name(self.b), "dataset": self.a.dataset, "split": self.a.split,
                 "target": self.quantity.target, "tags": self.quantity.tags, "class": line.label, "name": line.name,
                 "iou_a": line.a.value, "low_a": line.a.low, "high_a": line.a.high,
                 "iou_b": line.b.value, "low_b": line.b.low, "high_b": line.b.high,
                 "difference": line.difference.value, "low": line.difference.low, "high": line.difference.high,
                 "p": line.p}
                for line in self.lines
            ],
            schema_overrides={"class": pl.Int16},
        )  # fmt: skip

    @staticmethod
    def _cells(line: Line) -> dict[str, Cell]:
        return {
            "class": line.label, "name": line.name, "a": score_cell(line.a), "b": score_cell(line.b),
            "difference": score_cell(line.difference), "p": p_value(line.p),
        }  # fmt: skip


def compare(
    results: Results,
    a: str,
    b: str,
    *,
    target: str | None = None,
    split: str | None = None,
    weights: str = "student",
    crf: str | None = None,
    scales: str | None = None,
) -> Comparison:
    """Two rows of a store, by name. Raises BadInput for names that fit no row or several, and for rows that share no
    target or were scored on different images."""
    rows = rows_of(results, Filters(weights=weights, split=split))
    problems: list[Problem] = []
    first, second = (_find(rows, text, crf, scales, problems) for text in (a, b))
    if first is None or second is None:
        raise BadInput(problems)
    quantity = _quantity(first, second, target)
    scored = [r.scores[s] for r in (first, second) if (s := quantity.setting(r)) is not None]
    counts = counts_of(results, scored)
    try:
        drawn = resampled(scored, counts, classes=True)
    except StoreError as e:
        fix = "choose rows of one dataset and split= that both were scored on"
        raise BadInput(Problem("a b", str(e), fix)) from e
    names = first.class_names
    pairs = zip(drawn.class_intervals(0), drawn.class_intervals(1), drawn.class_differences(0, 1), strict=True)
    classes = [
        Line(k, names[k] if k < len(names) else str(k), one, two, gap, gap.p)
        for k, (one, two, gap) in enumerate(pairs)
        if not (math.isnan(one.value) and math.isnan(two.value))
    ]
    known = [n for n, line in enumerate(classes) if not math.isnan(line.difference.value)]
    adjusted = dict(zip(known, holm([classes[n].p for n in known]).tolist(), strict=True))
    classes = [replace(line, p=adjusted.get(n, math.nan)) for n, line in enumerate(classes)]
    gap = drawn.difference(0, 1)
    mean = Line(None, "mean", drawn.interval(0), drawn.interval(1), gap, gap.p)
    return Comparison(first, second, quantity, len(drawn.images), (mean, *classes))


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        text = help_text("reports.compare", CompareWords, ABOUT)
        print(text.replace("reports.compare [words]", "reports.compare a b [words]"))
        return EXIT_DONE
    names, rest = leading(argv)
    parsed = parse(rest, CompareWords, collect=True)
    words: CompareWords = parsed.words
    problems = [*parsed.problems, *output_problems(words)]
    if len(names) != 2:
        fix = "for instance: python -m reports.compare fsr cam store=results"
        problems.append(Problem("a b", f"{len(names)} rows are named, not two", fix))
    if problems:
        raise BadInput(problems)
    found = compare(load(words.store, TABLES), *names, target=words.target, split=words.split,
                    weights=words.weights, crf=words.crf, scales=words.scales)  # fmt: skip
    deliver(words, found.table(), found.frame)
    return EXIT_DONE


def _find(rows: Sequence[Row], text: str, crf: str | None, scales: str | None, problems: list[Problem]) -> Row | None:
    fits = [r for r in rows if text in (display_name(r), r.study)]
    fits = fits or [r for r in rows if len(text) >= _KEY and any(k.startswith(text) for k in r.keys)]
    fits = fits or [r for r in rows if text == r.method]
    if not fits:
        known = {name for r in rows for name in (r.method, display_name(r))}
        fix = nearest(text, known) if known else "the store has no scored row of this split and weights"
        problems.append(Problem("row", f"{text!r} names no row", fix))
        return None
    wanted = [r for r in fits if (crf is None or r.inference.crf == crf)]
    wanted = [r for r in wanted if scales is None or r.inference.scales == scales]
    if crf is None:
        wanted = [r for r in wanted if r.inference.crf == "none"] or wanted
    if len(wanted) == 1:
        return wanted[0]
    each = "; ".join(
        f"{display_name(r)} {r.keys[0][:8]} ({r.dataset}, {r.supervision}, {inference_text(r)})" for r in fits
    )
    found = f"{text!r} names {len(wanted)} rows"
    problems.append(Problem("row", found, f"choose by key, dataset's store, crf= or scales=: {each}"))
    return None


def _quantity(a: Row, b: Row, target: str | None) -> Quantity:
    for name in [target] if target else reversed(TARGETS):
        quantity = Quantity(str(name), USUAL_TAGS[str(name)])
        if quantity.setting(a) and quantity.setting(b):
            return quantity
    have = " and ".join(f"{display_name(r)}: {', '.join(r.targets)}" for r in (a, b))
    raise BadInput(Problem("target", f"the rows share no {target or 'target'}", have))


def _unlike(a: Row, b: Row) -> str:
    """What the two rows do not have in common besides the method: such rows are never ranked together."""
    names = ("dataset", "supervision", "variant", "backbone", "decoder", "tier", "protocol", "trials", "iterations")
    odd = [f"{n} {_plain(getattr(a, n))} and {_plain(getattr(b, n))}" for n in names if getattr(a, n) != getattr(b, n)]
    odd += ["training data"] * (bool(a.data.train and b.data.train) and a.data.trained_on != b.data.trained_on)
    odd += [f"scored at {inference_text(a)} and {inference_text(b)}"] * (a.inference != b.inference)
    return "; unlike: " + ", ".join(odd) if odd else ""


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    raise SystemExit(main(run))
