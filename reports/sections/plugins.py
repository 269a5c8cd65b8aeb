"""What plug-ins add to their bases: differences paired on the same images, as sections behind the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence

from harness.scoring.intervals import Difference, holm
from reports.format.table import Cell, Column, Section, p_value
from reports.rows.comparing import score_cell
from reports.rows.ranking import Board, Counts, Quantity, resampled
from reports.rows.row import Row
from reports.sections.board import display_name, quantity_title

NOTE = "paired on the same images, 95 % intervals, p adjusted by Holm over the rows of a column"


def sections(board: Board, counts: Counts) -> list[Section]:
    """One section with a line per plug-in of the board whose base stands there too, none where no one does."""
    pairs = [(row, base) for row in board.group.rows if (base := base_row(row, board.group.rows)) is not None]
    if not pairs:
        return []
    columns = [Column("method", "method"), Column("base", "base")]
    lines: list[dict[str, Cell]] = [{"method": display_name(row), "base": display_name(base)} for row, base in pairs]
    for quantity in board.quantities:
        found = _differences(pairs, quantity, counts)
        if not found:
            continue
        title, sub = quantity_title(quantity), "method − base"
        columns += [Column(quantity.id, title, sub, right=True, measure="difference"),
                    Column(f"{quantity.id}_p", "p", right=True)]  # fmt: skip
        for n, cells in found.items():
            lines[n] |= cells
    return [Section("What plug-ins add to their bases, points of mIoU", tuple(columns), tuple(lines), notes=(NOTE,))]


def base_row(row: Row, rows: Sequence[Row]) -> Row | None:
    """Where `row` is a plug-in's: the row of its base alone, with the same network and without ablation."""
    base = row.method.rpartition("+")[0]
    fits = [r for r in rows if (r.method, r.backbone, r.decoder, r.ablation) == (base, row.backbone, row.decoder, "")]
    return fits[0] if base and fits else None


def _differences(pairs: Sequence[tuple[Row, Row]], quantity: Quantity, counts: Counts) -> dict[int, dict[str, Cell]]:
    """Difference and p-value, by the number of the pair, of those pairs of which both were scored at a quantity."""
    gaps: dict[int, Difference] = {}
    for n, pair in enumerate(pairs):
        settings = [quantity.setting(row) for row in pair]
        scored = [row.scores[s] for row, s in zip(pair, settings, strict=True) if s is not None]
        if len(scored) == len(pair):
            gaps[n] = resampled(scored, counts).difference(0, 1)
    if not gaps:
        return {}
    adjusted = holm([gap.p for gap in gaps.values()])
    return {
        n: {quantity.id: score_cell(gap), f"{quantity.id}_p": p_value(float(p))}
        for (n, gap), p in zip(gaps.items(), adjusted, strict=True)
    }
