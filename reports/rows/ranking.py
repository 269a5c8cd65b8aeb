"""Which rows may be compared, their scores with intervals, and their ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import polars as pl

from harness.api.vocabulary import TARGETS
from harness.errors import StoreError
from harness.scoring.intervals import DRAWS, Interval, NotPaired, Resampled, resample
from harness.scoring.metrics import all_background, mious
from reports.format.table import Score
from reports.rows.data import differences, sorted_apart
from reports.rows.row import NO_RULE, RULES, USUAL_TAGS, Row, Scored, Setting

Counts: TypeAlias = Mapping[str, pl.DataFrame]
"""The table `counts` by eval."""

ORACLE = "†"
OTHER_RULE = "‡"
BELOW = "*"


@dataclass(frozen=True)
class Quantity:
    """A column of scores: target, tags, and a threshold rule where rules stand side by side."""

    target: str
    tags: str
    rule: str | None = None

    @property
    def id(self) -> str:
        """`cam`, `cam_none` (tags that are not the usual ones), `cam_oracle` (one of several rules)."""
        parts = [self.target, *([self.tags] if self.tags != USUAL_TAGS.get(self.target, "none") else [])]
        return "_".join([*parts, *([self.rule.replace("-", "_")] if self.rule else [])])

    def setting(self, row: Row) -> Setting | None:
        """The row's setting that stands here; by default the threshold rule of its protocol."""
        rules = [self.rule] if self.rule else [row.protocol, NO_RULE, "fixed"]
        for rule in rules:
            if (setting := Setting(self.target, self.tags, rule)) in row.scores:
                return setting
        return None


@dataclass(frozen=True)
class RankingGroup:
    """Rows that may be ranked together: equal data, split, supervision, CRF, variant, tier, protocol and budget."""

    rows: tuple[Row, ...]
    images: int
    apart: str = ""
    """What tells its data from that of another group with the same heading."""
    digest: str = ""
    """Of the images that its rows were scored on."""

    @property
    def head(self) -> Row:
        """A row whose common fields speak for all."""
        return self.rows[0]

    def quantities(self, *, thresholds: bool) -> tuple[Quantity, ...]:
        """Columns in order cam, pseudo, segmentation, the usual tags first."""
        found = {(s.target, s.tags) for r in self.rows for s in r.scores}
        order = sorted(found, key=lambda f: (TARGETS.index(f[0]), f[1] != USUAL_TAGS.get(f[0]), f[1]))
        quantities: list[Quantity] = []
        for target, tags in order:
            rules = {s.rule for r in self.rows for s in r.scores if (s.target, s.tags) == (target, tags)}
            if thresholds and rules & set(RULES):
                quantities += [Quantity(target, tags, rule) for rule in RULES if rule in rules]
            else:
                quantities.append(Quantity(target, tags))
        return tuple(p for p in quantities if any(p.setting(r) for r in self.rows))


@dataclass(frozen=True)
class Board:
    """A group with its scores: one per row and quantity, and those of the baseline."""

    group: RankingGroup
    quantities: tuple[Quantity, ...]
    scores: tuple[Mapping[Quantity, Score], ...]
    baseline: Mapping[Quantity, Score]
    """`all background` (without a background class: the most frequent class)."""
    main: Quantity
    """What `rank` and the order of rows go by: the last target."""
    dice: tuple[Mapping[Quantity, Score], ...] = ()
    """Mean Dice of the foreground classes of each row and, last, of the baseline; empty where papers have none."""
    intervals: bool = True
    """Whether scores have their intervals; without them nothing is ranked."""


def groups_of(rows: Sequence[Row], counts: Counts) -> list[RankingGroup]:
    """Rows sorted into groups; those of other training data, labels or images are never together."""
    headed: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        heading = (row.dataset, row.split, row.supervision, row.variant, row.tier, row.inference.crf, row.protocol,
                   row.trials, row.weights)  # fmt: skip
        headed.setdefault(heading, []).append(row)
    # Weaker labels first, and masks, the upper bound, at the end.
    order = sorted(headed, key=lambda k: (str(k[0]), str(k[1]), k[2] == "masks", tuple(map(str, k))))
    return [group for heading in order for group in _by_data(headed[heading], counts)]


