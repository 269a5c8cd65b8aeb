"""A scored group as a section of the table model: columns, cells, caption and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.store.pretraining import NONE, UNKNOWN
from reports.format.table import Amount, Cell, Column, Rank, Score, Section
from reports.rows.ranking import BELOW, ORACLE, OTHER_RULE, Board, Quantity
from reports.rows.row import RULES, Failure, Row
from reports.sections.guests import Guest

NAMES = {"cam": "CAM", "pseudo": "pseudo mask", "segmentation": "segmentation"}
SHOWN_FAILURES = 20


def section(board: Board, *, guests: Sequence[Guest] = (), thresholds: bool = False) -> Section:
    """The leaderboard of one group, then `guests`, which are never ranked with it, its baseline as the last row."""
    rows, head = board.group.rows, board.group.head
    facts = {"dataset": head.dataset, "split": head.split, "images": str(board.group.images), "tier": head.tier,
             "crf": head.inference.crf, "weights": head.weights}  # fmt: skip
    if board.group.apart:
        facts["data"] = board.group.apart
    columns = _columns(board, thresholds=thresholds)
    ties = _ties(board)
    lines = [_line(board, i, thresholds=thresholds, tied=ties) for i in range(len(rows))]
    lines += [_guest(*guest, thresholds=thresholds) for guest in guests]
    baseline: dict[str, Cell] = {p.id: s for p, s in board.baseline.items()}
    for name in ("variant", "supervision", "protocol"):
        baseline[name] = None
    if board.dice:
        baseline.update({f"{p.id}_dice": s for p, s in board.dice[-1].items()})
    lines.append({"method": baseline_name(head), **baseline})
    about = f"{head.dataset} · {head.split} · {head.labels}"
    heading = (f"{about} · variant {head.variant} · tier {head.tier} · "
               f"protocol {_protocol(head)} · {_plural(head.trials, 'trial')} · CRF {head.inference.crf}"
               f"{' · teacher' if head.weights == 'teacher' else ''}"
               f"{' · ' if board.group.apart else ''}{board.group.apart}")  # fmt: skip
    notes = _notes(board, thresholds=thresholds)
    return Section(heading, columns, tuple(lines), facts, _caption(board), notes, about=about)


def baseline_name(row: Row) -> str:
    """What the baseline is called: without a background class it is the most frequent class."""
    return "all background" if row.has_background else "all the most frequent class"


def failures(found: Sequence[Failure]) -> Section:
    """Failed runs with their class and message."""
    columns = (Column("method", "method"), Column("study", "study", spare=1), Column("trial", "trial", right=True),
               Column("seed", "seed", right=True), Column("error", "class"), Column("message", "message"),
               Column("key", "run"))  # fmt: skip
    rows = [{"method": f.method, "study": f.study, "trial": f.trial, "seed": f.seed, "error": f.error_class,
             "message": f.message[:120], "key": f.key} for f in found[:SHOWN_FAILURES]]  # fmt: skip
    more = len(found) - len(rows)
    notes = (f"and {more} more: load the store and filter runs by status == 'failed'",) if more else ()
    return Section(f"{_plural(len(found), 'failed run')}", columns, tuple(rows), notes=notes, kind="failures")


def one_seed(rows: Sequence[Row]) -> tuple[str, ...]:
    """What intervals, ranks and p-values of single seeds do not hold."""
    single = [display_name(r) for r in rows if len(r.seeds) == 1]
    if not single:
        return ()
    whose = "every row" if len(single) == len(rows) else ", ".join(single)
    note = f"one seed of {whose}: intervals, ranks and p hold other images, not other seeds"
    return (note + "; seeds=3 shows how far those go",)


def quantity_title(quantity: Quantity) -> str:
    """`CAM`, or `CAM oracle†` where threshold rules stand side by side."""
    rule = f" {quantity.rule}{ORACLE if quantity.rule == 'oracle' else ''}" if quantity.rule else ""
    return NAMES[quantity.target] + rule


def display_name(row: Row) -> str:
    """The method, with its ablation and what tells it from rows that look the same."""
    return row.title


def _columns(board: Board, *, thresholds: bool) -> tuple[Column, ...]:
    rows, head = board.group.rows, board.group.head
    several = {n: len({getattr(r, n) for r in rows}) > 1 for n in ("decoder", "inference")}
    out = [Column("rank", "rank", right=True), Column("method", "method")]
    out += [Column("ablation", "ablation")] if any(r.ablation for r in rows) else []
    for quantity in board.quantities:
        facts = {"split": head.split, "tags": quantity.tags}
        sub = head.split + (f", tags {quantity.tags}" if quantity.target != "segmentation" else "")
        out.append(Column(quantity.id, quantity_title(quantity), sub, right=True, facts=facts))
        if board.dice:
            out.append(Column(f"{quantity.id}_dice", "Dice", "mean of foreground", right=True, measure="mean"))
        if thresholds and _gap_behind(board, quantity):
            out.append(Column(f"{quantity.id}_gap", "gap", "oracle − held-out", right=True))
    return (
        *out,
        Column("seeds", "seeds", right=True),
        Column("variant", "variant", said_above=True),
        Column("supervision", "supervision", said_above=True),
        Column("backbone", "backbone", spare=1),
        *([Column("decoder", "decoder", spare=2)] if several["decoder"] else []),
        *([Column("inference", "scored at")] if several["inference"] else []),
        Column("iterations", "iterations", right=True, spare=3),
        Column("trials", "trials", right=True, said_above=True),
        Column("hours", "hours", right=True, spare=4),
        Column("protocol", "protocol", said_above=True),
    )


def _line(board: Board, i: int, *, thresholds: bool, tied: Mapping[int, bool]) -> dict[str, Cell]:
    row, scores = board.group.rows[i], board.scores[i]
    number = scores[board.main].rank if board.main in scores else None
    line: dict[str, Cell] = {
        "rank": None if number is None else Rank(number, tied.get(number, False)),
        "method": f"{row.method} ({row.extra})" if row.extra else row.method, "ablation": row.ablation,
        "variant": row.variant, "supervision": row.labels, "backbone": row.backbone, "decoder": row.decoder,
        "inference": str(row.inference), "seeds": len(row.seeds), "iterations": _range(row.iterations),
        "trials": row.trials, "hours": _hours(row), "protocol": _protocol(row),
    }  # fmt: skip
    line.update({p.id: s for p, s in scores.items()})
    if board.dice:
        line.update({f"{p.id}_dice": s for p, s in board.dice[i].items()})
    if thresholds:
        line.update({f"{p.id}_gap": _gap(board, i, p) for p in board.quantities if _gap_behind(board, p)})
    return line


def _guest(board: Board, i: int, what: str, *, thresholds: bool) -> dict[str, Cell]:
    line = _line(board, i, thresholds=thresholds, tied={})
    unranked = {k: replace(v, rank=None) if isinstance(v, Score) else v for k, v in line.items()}
    return {**unranked, "rank": None, "method": f"{line['method']} ({what})"}


def _gap_behind(board: Board, quantity: Quantity) -> bool:
    """Whether the gap stands behind this column: behind `oracle`, where there is a held-out column too."""
    return quantity.rule == "oracle" and Quantity(quantity.target, quantity.tags, "held-out") in board.quantities


def _gap(board: Board, i: int, quantity: Quantity) -> Amount | None:
    oracle = board.scores[i].get(quantity)
    held_out = board.scores[i].get(Quantity(quantity.target, quantity.tags, "held-out"))
    return Amount(oracle.value - held_out.value) if oracle and held_out else None


def _ties(board: Board) -> dict[int, bool]:
    ranks = [s[board.main].rank for s in board.scores if board.main in s]
    return {r: ranks.count(r) > 1 for r in ranks if r is not None}


def _caption(board: Board) -> str:
    head, rows = board.group.head, board.group.rows
    parts = [f"dataset {head.dataset}, split {head.split}, {_plural(board.group.images, 'image')}"]
    parts += [f"{len(head.class_names)} classes"] if head.class_names else []
    left_out = [s.excluded for cells in board.scores for s in cells.values()]
    worst = max(left_out, default=0)
    parts.append(f"{_plural(worst, 'class', 'classes')} excluded (absent from prediction and truth)")
    scorings = {str(r.inference) for r in rows}
    parts += [f"segmentation scored at {next(iter(scorings))}"] if len(scorings) == 1 else []
    before = {_learned(r) for r in rows}
    parts += [text for text in before if text and len(before) == 1]
    decoders = {r.decoder for r in rows if r.decoder}
    parts += [f"decoder {next(iter(decoders))}"] if len(decoders) == 1 else []
    return "; ".join(parts)


def _notes(board: Board, *, thresholds: bool) -> tuple[str, ...]:
    rows = board.group.rows
    notes = []
    if not board.intervals:
        notes.append("scores without intervals: nothing is ranked, and no difference is one until they are there")
    elif len(rows) > 1:
        notes.append(f"rank by {NAMES[board.main.target]}: 1 + number of rows significantly better (paired, Holm); "
                     "= shared")  # fmt: skip
    notes += one_seed(rows) if board.intervals else ()
    told: dict[str, list[str]] = {}
    for row in rows:
        told.setdefault(_learned(row) or "pretraining not known", []).append(display_name(row))
    if len(told) > 1:
        notes.append("not alike: " + "; ".join(f"{', '.join(names)}: {what}" for what, names in told.items()))
    marks = "".join(s.mark for cells in board.scores for s in cells.values())
    if ORACLE in marks or any(p.rule == "oracle" for p in board.quantities):
        notes.append(f"{ORACLE} oracle: chosen on the split that is reported")
    if OTHER_RULE in marks:
        notes.append(f"{OTHER_RULE} at the preset's fixed threshold: no eval with the row's own rule")
    if BELOW in marks:
        notes.append(f"{BELOW} not {'significantly ' * board.intervals}above {baseline_name(board.group.head)}")
    if any(r.retried for r in rows):
        notes.append("not ranked: an out-of-memory retry changed a normaliser")
    if old := dict.fromkeys(r.method for r in rows if r.pixels_unknown):
        notes.append(f"pixels not recorded: {', '.join(old)} ran before keys held a digest of the images")
    lost = sum(r.untimed for r in rows)
    if lost:
        notes.append(f"hours leave out {_plural(lost, 'run')} that stopped without saying how long they took")
    if thresholds and not any(p.rule in RULES for p in board.quantities):
        notes.append("no target here has thresholds")
    return tuple(notes)


def _learned(row: Row) -> str:
    """Data and supervision of the pretraining of its networks, and the extra data in that; empty where unknown."""
    every = [row.pretraining, *row.pretraining.networks.values()]
    if not any(one.data for one in every):
        return ""
    extra = dict.fromkeys(one.extra or UNKNOWN for one in every if one.extra != NONE)
    more = f"extra data {', '.join(extra)}" if extra else "no extra data"
    return f"pretrained on {' and '.join(dict.fromkeys(one.learned for one in every))}, {more}"


def _hours(row: Row) -> Cell:
    if row.gpu_hours and row.core_hours:
        return f"{row.gpu_hours:.2f} GPU-h + {row.core_hours:.2f} core-h"
    value, unit = (row.gpu_hours, "GPU-h") if row.gpu_hours else (row.core_hours, "core-h")
    return Amount(value, 2, unit)


def _protocol(row: Row) -> str:
    return row.protocol + (ORACLE if row.protocol == "oracle" else "")


def _range(values: Sequence[int]) -> Cell:
    if not values:
        return None
    return values[0] if len(values) == 1 else f"{values[0]}-{values[-1]}"


def _plural(n: int, word: str, many: str = "") -> str:
    return f"{n} {word if n == 1 else many or word + 's'}"
