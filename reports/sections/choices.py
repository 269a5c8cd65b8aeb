"""What tuning chose: the held-out choice of each tuned row, the choice of an oracle, and the gap between them."""

from __future__ import annotations

from collections.abc import Mapping

from harness.store import Results
from reports.format.table import Cell, Column, Score, Section
from reports.rows.ranking import ORACLE, Board, Quantity, resampled
from reports.rows.row import Filters, Row, Scored
from reports.rows.trials import chosen_of, trials_of

TITLES = {"cam": "CAM", "pseudo": "pseudo mask", "segmentation": "segmentation"}


def sections(board: Board, results: Results, filters: Filters) -> list[Section]:
    """A section for a board's tuned rows (protocol held-out, more than one trial); none where there are none."""
    lines = [
        line
        for row in board.group.rows
        if row.protocol == "held-out" and row.trials > 1
        for quantity in dict.fromkeys(Quantity(p.target, p.tags) for p in board.quantities)
        if (line := _line(row, quantity, results, filters)) is not None
    ]
    if not lines:
        return []
    columns = (
        Column("method", "method"),
        Column("target", "target"),
        Column("chosen", "held-out trial", right=True),
        Column("held_out", "held-out choice", right=True),
        Column("best", "oracle trial", right=True),
        Column("oracle", f"oracle choice{ORACLE}", right=True),
        Column("gap", "gap", "oracle − held-out", right=True, measure="difference"),
    )
    notes = (
        f"{ORACLE} trial and threshold chosen on the split that is reported; both sides with the seed of the trials, "
        "intervals over images, the gap's paired",
    )
    heading = f"Choices of tuned rows · {board.group.head.dataset} · {board.group.head.split}"
    return [Section(heading, columns, tuple(lines), notes=notes, kind="choices")]


def _line(row: Row, quantity: Quantity, results: Results, filters: Filters) -> Mapping[str, Cell] | None:
    """One target of one row; None where either side was not scored."""
    found = {rule: trials_of(row, quantity, rule, results, filters.weights) for rule in ("held-out", "oracle")}
    if not found["held-out"] or not found["oracle"]:
        return None
    chosen = chosen_of(found["held-out"])
    best = max(found["oracle"], key=lambda t: (t.miou, -t.number))
    both = [Scored((t.eval,), (), 0, f"trial {t.number} of {row.study}") for t in (chosen, best)]
    drawn = resampled(both, results.counts_by_eval)
    gap = drawn.difference(1, 0)
    scores = [Score(100 * i.value, 100 * i.low, 100 * i.high) for i in (drawn.interval(0), drawn.interval(1))]
    return {
        "method": row.title, "target": TITLES[quantity.target], "chosen": chosen.number, "held_out": scores[0],
        "best": best.number, "oracle": scores[1], "gap": Score(100 * gap.value, 100 * gap.low, 100 * gap.high),
    }  # fmt: skip