def _by_data(rows: Sequence[Row], counts: Counts) -> list[RankingGroup]:
    scored = [images_of(row, counts) for row in rows]
    found: dict[tuple[int, str], list[int]] = {}
    for i, number in enumerate(sorted_apart([r.data for r in rows])):
        found.setdefault((number, scored[i][1]), []).append(i)
    # A row that says what it was trained on speaks for those that do not.
    heads = [max(members, key=lambda i: bool(rows[i].data.train)) for members in found.values()]
    apart = differences([rows[i].data for i in heads], [digest for _, digest in found])
    groups = zip(found.items(), apart, strict=True)
    return [
        RankingGroup(tuple(rows[i] for i in members), scored[members[0]][0], text, digest)
        for ((_, digest), members), text in groups
    ]


def score(group: RankingGroup, counts: Counts, *, thresholds: bool = False, intervals: bool = True) -> Board:
    """All scores of a group, in percent with 95 % intervals, ranked quantity by quantity, best rows first.

    Without `intervals` they are scores alone: the same values in a part of the time.
    """
    draws = DRAWS if intervals else 0
    quantities = group.quantities(thresholds=thresholds)
    main = next((p for p in reversed(quantities) if p.rule in (None, group.head.protocol)), quantities[-1])
    scores: list[dict[Quantity, Score]] = [{} for _ in group.rows]
    baseline: dict[Quantity, Score] = {}
    for quantity in quantities:
        cells = {i: r.scores[s] for i, r in enumerate(group.rows) if (s := quantity.setting(r)) is not None}
        found, baseline[quantity] = _scores(group, quantity, cells, counts, draws)
        for i, value in found.items():
            scores[i][quantity] = value
    best_first = [(-cells[main].value if main in cells else 1.0) for cells in scores]
    order = sorted(range(len(group.rows)), key=lambda i: (best_first[i], group.rows[i].method))
    ordered = replace(group, rows=tuple(group.rows[i] for i in order))
    dice = _dice(ordered, quantities, counts, draws) if reports_dice(group.head) else ()
    return Board(ordered, quantities, tuple(scores[i] for i in order), baseline, main, dice, intervals)


def reports_dice(row: Row) -> bool:
    """Whether the papers of this row's dataset report Dice."""
    return "acdc" in (row.dataset, row.family)


def num_labels(row: Row) -> int | None:
    """K, where the run says so."""
    return len(row.class_names) or None


def resampled(
    rows: Sequence[Scored],
    counts: Counts,
    *,
    classes: bool = False,
    extra: Sequence[pl.DataFrame] = (),
    measure: str = "iou",
    draws: int = DRAWS,
) -> Resampled:
    """Rows, and further rows of one seed, resampled together.

    Raises StoreError naming an eval without its counts, and two rows that differ in images or true pixels.
    """
    _check_there(rows, counts)
    frames = [[counts[e] for e in r.evals] for r in rows] + [[frame] for frame in extra]
    try:
        return resample(frames, draws=draws, classes=classes, measure=measure)
    except NotPaired as error:
        names = [r.name for r in rows] + [f"further row {n}" for n in range(len(extra))]
        raise StoreError(f"{names[error.a]} and {names[error.b]} cannot be paired: {error.why}") from error
    except ValueError as error:
        raise StoreError(f"evals {' '.join(e for r in rows for e in r.evals)}: {error}") from error


def _check_there(rows: Iterable[Scored], counts: Counts) -> None:
    lost = [e for r in rows for e in r.evals if e not in counts]
    if lost:
        raise StoreError(f"the store has no counts of eval {lost[0]}; see python -m harness.store verify")


def _scores(
    group: RankingGroup, quantity: Quantity, cells: Mapping[int, Scored], counts: Counts, draws: int
) -> tuple[dict[int, Score], Score]:
    """Scores of the rows that stand at a quantity, and of the baseline on the same images."""
    _check_there(cells.values(), counts)
    first = counts[next(iter(cells.values())).evals[0]]
    baseline = all_background(first, has_background=group.head.has_background)
    drawn = resampled(list(cells.values()), counts, extra=[baseline], draws=draws)
    ranked = [n for n, i in enumerate(cells) if draws and not group.rows[i].retried]
    quantities = dict(zip(ranked, _subset(drawn, ranked).ranks(), strict=True)) if ranked else {}
    excluded = _excluded([(group.rows[i], scored) for i, scored in cells.items()], counts)
    out = {}
    for n, i in enumerate(cells):
        above = drawn.difference(n, len(cells))
        below = above.value <= 0 or (draws > 0 and above.p >= 0.05)
        mark = _mark(group.rows[i], quantity) + (BELOW if below else "")
        out[i] = _percent(drawn.interval(n), quantities.get(n), excluded[n], mark)
    absent = int(mious(baseline, num_labels(group.head))["excluded"][0])
    return out, _percent(drawn.interval(len(cells)), None, absent, "")


def _excluded(cells: Sequence[tuple[Row, Scored]], counts: Counts) -> list[int]:
    """Of each row the most classes that one of its seeds leaves out."""
    by_labels: dict[int | None, list[str]] = {}
    for row, scored in cells:
        by_labels.setdefault(num_labels(row), []).extend(scored.evals)
    of: dict[tuple[int | None, str], int] = {}
    for labels, evals in by_labels.items():
        table = mious(pl.concat([counts[e] for e in dict.fromkeys(evals)]), labels)
        of |= {(labels, name): number for name, number in table.select("eval", "excluded").iter_rows()}
    return [max(of[num_labels(row), e] for e in scored.evals) for row, scored in cells]


def _dice(
    group: RankingGroup, quantities: Sequence[Quantity], counts: Counts, draws: int
) -> tuple[Mapping[Quantity, Score], ...]:
    """Dice of every row, then of the baseline, quantity by quantity; in percent with 95 % intervals."""
    out: list[dict[Quantity, Score]] = [{} for _ in range(len(group.rows) + 1)]
    for quantity in quantities:
        cells = {i: r.scores[s] for i, r in enumerate(group.rows) if (s := quantity.setting(r)) is not None}
        baseline = all_background(counts[next(iter(cells.values())).evals[0]], has_background=group.head.has_background)
        drawn = resampled(list(cells.values()), counts, extra=[baseline], measure="dice", draws=draws)
        for n, i in enumerate([*cells, len(group.rows)]):
            out[i][quantity] = _percent(drawn.interval(n), None, 0, "")
    return tuple(out)


def _subset(drawn: Resampled, rows: Sequence[int]) -> Resampled:
    return Resampled(drawn.images, drawn.value_R[list(rows)], drawn.draws_RB[list(rows)])


def _percent(interval: Interval, rank: int | None, excluded: int, mark: str) -> Score:
    return Score(100 * interval.value, 100 * interval.low, 100 * interval.high, rank, excluded, mark)


def images_of(row: Row, counts: Counts) -> tuple[int, str]:
    """How many images a row was scored on, and a digest of which."""
    ids = [e for scored in row.scores.values() for e in scored.evals if e in counts]
    names = [counts[e]["image"].unique().sort() for e in ids]
    digests = {hashlib.sha256("\n".join(n).encode()).hexdigest() for n in names}
    return max((len(n) for n in names), default=0), " ".join(sorted(digests))


def _mark(row: Row, quantity: Quantity) -> str:
    setting = quantity.setting(row)
    if row.protocol == "oracle" or (setting and setting.rule == "oracle"):
        return ORACLE
    other = setting and setting.rule not in (row.protocol, NO_RULE) and quantity.rule is None
    return OTHER_RULE if other else ""
